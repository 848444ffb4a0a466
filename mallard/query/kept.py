"""What was worked out and may be asked for again, within a bound of memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any, Protocol


class Sizable(Protocol):
    """What has a size, as Arrow's tables have."""

    def get_total_buffer_size(self) -> int:
        """Return the bytes it takes in memory."""


class Kept:
    """Tables, or what is made of them, by key.

    The least recently used of them go when they take too many bytes.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._tables: OrderedDict[Hashable, Sizable] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """Return what is kept by a key; None without."""
        with self._lock:
            table = self._tables.get(key)
            if table is not None:
                self._tables.move_to_end(key)
            return table

    def keep(self, tables: Mapping[Hashable, Sizable]) -> None:
        """Keep tables; one that is larger than all may be is not."""
        with self._lock:
            for key, table in tables.items():
                self._forget(key)
                if _size(table) > self._bytes_max:
                    continue
                self._tables[key] = table
                self._bytes += _size(table)
            while self._bytes > self._bytes_max:
                self._forget(next(iter(self._tables)))

    @property
    def size_bytes(self) -> int:
        """What they take."""
        return self._bytes

    def _forget(self, key: Hashable) -> None:
        table = self._tables.pop(key, None)
        if table is not None:
            self._bytes -= _size(table)


def _size(table: Sizable) -> int:
    return int(table.get_total_buffer_size()) + 1_000  # what Python takes for it, about
