"""What is stored as relations: parts and tail as one, with the columns that tables can compute.

Reading order: the tail first, the store's snapshot second, and from the tail what the snapshot's
watermark covers is dropped. A flush in between puts an event in both, never in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mallard.buffer.wal import LogReport, read_log
from mallard.errors import StorageError
from mallard.event import ARROW_SCHEMA, Frame, to_table
from mallard.files import Files
from mallard.processes import cores
from mallard.query.macros import MACROS
from mallard.query.sql import Sql, literal
from mallard.query.stored import columns as stored_columns
from mallard.query.views import list_files, views
from mallard.store.encoding import PART_SCHEMA
from mallard.store.part import Derived, Part
from mallard.store.reader import LocalReader
from mallard.store.snapshot import Snapshot


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
        f"SELECT {stored_columns(columns)} FROM read_parquet([{listed}], hive_partitioning = false)"
    )


def show(
    connection: duckdb.DuckDBPyConnection,
    snapshot: Snapshot,
    source: Callable[[Part | Derived], str],
    tail: Sequence[Frame],
    as_of_us: int | None = None,
) -> None:
    """Make, or make anew, the views `events` and `sessions` of a connection.

    source: where a file of the snapshot is. tail: the frames past the snapshot's watermark.
    as_of_us: an instant, to see what was stored then; None for now.
    """
    table = to_table(tail)
    connection.register("tail", table)
    days = {(row["site_id"], row["date"].isoformat()) for row in _site_days(table)}
    lists = {
        variable: [source(file) for file in files]
        for variable, files in list_files(snapshot, days, as_of_us).items()
        if files
    }
    # Views find their columns in one file of each list: to look at the folders' names of all, as
    # queries do, takes a third of a second where there are ten thousands.
    for variable, files in lists.items():
        connection.execute(f"SET VARIABLE {variable.value} = [{literal(files[0])}]")
    for statement in views(lists, snapshot.rules, tail=True, as_of_us=as_of_us):
        connection.execute(statement)
    for variable, files in lists.items():
        connection.register("listed", pa.table({"file": files}))
        connection.execute(f"SET VARIABLE {variable.value} = (SELECT list(file) FROM listed)")
        connection.unregister("listed")


def show_folder(
    connection: duckdb.DuckDBPyConnection, data: Path, as_of_us: int | None = None
) -> bool:
    """Make the views over a data folder as it is now, whether or not a server runs on it.

    as_of_us: an instant, to see what was stored then; None for now.

    Returns whether everything that was stored is in them; `mallard verify` says what is not.
    Raises StorageError when it is no data folder, or no view can be made over its files.
    """
    folder = read_folder(data)
    try:
        show(connection, folder.snapshot, folder.source, folder.tail, as_of_us)
    except duckdb.Error as error:
        raise StorageError(
            f"{data} holds files that cannot be read ({str(error).partition(chr(10))[0]}). "
            f"`mallard verify --data {data}` says which, and what to do."
        ) from error
    return folder.is_whole


@dataclass(frozen=True, slots=True)
class Folder:
    """What lies in a data folder. tail: the frames past the snapshot's watermark.

    source: where a file of the snapshot is; it is there for half a minute after the server has put
    others in its place. is_whole: whether everything that was stored is there.
    """

    snapshot: Snapshot
    tail: list[Frame]
    source: Callable[[Part | Derived], str]
    is_whole: bool


def read_folder(data: Path) -> Folder:
    """Return what a data folder holds now; raises StorageError when it is no data folder."""
    files, report = Files(), LogReport()
    with LocalReader(data, files) as store:
        watermark = store.snapshot().watermark
        tail = list(read_log(data / "wal", files, watermark, report))
        snapshot = store.snapshot()
    left = [frame for frame in tail if frame.last_position > snapshot.watermark]
    # What is missing below the watermark was flushed, and its segment removed, while we read.
    missing = any(last > snapshot.watermark for _, last in report.missing)
    is_whole = report.is_whole and not missing and not snapshot.quarantined
    return Folder(snapshot, left, store.source, is_whole)


def add_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Add the macros (`query/macros.py`) to a new connection, and views of nothing."""
    show(connection, Snapshot(), lambda file: file.location, [])
    for statement in MACROS:
        connection.execute(statement)


def connect() -> duckdb.DuckDBPyConnection:
    """Return a connection in memory for a process beside the server, to which it leaves a core.

    Where the server has two, its slowest answers took half as long as beside queries on both.
    """
    return duckdb.connect(config={"threads": str(max(1, cores() - 1))})


def open_folder(data: Path) -> duckdb.DuckDBPyConnection:
    """Return a connection in memory whose views are over everything stored in a data folder.

    The log's tail is in them. `show_folder` brings them up to date.
    """
    connection = connect()
    add_macros(connection)
    show_folder(connection, data)
    return connection


def _site_days(events: pa.Table) -> list[dict[str, Any]]:
    keys = {"site_id": events["site_id"], "date": pc.cast(events["timestamp"], pa.date32())}
    found: list[dict[str, Any]] = pa.table(keys).group_by(list(keys)).aggregate([]).to_pylist()
    return found
