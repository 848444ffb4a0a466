"""DuckDB for jobs: in memory, within its share of what they may take, spilling beside the data.

What it spills lies in a folder of its own under `tmp/` and is gone with the connection; what a
crash left there goes at the next start.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb

from mallard.config import StoreConfig
from mallard.query.sql import literal

SPILLED = "tmp"  # in the data folder
# What a job adds to the process beside what DuckDB counts, which is bounded whatever it works on:
# 40 MiB of libraries' pages, 40 of rows that wait until a row group is full, 20 for encoding one,
# and what allocators keep. While a site-day was compacted with 56 MiB for DuckDB the process grew
# by 212 MiB with four million events, and by 228 with twelve.
BESIDE_BYTES = 200 * 1024 * 1024
# Rows travel in the order a query says, and not that of files. Files are read once: no cache of
# them. Nothing is fetched from anywhere.
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "preserve_insertion_order": "false",
    "enable_external_file_cache": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


def query_bytes(config: StoreConfig) -> int:
    """Return what DuckDB may take of a job's memory; the rest is for writing what it gives."""
    return config.memory_bytes - BESIDE_BYTES


def rows_bytes(connection: duckdb.DuckDBPyConnection) -> int:
    """Return what the rows may take that a query of a connection sorts; the rest is for reading."""
    ((found,),) = connection.execute("SELECT getvariable('rows_bytes')").fetchall()
    return int(found)


def use_disk(connection: duckdb.DuckDBPyConnection) -> None:
    """Make tables that are not temporary in a connection's folder from now on, if it has one.

    In memory they keep some of it for each million rows, even when they are spilled. What was made
    before is not found any more.
    """
    ((folder,),) = connection.execute("SELECT current_setting('temp_directory')").fetchall()
    if folder:
        file = literal(f"{folder}/scratch.db")  # which nobody opens again
        connection.execute(f"ATTACH IF NOT EXISTS {file} AS scratch (RECOVERY_MODE no_wal_writes)")
        connection.execute("USE scratch")


@contextlib.contextmanager
def connect(
    config: StoreConfig,
    data: Path | None,
    spill_bytes_max: int | None = None,
    name: str | None = None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection for one job, on one thread at a time.

    data: the data folder, which takes what does not fit in memory; None: nothing does.
    spill_bytes_max: at most so much of it; None for 90 % of what is free. Queries that need more
    raise `duckdb.Error`. name: of the folder it is put in, for who has to remove it.
    """
    folder = data / SPILLED / (name or secrets.token_hex(4)) if data else None
    settings = {
        **_SETTINGS,
        "memory_limit": f"{query_bytes(config)}B",
        "threads": str(config.threads),
        "temp_directory": str(folder or ""),
    }
    if folder:
        folder.parent.mkdir(mode=0o700, exist_ok=True)  # or it would have another mode
        folder.mkdir(mode=0o700)
    try:
        with duckdb.connect(config=settings) as connection:
            connection.execute(f"SET VARIABLE rows_bytes = {query_bytes(config) // 3}")
            if spill_bytes_max is not None:
                # DuckDB does not heed it where it is given with the others.
                most = max(0, spill_bytes_max)
                connection.execute(f"SET max_temp_directory_size = '{most}B'")
            yield connection
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def remove_spilled(data: Path, name: str = "") -> None:
    """Remove what a process that ended left behind, in a folder of that name or in any.

    Nobody else may be using it.
    """
    shutil.rmtree(data / SPILLED / name, ignore_errors=True)
