"""Reads a data folder as a process beside its server does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import duckdb

from mallard.query.events import add_macros, show_folder


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    # A path may lead to another folder by the next look.
    connection.execute("SET enable_external_file_cache = false")
    add_macros(connection)
    return connection


@contextmanager
def looking_at(data: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give what `open_folder` does, by views of one connection that all looks share.

    To make a connection with its macros takes longer than to look. One look at a time.
    """
    show_folder(_connection(), data)
    yield _connection()
