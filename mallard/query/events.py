"""The relation `events`: parts and tail as one, with the columns that tables can compute.

Reading order: the tail first, the store's snapshot second, and from the tail what the snapshot's
watermark covers is dropped. A flush in between puts an event in both, never in neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from mallard.buffer.wal import LogReport, read_log
from mallard.errors import CorruptData
from mallard.event import ARROW_SCHEMA, Event, Frame, to_table
from mallard.files import Files
from mallard.query.rules import apply
from mallard.query.sql import Sql, literal
from mallard.store.encoding import PART_SCHEMA
from mallard.store.local import LocalReader
from mallard.store.partition import RECENT
from mallard.store.snapshot import Rule
from mallard.store.store import Store

SHELL_SCRIPT = "mallard.sql"  # in the data folder

# A UUIDv7 of the milliseconds of `timestamp`, 12 bits of node, and the position in 62 bits.
# Not epoch_ms(): it rounds, and the last moment of a day must not name the next one.
_EVENT_ID = "printf('%012x7%03x8%015x', epoch_us(timestamp) // 1000, node::BIGINT, position)::UUID"
# An instant that equals `timestamp` is not stored.
_RESTORED = {"received_at": "coalesce(received_at, timestamp)"}
_COLUMNS = ", ".join(
    [
        f"{_EVENT_ID} AS event_id",
        "position",
        "loaded_at",
        *(f"{_RESTORED[name]} AS {name}" if name in _RESTORED else name for name in Event._fields),
    ]
)


def rows_of(sources: Sequence[str]) -> Sql:
    """Return a query for the events of parts of any level, with the columns of `ARROW_SCHEMA`.

    sources: where the parts are, at least one.
    """
    return _select(ARROW_SCHEMA.names, sources)


def annotated_rows_of(sources: Sequence[str]) -> Sql:
    """Return a query for the events of parts of level 1, with the columns of `PART_SCHEMA`."""
    return _select(PART_SCHEMA.names, sources)


def _select(columns: Sequence[str], sources: Sequence[str]) -> Sql:
    listed = ", ".join(literal(source) for source in sources)
    # The folders' names say site and date; the columns say it too, and of any length.
    return Sql(
        f"SELECT {', '.join(columns)} FROM read_parquet([{listed}], hive_partitioning = false)"
    )


def show(
    connection: duckdb.DuckDBPyConnection,
    sources: Sequence[str],
    tail: Sequence[Frame],
    rules: Sequence[Rule] = (),
) -> None:
    """Make, or make anew, the view `events` of a connection.

    sources: where the parts of a snapshot are. tail: the frames past that snapshot's watermark.
    rules: the snapshot's; they are about what is in parts, and never about the tail.
    """
    connection.register("tail", to_table(tail))
    stored = "SELECT * FROM tail"
    if sources:
        parts = apply(rows_of(sources), rules)
        stored = f"SELECT * FROM ({parts}) UNION ALL BY NAME {stored}"
    connection.execute(f"CREATE OR REPLACE VIEW events AS SELECT {_COLUMNS} FROM ({stored})")


def show_folder(connection: duckdb.DuckDBPyConnection, data: Path) -> bool:
    """Make the view `events` over a data folder as it is now, whether or not a server runs on it.

    Returns whether everything that was stored is in it; `mallard verify` says what is not.
    Raises StorageError when it is no data folder.
    """
    files, report = Files(), LogReport()
    with LocalReader(data, files) as store:
        watermark = store.snapshot().watermark
        tail = list(read_log(data / "wal", files, watermark, report))
        snapshot = store.snapshot()
        sources = [store.source(part) for part in snapshot.parts]
    left = [frame for frame in tail if frame.last_position > snapshot.watermark]
    show(connection, sources, left, snapshot.rules)
    # What is missing below the watermark was flushed, and its segment removed, while we read.
    lost = report.damaged or any(last > snapshot.watermark for _, last in report.missing)
    return not (lost or snapshot.quarantined)


def open_folder(data: Path) -> duckdb.DuckDBPyConnection:
    """Return a connection in memory whose view `events` is everything stored in a data folder.

    The log's tail is in it. `show_folder` brings the view up to date.
    """
    connection = duckdb.connect()
    show_folder(connection, data)
    return connection


def shell_script(data: Path) -> str:
    """Return what the DuckDB shell runs at its start: `duckdb -init data/mallard.sql`."""
    return f"""\
-- Mallard's events for the DuckDB shell: duckdb -init {data}/mallard.sql
-- The shell reads Parquet alone: events of the last seconds are still in the log, and are
-- in `mallard shell`, which reads both. If this folder moves, the next start of the server
-- writes this file anew.
SET VARIABLE mallard_data = {literal(str(data.absolute()))};
CREATE OR REPLACE VIEW events AS
SELECT {_COLUMNS}
FROM read_parquet(getvariable('mallard_data') || '/{RECENT}/*.parquet');
"""


def read_newest(store: Store) -> int:
    """Read from the newest part, as a query would, and return its number of rows; 0 without parts.

    Raises CorruptData when it cannot be read.
    """
    snapshot = store.snapshot()
    newest = max(snapshot.parts, key=lambda part: part.last_position, default=None)
    if newest is None:
        return 0
    with duckdb.connect() as connection:
        try:
            # A sum is read from the rows; a count or a maximum could come from the file's footer.
            row = connection.execute(
                "SELECT count(*), sum(position) FROM read_parquet($1)", [store.source(newest)]
            ).fetchone()
        except duckdb.Error as error:
            raise CorruptData(f"{newest.location} cannot be read ({error}).") from error
    assert row is not None
    if row != (newest.rows, newest.position_sum):
        raise CorruptData(f"{newest.location} is not what the manifest says of it.")
    return newest.rows
