"""A data folder for those who read beside its server."""

from __future__ import annotations

import contextlib
from pathlib import Path

from mallard.errors import StorageError
from mallard.files import TEMPORARY_SUFFIX, Files
from mallard.store.manifest import Manifest
from mallard.store.part import Derived, Part
from mallard.store.snapshot import Snapshot

DATABASE = "mallard.db"
NEW_DATABASE = f"{DATABASE}{TEMPORARY_SUFFIX}"  # of a copy that is being made, or did not end


class LocalReader:
    """Reads a folder's manifest; changes nothing."""

    def __init__(self, data: Path, files: Files) -> None:
        """Open the folder; raises StorageError when it is no data folder of this version."""
        if DATABASE not in files.names(data):
            raise StorageError(f"{data} is not a Mallard data folder: it has no {DATABASE}.")
        self._data = data
        self._files = files
        self.manifest = Manifest(data / DATABASE, files, read_only=True)

    def __enter__(self) -> LocalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.manifest.close()

    def snapshot(self) -> Snapshot:
        """Return what is live at this instant."""
        return self.manifest.snapshot()

    def source(self, file: Part | Derived) -> str:
        """Return the path a query engine reads a file by."""
        return str(self._data / file.location)

    def copy_manifest(self, path: Path) -> Snapshot:
        """Write the whole database to another file; return the snapshot that is in it."""
        self.manifest.copy(path)
        with contextlib.closing(Manifest(path, self._files, read_only=True)) as copy:
            return copy.snapshot()
