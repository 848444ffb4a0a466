"""Exports: a site's events, visits or a report as bytes, beside everything else that goes on."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import duckdb

from mallard.errors import CorruptData
from mallard.query.confined import show_reading
from mallard.query.events import Folder, read_folder
from mallard.query.forms import Form, Sink, write
from mallard.query.pieces import Seen, Wanted, pieces, query_of
from mallard.query.plausible.filtering import Context
from mallard.query.sandbox import Query, Sandbox
from mallard.query.sql import Sql
from mallard.query.tail import Tail, view_of
from mallard.store.store import Store
from mallard.transfer.reports import Report, asking, dimension_of, write_report

# In the data folder: what is spilled is events. What a crash leaves goes when the server starts.
SPILLED = "tmp"


class Exporter:
    """Starts exports of a running server in processes of their own; any thread may ask."""

    def __init__(self, store: Store, tail: Tail, sandbox: Sandbox, seconds_max: float) -> None:
        self._store = store
        self._tail = tail
        self._sandbox = sandbox
        self._seconds_max = seconds_max

    @contextlib.contextmanager
    def start(self, wanted: Wanted, form: Form) -> Iterator[Query]:
        """Give a query that is under way; it ends, and its files may go, when this is left."""
        tail = self._tail.view()  # tail first, snapshot second: see query/events.py
        with self._store.reading() as snapshot:
            seen = Seen(snapshot, tail, self._store.source)
            queries = tuple(query_of(wanted, piece, seen) for piece in pieces(wanted, seen))
            query = self._sandbox.start(seen.reading(wanted), queries, form, self._seconds_max)
            try:
                yield query
            finally:
                query.close()


def export_folder(data: Path, wanted: Wanted, form: Form, sink: Sink) -> int:
    """Write what is wanted of a data folder, also while a server runs on it; return its rows.

    Raises StorageError for what is no data folder, CorruptData when not all of it can be read.
    """
    seen = _look(data)
    with _connect(data) as connection:

        def queries() -> Iterator[Sql]:
            for piece in pieces(wanted, seen):
                # Looked at anew: files stay for half a minute after a server has replaced them.
                now = _look(data)
                show_reading(connection, now.reading(wanted, piece))
                yield query_of(wanted, piece, now)

        return write(connection, queries(), form, sink)


def export_report(
    data: Path,
    site_id: str,
    what: str,
    days: tuple[date | None, date | None],
    context: Context,
    form: Form,
    sink: Sink,
) -> int:
    """Write a report of a data folder, as `export_folder` does events; return its rows.

    days: the first and the last; None is as far as there are any. context: without `first_day`.
    """
    dimension = dimension_of(what)
    with _connect(data) as connection, asking(_whole(data), connection) as (session, answers):
        context = replace(context, first_day=answers.first_date(site_id))
        today = context.now.astimezone(context.zone).date()
        first, last = days[0] or context.first_day or today, days[1] or today
        date_range = "all" if days == (None, None) else [first.isoformat(), last.isoformat()]
        wanted = Report(site_id, dimension, date_range)
        return write_report(session, answers, context, wanted, form, sink)


def _look(data: Path) -> Seen:
    folder = _whole(data)
    return Seen(folder.snapshot, view_of(folder.tail), folder.source)


def _whole(data: Path) -> Folder:
    folder = read_folder(data)
    if not folder.is_whole:
        raise CorruptData(
            f"Some events of {data} cannot be read; `mallard verify --data {data}` says which."
        )
    return folder


@contextlib.contextmanager
def _connect(data: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    spill = data / SPILLED / f"export-{secrets.token_hex(4)}"
    # Who may only read the folder can export what fits in memory.
    with contextlib.suppress(PermissionError):
        spill.parent.mkdir(mode=0o700, exist_ok=True)
        spill.mkdir(mode=0o700)
    try:
        with duckdb.connect(
            config={"memory_limit": "256MB", "threads": "2", "temp_directory": str(spill)}
        ) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
    finally:
        shutil.rmtree(spill, ignore_errors=True)
