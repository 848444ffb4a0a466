"""Checks what a whole file holds: its rows against the manifest and against the definitions.

Columns are read one row group at a time, and on one thread: Arrow's threads, begun shortly before
the process ends, now and then abort it, and its exit code would be wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mallard.chunks import chunks
from mallard.clock import utc_date
from mallard.config import StoreConfig
from mallard.jobs.database import connect
from mallard.jobs.ordering import visit_runs, visitor_shares
from mallard.jobs.summing import ROWS_AT_ONCE, Summed, sum_up
from mallard.query.events import annotated_rows_of, rows_of
from mallard.query.rollup import ROLLUP_SCHEMA
from mallard.query.sessions import SESSION_SCHEMA, annotated
from mallard.query.sql import Sql, literal
from mallard.store.encoding import PART_SCHEMA
from mallard.store.part import Derived, Part, Summary

LEVEL_0_ORDER = ["site_id", "timestamp", "position"]
_COLUMNS = [*LEVEL_0_ORDER, "received_at", "loaded_at"]
_OF_VISITS = ["site_id", "visitor_id", "timestamp", "position", "event_type"]


def content_problem(path: Path, file: Part | Derived) -> str | None:
    """Return what is wrong with the rows of a file whose bytes are right; None when nothing is."""
    try:
        if isinstance(file, Derived):
            with pq.ParquetFile(path, pre_buffer=False) as derived:
                rows = derived.metadata.num_rows
            return None if rows == file.rows else "holds other rows than the manifest says."
        return _part_problem(path, file)
    except pa.ArrowException as error:
        return f"cannot be read as Parquet ({error})."


def _part_problem(path: Path, part: Part) -> str | None:
    found, before = Summary(), None
    sites: set[str] = set()
    for rows in _groups(path):
        if not rows.num_rows:
            continue
        instants = pc.min_max(rows["timestamp"].cast(pa.int64()))
        if {utc_date(instants[end].as_py()).isoformat() for end in ("min", "max")} != {part.date}:
            return f"holds events of other dates than {part.date}."
        found.add(rows)
        sites |= set(rows["site_id"].unique().to_pylist())
        run = rows.select(LEVEL_0_ORDER)
        if part.level == 0 and not _is_sorted(pa.concat_tables([before, run]) if before else run):
            return f"is not sorted by {', '.join(LEVEL_0_ORDER)}."
        before = run.slice(run.num_rows - 1)
    seen = found.part(
        part.location, part.level, part.date, tuple(sorted(sites)), part.size_bytes, part.digest
    )
    same = replace(seen, schema_version=part.schema_version) == part
    return None if same else "holds other rows than the manifest says."


def _groups(path: Path) -> Iterator[pa.Table]:
    """Yield what a part's summary is of, a row group at a time, as it was before it was written."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, columns=_COLUMNS, use_threads=False)
            received = pc.coalesce(rows["received_at"], rows["timestamp"])
            loaded = pc.coalesce(rows["loaded_at"], received)  # see encoding.condensed
            columns = {name: rows[name] for name in _COLUMNS} | {"loaded_at": loaded}
            yield pa.table(columns).cast(pa.schema([PART_SCHEMA.field(name) for name in _COLUMNS]))


def _is_sorted(rows: pa.Table) -> bool:
    """Whether rows of `LEVEL_0_ORDER`, which holds no nulls, stand in it."""
    earlier, later = rows.slice(0, rows.num_rows - 1), rows.slice(1)
    after: pa.ChunkedArray | pa.Scalar = pa.scalar(False)
    for name in reversed(LEVEL_0_ORDER):
        one, other = earlier[name].combine_chunks(), later[name].combine_chunks()
        after = pc.or_(pc.greater(one, other), pc.and_(pc.equal(one, other), after))
    return rows.num_rows < 2 or not pc.any(after).as_py()


