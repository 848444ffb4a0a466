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

SPILLED = "tmp"  # in the data folder
# What rows may take on their way from DuckDB to a file, where they wait until a row group is full
# and are encoded. While a site-day of a million events was compacted, a server grew by 318 MiB, of
# which DuckDB counted 160, and by 44 MiB of libraries that the system can take back.
WRITER_BYTES = 96 * 1024 * 1024
# The least that the settings allow. With 40 MiB, reading parts of many columns did not fit.
QUERY_BYTES_MIN = 64 * 1024 * 1024

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
    return max(config.memory_bytes - WRITER_BYTES, QUERY_BYTES_MIN)


def rows_bytes(config: StoreConfig) -> int:
    """Return what the rows of one query that sorts may take; reading files takes memory too."""
    return config.memory_bytes // 2


@contextlib.contextmanager
def connect(
    config: StoreConfig, data: Path, spill_bytes_max: int | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection for one job, on one thread at a time.

    data: the data folder, which takes what does not fit in memory. spill_bytes_max: at most so much
    of it; None for 90 % of what is free. Queries that need more raise `duckdb.Error`.
    """
    folder = data / SPILLED / secrets.token_hex(4)
    settings = {
        **_SETTINGS,
        "memory_limit": f"{query_bytes(config)}B",
        "threads": str(config.threads),
        "temp_directory": str(folder),
    }
    if spill_bytes_max is not None:
        settings["max_temp_directory_size"] = f"{max(0, spill_bytes_max)}B"
    folder.parent.mkdir(mode=0o700, exist_ok=True)  # or it would have another mode
    folder.mkdir(mode=0o700)
    try:
        with duckdb.connect(config=settings) as connection:
            yield connection
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_spilled(data: Path) -> None:
    """Remove what a process that ended left behind; nobody else may be using the folder."""
    shutil.rmtree(data / SPILLED, ignore_errors=True)
