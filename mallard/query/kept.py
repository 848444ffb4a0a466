"""What was worked out and may be asked for again, within a bound of memory."""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Sizable(Protocol):
    """What has a size, as Arrow's tables have."""

    def get_total_buffer_size(self) -> int:
        """Return the bytes it takes in memory."""


# Of all bytes, what one owner may take: a large question leaves those of the dashboards alone.
SHARE = 2 / 3
# What rows of answers take, of what they take as bytes one after the other: 4.3 to 5.1.
_TIMES_PICKLED = 5


class Kept:
    """Tables, or what is made of them, by key.

    The least recently used of them go when they take too many bytes, or too many of one owner's.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._bytes = 0
        self._tables: OrderedDict[Hashable, tuple[Sizable, Hashable]] = OrderedDict()
        self._owned: dict[Hashable, _Owned] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """Return what is kept by a key; None without."""
        with self._lock:
            if key not in self._tables:
                return None
            table, owner = self._tables[key]
            self._tables.move_to_end(key)
            if owner is not None:
                self._owned[owner].keys.move_to_end(key)
            return table

    def keep(self, tables: Mapping[Hashable, Sizable], owner: Hashable = None) -> None:
        """Keep tables; one that is larger than all may be is not.

        owner: what they are of, which may take its share; None: all there is.
        """
        most = self.bytes_max if owner is None else int(self.bytes_max * SHARE)
        with self._lock:
            for key, table in tables.items():
                self._forget(key)
                if _size(table) > most:
                    continue
                self._tables[key] = table, owner
                self._bytes += _size(table)
                if owner is not None:
                    owned = self._owned.setdefault(owner, _Owned())
                    owned.keys[key] = None
                    owned.bytes += _size(table)
                    while owned.bytes > most:
                        self._forget(next(iter(owned.keys)))
            while self._bytes > self.bytes_max:
                self._forget(next(iter(self._tables)))

    @property
    def size_bytes(self) -> int:
        """What they take."""
        return self._bytes

    def _forget(self, key: Hashable) -> None:
        if key not in self._tables:
            return
        table, owner = self._tables.pop(key)
        self._bytes -= _size(table)
        if owner is not None:
            owned = self._owned[owner]
            del owned.keys[key]
            owned.bytes -= _size(table)
            if not owned.keys:
                del self._owned[owner]


@dataclass(slots=True)
class _Owned:
    """An owner's keys, the least recently used first, and what their tables take."""

    keys: OrderedDict[Hashable, None] = field(default_factory=OrderedDict)
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Value:
    """A value of Python's, which all who get it share: nobody may change it."""

    value: Any
    size_bytes: int

    @classmethod
    def of(cls, value: object) -> Value:
        """Return what keeps a value."""
        pickled = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        return cls(value, _TIMES_PICKLED * len(pickled))

    def get_total_buffer_size(self) -> int:
        """Return the bytes it takes in memory, about."""
        return self.size_bytes


def _size(table: Sizable) -> int:
    return int(table.get_total_buffer_size()) + 1_000  # what Python takes for it, about
