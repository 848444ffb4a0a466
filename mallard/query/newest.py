"""Whether what is stored can be read: a query over the newest part, which is what readiness means.

Invariant: each look reads from the disk; nothing of an earlier one is remembered but DuckDB itself,
whose start is nine tenths of what a look would cost.
"""

from __future__ import annotations

import threading

import duckdb

from mallard.errors import CorruptData
from mallard.store.store import Store

_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": "1",
    "enable_external_file_cache": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


class NewestPart:
    """Reads the newest part of a store; any thread may ask. DuckDB starts with the first look."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def read(self) -> int:
        """Read it as a query would, and return its number of rows; 0 without parts.

        Raises CorruptData when it cannot be read. If it is not what was written it is set aside
        then, and the next look is at the one before it; else it is the disk that cannot read it.
        """
        parts = self._store.snapshot().parts
        newest = max(parts, key=lambda part: part.last_position, default=None)
        if newest is None:
            return 0
        with self._lock:
            if self._connection is None:
                self._connection = duckdb.connect(config=_SETTINGS)
            try:
                # A sum is read from the rows; a count or a maximum could come from the footer.
                row = self._connection.execute(
                    "SELECT count(*), sum(position) FROM read_parquet($1)",
                    [self._store.source(newest)],
                ).fetchone()
            except duckdb.Error as error:
                self._store.check(newest)
                raise CorruptData(f"{newest.location} cannot be read ({error}).") from error
        assert row is not None
        if row != (newest.rows, newest.position_sum):
            self._store.check(newest)
            raise CorruptData(f"{newest.location} is not what the manifest says of it.")
        return newest.rows

    def close(self) -> None:
        """Let DuckDB go; a later look would start it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
