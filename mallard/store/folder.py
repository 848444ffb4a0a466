"""The store's files in a data folder: which are there, whether they are whole, how they go."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Set
from hashlib import sha256
from pathlib import Path

from mallard.event import ARROW_SCHEMA
from mallard.files import TEMPORARY_SUFFIX, Files
from mallard.store import partition
from mallard.store.part import Derived, Part, to_parquet
from mallard.store.snapshot import Snapshot

# A file without rows, so that a reader's glob over a new folder finds the columns.
EMPTY = "empty.parquet"

_log = logging.getLogger(__name__)


class Folder:
    """Files of a data folder by their location; knows nothing of which of them count."""

    def __init__(self, data: Path, files: Files) -> None:
        self.data = data
        self.files = files

    def prepare(self) -> None:
        """Make what a reader expects of a new folder."""
        recent = self.data / partition.RECENT
        self.files.make_folder(recent)
        if EMPTY not in self.files.names(recent):
            self.files.replace(recent / EMPTY, to_parquet(ARROW_SCHEMA.empty_table()))

    def path(self, file: Part | Derived) -> Path:
        """Return where a live file is."""
        return self.data / file.location

    def locations(self) -> Iterator[str]:
        """Return the location of everything the store wrote, finished or not."""
        for folder in partition.FOLDERS:
            for name in self.files.tree(self.data / folder):
                if name.endswith((".parquet", ".parquet" + TEMPORARY_SUFFIX)) and name != EMPTY:
                    yield f"{folder}/{name}"

    def others(self, known: Set[str]) -> list[str]:
        """Return the locations of everything the store wrote but these."""
        return [location for location in self.locations() if location not in known]

    def only_here(self, others: Iterable[str], snapshot: Snapshot, log_begins: float) -> list[str]:
        """Return those of other files than the manifest's whose events may be nowhere else.

        They are neither in the log, which has those from log_begins on, nor in a part that is
        there: the manifest is then an older one than that which the files were written with.
        """
        unknown = [
            (location, positions)
            for location in others
            if (positions := partition.positions(location))
        ]
        if not unknown:
            return []
        lost: list[tuple[float, float]] = [(snapshot.watermark + 1, log_begins - 1)]
        lost += [
            (part.first_position, part.last_position)
            for part in (*snapshot.parts, *(part for part, _ in snapshot.quarantined))
            if self.problem(part)
        ]
        return [
            location
            for location, (first, last) in unknown
            if any(first <= end and begin <= last for begin, end in lost)
        ]

    def remove_leftovers(self, others: Iterable[str]) -> None:
        """Remove what is left over from a crash."""
        for location in others:
            _log.info("removing %s, which was never committed", location)
            self.files.remove(self.data / location)

    def remove(self, locations: Iterable[str]) -> set[str]:
        """Remove files with their temporary forms; return those that the disk did not let go."""
        stuck: set[str] = set()
        for location in locations:
            path = self.data / location
            try:
                self.files.remove(path.with_name(path.name + TEMPORARY_SUFFIX))
                self.files.remove(path)
                if path.parent.name == partition.QUARANTINE and path.parent.is_dir():
                    # No start removes what a power loss brings back there.
                    self.files.sync_folder(path.parent)
            except OSError:
                stuck.add(location)
            else:
                self.files.remove_empty_folder(path.parent)
        return stuck

    def hide(self, file: Part | Derived) -> None:
        """Move a retired file out of readers' sight, if it is not there already."""
        path, hidden = self.path(file), self.data / partition.retired(file.location)
        if path.exists():
            self.files.make_folder(hidden.parent)
            self.files.rename(path, hidden)
            self.files.sync_folder(hidden.parent)
            self.files.remove_empty_folder(path.parent)

    def find(self, locations: Iterable[str]) -> str | None:
        """Return the path of the first of these that is there."""
        paths = (self.data / location for location in locations)
        return next((str(path) for path in paths if path.exists()), None)

    def bring_back(self, file: Part | Derived) -> None:
        """Move a retired file to where it was, if it is not there already; raises OSError."""
        path = self.path(file)
        if not path.exists():
            self.files.make_folder(path.parent)
            self.files.rename(self.data / partition.retired(file.location), path)
            self.files.sync_folder(path.parent)

    def set_aside(self, part: Part) -> None:
        """Move a damaged file to quarantine, if it is there at all."""
        path = self.path(part)
        if path.exists():
            self.files.set_aside(path, self.data / partition.QUARANTINE)

    def problem(self, file: Part | Derived) -> str | None:
        """Return what is wrong with a file's size or that it is missing; None when neither."""
        try:
            # No `Path`: a start asks this of each file, and making one takes longer than asking.
            size = self.files.size(f"{self.data}/{file.location}")
        except FileNotFoundError:
            return "is missing"
        if size != file.size_bytes:
            return f"has {size} bytes instead of {file.size_bytes}"
        return None

    def is_whole(self, file: Part | Derived) -> bool:
        """Whether a file is byte by byte what was written."""
        digest = sha256()
        for piece in self.files.chunks(self.path(file)):
            digest.update(piece)
        return digest.hexdigest() == file.digest