@contextmanager
def deeper(data: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection for `visits_problem` and `sums_problem`, which spills to a data folder.

    There an erasure waits for it; where nothing can be written, nothing is spilled.
    """
    with connect(StoreConfig(), data if os.access(data, os.W_OK) else None) as connection:
        yield connection


def visits_problem(
    connection: duckdb.DuckDBPyConnection, parts: Sequence[str], sessions: str | None
) -> str | None:
    """Return whether a site-day's visits are not what the definition makes of its events.

    parts: where its parts of level 1 are. sessions: where the visits made of them are, if any.
    Raises duckdb.Error when a file cannot be read.
    """
    narrow = Sql(f"SELECT {', '.join([*_OF_VISITS, 'visit'])} FROM ({annotated_rows_of(parts)})")
    wrong = 0
    for share in visitor_shares(connection, narrow):
        some = Sql(f"SELECT *, visit AS kept_visit FROM ({narrow}) WHERE {share}")
        (more,) = _row(
            connection,
            f"SELECT count(*) FROM ({annotated(some)}) WHERE visit IS DISTINCT FROM kept_visit",
        )
        wrong += more
    if wrong:
        return f"{wrong} events are in another visit than the definition says"
    if sessions and not _are_visits_of(connection, parts, sessions):
        return "its file of visits is not what the definition makes of its events"
    return None


def _are_visits_of(
    connection: duckdb.DuckDBPyConnection, parts: Sequence[str], sessions: str
) -> bool:
    columns = ", ".join(SESSION_SCHEMA.names)
    kept = f"SELECT {columns} FROM read_parquet({literal(sessions)}, hive_partitioning = false)"
    (left,) = _row(connection, f"SELECT count(*) FROM ({kept})")
    ((site,),) = connection.execute(f"SELECT min(site_id) FROM ({rows_of(parts)})").fetchall()
    for made, which, begun in visit_runs(connection, [(site, part) for part in parts]):
        _make(connection, "made", made)
        those = f"{begun} AND (site_id, visitor_id, visit) IN ({which})"
        _make(connection, "kept", f"{kept} WHERE {those}")
        if _differ(connection, Sql("FROM made"), Sql("FROM kept")):
            return False
        left -= _row(connection, f"SELECT count(*) FROM ({which})")[0]
    return left == 0


def sums_problem(
    connection: duckdb.DuckDBPyConnection, days: Mapping[str, Summed], file: Derived, sums: str
) -> str | None:
    """Return whether a file's sums of days are not what the definition makes of their events.

    days: by date. sums: where the file is. Raises duckdb.Error when a file cannot be read.
    """
    columns = ", ".join(ROLLUP_SCHEMA.names)
    for dates in chunks([(date, day.rows) for date, day in days.items()], ROWS_AT_ONCE):
        connection.execute("DROP TABLE IF EXISTS sums_made_again")
        sum_up(connection, Sql("sums_made_again"), [days[date] for date in dates])
        of_dates = ", ".join(f"DATE {literal(date)}" for date in dates)
        kept = Sql(
            f"SELECT {columns} FROM read_parquet({literal(sums)}, hive_partitioning = false) "
            f"WHERE date IN ({of_dates})"
        )
        if _differ(connection, Sql(f"SELECT {columns} FROM sums_made_again"), kept):
            return "its sums are not what the definition makes of its events"
    return None


def _make(connection: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    """Make a table: what makes it and what reads it would not fit in memory at once."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")


def _differ(connection: duckdb.DuckDBPyConnection, one: Sql, other: Sql) -> bool:
    (rows,) = _row(
        connection,
        f"SELECT count(*) FROM ((({one}) EXCEPT ALL ({other})) "
        f"UNION ALL (({other}) EXCEPT ALL ({one})))",
    )
    return bool(rows)


def _row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[int, ...]:
    (row,) = connection.execute(query).fetchall()  # one alone would leave it unfinished
    return tuple(row)
