"""Exports: a site's events, visits or a report as bytes, beside everything else that goes on."""

from __future__ import annotations

import contextlib
import math
import secrets
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import duckdb

from mallard.config import QueryConfig
from mallard.errors import CorruptData, QueryTooLarge, StorageError
from mallard.query.confined import show_reading
from mallard.query.events import Folder, read_folder
from mallard.query.forms import Form, Sink, write
from mallard.query.named.asking import Asking
from mallard.query.named.parameters import check_names
from mallard.query.named.registry import exported, exported_names
from mallard.query.named.whole import Whole, WholeTask, write_whole
from mallard.query.pieces import Seen, Wanted, What, pieces, query_of
from mallard.query.plausible.reading import read_as_of
from mallard.query.sandbox import Query, Sandbox, limits_of
from mallard.query.sandboxed import Limits, Work, connect
from mallard.query.sql import Sql
from mallard.query.still import Still, still
from mallard.query.tail import Tail, view_of
from mallard.store.store import Store

# In the data folder: what is spilled is events. What a crash leaves goes when the server starts.
SPILLED = "tmp"
STORED = tuple(each.value for each in What)  # what is exported as it is stored
NAMES = (*STORED, *exported_names())
_OF_STORED = ("site_id", "period", "from", "to", "as_of")


def parameters_of(what: str) -> tuple[str, ...]:
    """Return the parameters that an export has, but for its form; raises InvalidInput."""
    if what in STORED:
        return _OF_STORED
    report, _, _ = exported(what, STORED)
    return tuple(each for each in report.whole if each != "format")


def read_wanted(what: str, asking: Asking) -> Wanted | Whole:
    """Return what is exported; raises InvalidInput, which says what is wrong with what was asked.

    Events and visits are all there are where no period is given.
    """
    check_names(asking.given, parameters_of(what))
    if what in STORED:
        is_all = not asking.given.keys() & {"period", "from", "to"}
        period = None if is_all else asking.period
        as_of_us = read_as_of(asking.given.get("as_of"), asking.context.now)
        return Wanted(asking.site.site_id, What(what), period, asking.with_ids, as_of_us)
    whole = Whole(what, asking)
    whole.asked()
    return whole


class Exporter:
    """Starts exports of a running server in processes of their own; any thread may ask."""

    def __init__(self, store: Store, tail: Tail, sandbox: Sandbox, seconds_max: float) -> None:
        self._store = store
        self._tail = tail
        self._sandbox = sandbox
        self._seconds_max = seconds_max

    @contextlib.contextmanager
    def start(self, wanted: Wanted | Whole, form: Form) -> Iterator[Query]:
        """Give a query that is under way; it ends, and its files may go, when this is left."""
        tail = self._tail.view()  # tail first, snapshot second: see query/events.py
        with self._store.reading() as snapshot:
            seen = Seen(snapshot, tail, self._store.source)
            query = self._begun(wanted, seen, form)
            try:
                yield query
            finally:
                query.close()

    def _begun(self, wanted: Wanted | Whole, seen: Seen, form: Form) -> Query:
        if isinstance(wanted, Wanted):
            queries = tuple(query_of(wanted, piece, seen) for piece in pieces(wanted, seen))
            return self._sandbox.start(seen.reading(wanted), queries, form, self._seconds_max)

        def task(limits: Limits) -> Work:
            return WholeTask(wanted, _still(seen, wanted.asking.site.site_id), form, limits)

        return self._sandbox.begin(task, self._seconds_max)


def export_folder(data: Path, wanted: Wanted | Whole, form: Form, sink: Sink) -> int:
    """Write what is wanted of a data folder, also while a server runs on it; return its rows.

    Raises StorageError for what is no data folder and for files that go meanwhile, CorruptData when
    not all of it can be read, QueryTooLarge, and what a report's answers raise.
    """
    seen = _look(data)
    with _connect(data) as connection:
        if isinstance(wanted, Whole):
            # Files stay for half a minute after a server has replaced them.
            of_site = _still(seen, wanted.asking.site.site_id)
            memory_bytes = QueryConfig().sql_memory_bytes
            return write_whole(connection, wanted, of_site, form, sink, memory_bytes)

        def queries() -> Iterator[Sql]:
            for piece in pieces(wanted, seen):
                # Looked at anew, for the same reason.
                now = _look(data)
                show_reading(connection, now.reading(wanted, piece))
                yield query_of(wanted, piece, now)

        return write(connection, queries(), form, sink)


def first_day(data: Path, site_id: str) -> date | None:
    """Return the UTC date of a site's first event in a data folder; None without any."""
    return _still(_look(data), site_id).answers().first_date(site_id)


def _still(seen: Seen, site_id: str) -> Still:
    return still(seen.tail, seen.snapshot, site_id, seen.source)


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
        with connect(limits_of(QueryConfig(), spill, math.inf)) as connection:
            yield connection
    except duckdb.OutOfMemoryException as error:
        raise QueryTooLarge(
            "The export needs more memory and disk than it may take; ask for less."
        ) from error
    except duckdb.IOException as error:
        raise StorageError(
            f"A file of {data} cannot be read. A server puts others in the place of its files: ask "
            "it for the export, for which it keeps them, or export again."
        ) from error
    finally:
        shutil.rmtree(spill, ignore_errors=True)
