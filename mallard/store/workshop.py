"""Where files of a store are written before a commit makes them count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa

from mallard.errors import StorageError
from mallard.event import ARROW_SCHEMA
from mallard.files import Files
from mallard.store import partition
from mallard.store.encoding import (
    LEVEL_0_ROW_GROUP_ROWS,
    LEVEL_1_ROW_GROUP_ROWS,
    file_schema,
    writer_options,
)
from mallard.store.folder import Folder
from mallard.store.part import Derived, Kind, Part, encode_recent, split_by_date
from mallard.store.writer import DerivedWriter, PartWriter


class Workshop:
    """The writers of a `Store` in a data folder; it knows no manifest and commits nothing."""

    def __init__(self, data: Path, files: Files) -> None:
        """data: a folder that a store has prepared."""
        self._data = data
        self._files = files
        self._folder = Folder(data, files)

    def source(self, file: Part | Derived) -> str:
        """Return the path a query engine reads a file by."""
        return str(self._data / file.location)

    def write_recent(self, events: pa.Table) -> tuple[Part, ...]:
        """Write events as parts of level 0, one a date; raises StorageError and leaves none then.

        events: of `ARROW_SCHEMA`. A part is named after the positions in it.
        """
        written = [encode_recent(rows) for rows in split_by_date(events)]
        parts = tuple(part for part, _ in written)
        try:
            for part, content in written:
                self._files.replace(self._data / part.location, content)
        except OSError as error:
            self.discard(parts)
            raise StorageError(f"Events could not be written to Parquet ({error}).") from error
        return parts

    def merge_writer(self, date: str) -> PartWriter:
        """Begin a part of level 0 for a date: rows sorted by site, timestamp and position."""
        return PartWriter(
            self._files,
            self._data,
            (0, date),
            lambda first, last: partition.merged(date, first, last),
            (ARROW_SCHEMA, writer_options(0), LEVEL_0_ROW_GROUP_ROWS),
        )

    def day_writer(self, site_id: str, date: str, *, whole_ms: bool = False) -> PartWriter:
        """Begin a part of level 1 for a site-day: rows of `PART_SCHEMA` in `LEVEL_1_ORDER`."""
        return PartWriter(
            self._files,
            self._data,
            (1, date),
            lambda first, last: partition.compacted(site_id, date, first, last),
            (file_schema(whole_ms), writer_options(1), LEVEL_1_ROW_GROUP_ROWS),
        )

    def derived_writer(
        self, kind: Kind, site_id: str, sources: Mapping[str, str], schema: pa.Schema
    ) -> DerivedWriter:
        """Begin a file of visits (one date in sources) or sums (dates of one month).

        sources: by date, the version of the site-day it is made from.
        """
        date = next(iter(sources))
        location = (
            partition.sessions(site_id, date)
            if kind == "sessions"
            else partition.rollup(site_id, date[:7])
        )
        return DerivedWriter(self._files, self._data, location, (kind, site_id, sources), schema)

    def discard(self, written: Iterable[Part | Derived]) -> None:
        """Remove files that were written and will not be committed."""
        self._folder.remove({file.location for file in written})
