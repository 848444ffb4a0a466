"""What a store of parts can do, wherever its files and its manifest lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import pyarrow as pa

from mallard.store.manifest import Version
from mallard.store.part import Derived, Kind, Part
from mallard.store.snapshot import Change, Retired, Snapshot
from mallard.store.writer import DerivedWriter, PartWriter


class Readable(Protocol):
    """What is stored, for those who read it."""

    def snapshot(self) -> Snapshot:
        """Return what is live at one instant."""

    def reading(self) -> AbstractContextManager[Snapshot]:
        """Give the snapshot of this instant, whose files can be read until it is left."""

    def source(self, file: Part | Derived) -> str:
        """Return where a query engine reads a file: a path or a URL."""


class Writing(Protocol):
    """Where files are written that count once they are committed."""

    def source(self, file: Part | Derived) -> str:
        """Return where a query engine reads a file: a path or a URL."""

    def write_recent(self, events: pa.Table) -> tuple[Part, ...]:
        """Write events as parts of level 0, one a date; raises StorageError and leaves none then.

        events: of `ARROW_SCHEMA`. A part is named after the positions in it.
        """

    def merge_writer(self, date: str) -> PartWriter:
        """Begin a part of level 0 for a date: rows sorted by site, timestamp and position."""

    def day_writer(self, site_id: str, date: str, *, whole_ms: bool = False) -> PartWriter:
        """Begin a part of level 1 for a site-day: rows of `PART_SCHEMA` in `LEVEL_1_ORDER`.

        whole_ms: every instant of every row will be a whole millisecond, which takes less.
        """

    def derived_writer(
        self, kind: Kind, site_id: str, sources: Mapping[str, str], schema: pa.Schema
    ) -> DerivedWriter:
        """Begin a file of visits (one date in sources) or sums (dates of one month).

        sources: by date, the version of the site-day it is made from.
        """

    def discard(self, written: Iterable[Part | Derived]) -> None:
        """Remove files that were written and will not be committed."""


class Store(Readable, Writing, Protocol):
    """Takes events from the buffer for good, says where they are, and changes how they lie."""

    @property
    def node(self) -> int:
        """12 bits by which the event ids made here differ from those made elsewhere."""

    def publish(self, events: pa.Table, watermark: int) -> None:
        """Store events and move the watermark, in one step: after it they are here, before it not.

        events: of `ARROW_SCHEMA`, every committed one after the old watermark up to and including
        the new. Raises StorageError; then nothing was stored.
        """

    def publish_written(
        self, first: int, watermark: int, write: Callable[[], Sequence[Part]]
    ) -> None:
        """Do what `publish` does with events that somebody else writes.

        first: the least position of an event. write: gives what `write_recent` does, and raises
        what it does; meanwhile the store does everything else but `tidy` and `forget_deleted`.
        """

    def check(self, file: Part | Derived) -> None:
        """Raise CorruptData when a live file is not what was written.

        A part is set aside then; what can be made again is dropped.
        """

    def swap(self, change: Change) -> None:
        """Make a change live: all of it, or nothing and StorageError.

        Visits of a site-day whose parts change, and sums of a month that are made anew, go
        with it. What was written for a change that fails is removed.
        """

    def retired(self) -> tuple[Retired, ...]:
        """Return what is no longer live and whose bytes are still there."""

    def sweep(self, *, hurry: bool = False) -> int:
        """Remove the bytes of what is retired and due; return how many files went.

        What is kept for longer is moved out of readers' sight. hurry: without waiting for readers
        in other processes; those in this one are always waited for.
        """

    def revive(self, retired: Sequence[Retired], reason: str) -> None:
        """Make retired parts live again, whose bytes must still be there; raises StorageError."""

    def expire(self, retired: Sequence[Retired]) -> None:
        """Have the bytes of retired files go with the next sweep, whatever they were kept for."""

    def source_of_retired(self, retired: Retired) -> str | None:
        """Return where a query engine reads a retired file; None when its bytes are gone."""

    def tidy(self) -> bool:
        """Remove files that no commit names, and return whether the disk let them go.

        No file of the store may be being written meanwhile, but by `publish` and
        `publish_written`.
        """

    def forget_deleted(self) -> bool:
        """Leave nothing of what was deleted: no stray file, no bytes in the database's files,
        nothing in what readers beside the server are told; return whether that was possible now.

        No file of the store may be being written meanwhile, but by `publish` and
        `publish_written`.
        """

    def history(self) -> list[Version]:
        """Return the versions that are remembered, the oldest first."""

    def receipts(self) -> dict[str, dict[str, object]]:
        """Return what ended rules left behind, by rule."""

    def close(self) -> None:
        """Let go of the store."""
