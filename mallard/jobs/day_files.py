"""Writes the events of a UTC date to parts, and the visits of its sites, from queries over them.

Rows stream to the files, so that what a date holds does not bound the memory it takes. Connections
are those of `jobs/database.py`. When something here raises, nothing is left of what it wrote:
StorageError, or `duckdb.Error`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mallard.jobs.ordering import annotated_rows, merged_rows, visits_of
from mallard.query.sessions import SESSION_SCHEMA
from mallard.query.sql import Sql
from mallard.store.part import Derived, Part
from mallard.store.snapshot import day_version
from mallard.store.store import Writing

_INSTANTS = ("timestamp", "sent_at", "received_at", "loaded_at")


def write_merged(
    store: Writing,
    connection: duckdb.DuckDBPyConnection,
    date: str,
    events: Sql,
) -> Part:
    """Write one part of level 0; return it, uncommitted.

    events: of one date, at least one, with the columns of `ARROW_SCHEMA`.
    """
    with store.merge_writer(date) as writer:
        for table in merged_rows(connection, events):
            writer.write(table)
        return writer.finish_part()


def write_days(
    store: Writing,
    connection: duckdb.DuckDBPyConnection,
    date: str,
    events: Sql,
) -> list[Part | Derived]:
    """Write a part of level 1 and a file of visits for each site; return them, uncommitted.

    events: all events of a date and some sites, with the columns of `ARROW_SCHEMA`.
    """
    return _all_or_none(store, _write_days(store, connection, date, events))


def write_sessions(
    store: Writing,
    connection: duckdb.DuckDBPyConnection,
    parts: Sequence[Part],
) -> list[Part | Derived]:
    """Write the visits of site-days, those of one site to one file; return them, uncommitted.

    parts: of level 1 and one date, all that their site-days have, in order of site.
    """
    return _all_or_none(store, _write_sessions(store, connection, parts))


def _write_days(
    store: Writing,
    connection: duckdb.DuckDBPyConnection,
    date: str,
    events: Sql,
) -> Iterator[Part | Derived]:
    whole = " AND ".join(f"coalesce(epoch_us({name}) % 1000 = 0, true)" for name in _INSTANTS)
    is_whole = dict(
        connection.execute(
            f"SELECT site_id, bool_and({whole}) FROM ({events}) GROUP BY site_id"
        ).fetchall()
    )
    parts: list[Part] = []
    for site_id, groups in groupby(annotated_rows(connection, events), key=_site_of):
        with store.day_writer(site_id, date, whole_ms=is_whole[site_id]) as writer:
            for _, tables in groupby(groups, key=itemgetter(0)):
                for _, table in tables:
                    writer.write(table)
                writer.end_group()
            parts.append(writer.finish_part())
        yield parts[-1]
    yield from _write_sessions(store, connection, parts)


def _write_sessions(
    store: Writing,
    connection: duckdb.DuckDBPyConnection,
    parts: Sequence[Part],
) -> Iterator[Derived]:
    days = {site: list(some) for site, some in groupby(parts, key=lambda part: part.sites[0])}
    if days:
        for site_id, some in _by_site(visits_of(store, connection, parts)):
            yield _write_visits(store, days.pop(site_id), some)
    for without in days.values():  # a file without rows says that there are none
        yield _write_visits(store, without, ())


def _write_visits(store: Writing, parts: Sequence[Part], tables: Iterable[pa.Table]) -> Derived:
    ordered = tuple(sorted(parts, key=lambda part: part.first_position))
    sources = {parts[0].date: day_version(ordered)}
    writer = store.derived_writer("sessions", parts[0].sites[0], sources, SESSION_SCHEMA)
    with writer:
        for table in tables:
            writer.write(table)
        return writer.finish_derived()


def _by_site(tables: Iterable[pa.Table]) -> Iterator[tuple[str, Iterator[pa.Table]]]:
    """Yield each site with its rows in pieces, from rows in order of site."""
    for site_id, pieces in groupby(_pieces(tables), key=lambda piece: piece[0]):
        yield site_id, (table for _, table in pieces)


def _pieces(tables: Iterable[pa.Table]) -> Iterator[tuple[str, pa.Table]]:
    for table in tables:
        runs = pc.run_end_encode(table["site_id"].combine_chunks())
        start = 0
        for site_id, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            yield site_id, table.slice(start, end - start)
            start = end


def _site_of(numbered: tuple[int, pa.Table]) -> str:
    site_id: str = numbered[1]["site_id"][0].as_py()
    return site_id


def _all_or_none(store: Writing, files: Iterator[Part | Derived]) -> list[Part | Derived]:
    written: list[Part | Derived] = []
    try:
        for file in files:
            written.append(file)
    except BaseException:
        store.discard(written)
        raise
    return written
