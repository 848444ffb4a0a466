"""Writes a file of the store in pieces, so that its size does not bound the memory it takes.

A file has a temporary name until it is finished; then it is synced, renamed, and its folder synced.
It counts once a commit of the manifest names it.
"""

from __future__ import annotations

import contextlib
import io
import secrets
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mallard.errors import StorageError
from mallard.files import TEMPORARY_SUFFIX, Files
from mallard.store.encoding import DERIVED_ROW_GROUP_ROWS, condensed, derived_options
from mallard.store.part import Derived, Kind, Part, Summary

WRITE_BYTES = 65_536

# Schema, options of `pyarrow.parquet.ParquetWriter`, rows in a row group.
Form = tuple[pa.Schema, dict[str, Any], int]


class _Sink(io.RawIOBase):
    """What pyarrow writes to: a file of `Files`, hashed on its way.

    pyarrow writes every few bytes; they are gathered, and the last are written by `finish`.
    """

    def __init__(self, files: Files, descriptor: int) -> None:
        self._files = files
        self._descriptor = descriptor
        self._gathered = bytearray()
        self.digest = sha256()
        self.size_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = memoryview(data)
        self._gathered += content
        self.digest.update(content)
        self.size_bytes += content.nbytes
        if len(self._gathered) >= WRITE_BYTES:
            self.finish()
        return content.nbytes

    def finish(self) -> None:
        """Write what was gathered."""
        gathered, self._gathered = self._gathered, bytearray()
        self._files.write(self._descriptor, bytes(gathered))


class FileWriter:
    """Writes one Parquet file, row group by row group.

    Use it as a context: what was not finished when it ends is removed.
    """

    def __init__(
        self,
        files: Files,
        folder: Path,
        form: Form,
    ) -> None:
        """Begin a file in folder, which is made where it is not there; raises StorageError."""
        schema, options, self._row_group_rows = form
        self._files = files
        self._folder = folder
        self._temporary = folder / f"{secrets.token_hex(4)}.parquet{TEMPORARY_SUFFIX}"
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self.rows = 0
        self._parquet: pq.ParquetWriter | None = None
        self._descriptor: int | None = None
        with self._errors():
            files.make_folder(folder)
            self._descriptor = files.create(self._temporary)
            self._sink = _Sink(files, self._descriptor)
            try:
                self._parquet = pq.ParquetWriter(self._sink, schema, **options)
                if not options.get("store_schema", True):  # which its metadata would go with
                    self._parquet.add_key_value_metadata(schema.metadata)
            except OSError:
                self.abandon()
                raise

    def __enter__(self) -> FileWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def write(self, rows: pa.Table) -> None:
        """Write rows after those before, in the order they shall have; raises StorageError."""
        if not rows.num_rows:
            return
        self._waiting.append(rows.select(self._schema.names).cast(self._schema))
        self._waiting_rows += rows.num_rows
        self.rows += rows.num_rows
        with self._errors():
            while self._waiting_rows >= self._row_group_rows:
                self._write_group()

    def finish(self, path: Path) -> tuple[int, str]:
        """Give the file its name, safe on disk; return its size in bytes and its SHA-256.

        path: in the folder it was begun in. Raises StorageError.
        """
        assert self._descriptor is not None and self._parquet, "a file is finished once"
        with self._errors():
            while self._waiting_rows:
                self._write_group()
            self._parquet.close()
            self._sink.finish()
            self._files.sync(self._descriptor)
            descriptor, self._descriptor = self._descriptor, None
            self._files.close(descriptor)
            self._files.rename(self._temporary, path)
            self._files.sync_folder(self._folder)
        return self._sink.size_bytes, self._sink.digest.hexdigest()

    def abandon(self) -> None:
        """Remove what was written, unless it was finished."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        with contextlib.suppress(OSError, pa.ArrowException):  # the next start removes it otherwise
            if self._parquet:
                self._parquet.close()
        with contextlib.suppress(OSError):
            self._files.close(descriptor)
            self._files.remove(self._temporary)

    def _write_group(self) -> None:
        assert self._parquet
        rows = pa.concat_tables(self._waiting)
        group = rows.slice(0, self._row_group_rows)
        rest = rows.slice(self._row_group_rows)
        self._parquet.write_table(group, row_group_size=self._row_group_rows)
        self._waiting, self._waiting_rows = ([rest] if rest.num_rows else []), rest.num_rows

    @contextlib.contextmanager
    def _errors(self) -> Any:
        try:
            yield
        except OSError as error:  # pyarrow raises it too, for what the sink raised
            raise StorageError(f"A file could not be written to {self._folder} ({error}).") from (
                error
            )


class PartWriter(FileWriter):
    """Writes a part, and gathers what the manifest says of it."""

    def __init__(
        self,
        files: Files,
        data: Path,
        level_and_date: tuple[int, str],
        locate: Callable[[int, int], str],
        form: Form,
    ) -> None:
        """Begin a part; locate: first and last position to the location it will have."""
        super().__init__(files, (data / locate(0, 0)).parent, form)
        self._data = data
        self._level, self._date = level_and_date
        self._locate = locate
        self._summary = Summary()
        self._sites: dict[str, None] = {}

    def __enter__(self) -> PartWriter:
        return self

    def write(self, rows: pa.Table) -> None:
        """Write rows after those before; all of the part's date, and of its site at level 1."""
        if rows.num_rows:
            self._summary.add(rows)
            self._sites.update(dict.fromkeys(rows["site_id"].unique().to_pylist()))
            super().write(condensed(rows) if self._level else rows)

    def finish_part(self) -> Part:
        """Finish the file and return the part, to be committed; raises StorageError."""
        summary = self._summary
        assert summary.rows, "a part without rows is no part"
        location = self._locate(summary.first_position, summary.last_position)
        size, digest = self.finish(self._data / location)
        sites = tuple(sorted(self._sites))
        return summary.part(location, self._level, self._date, sites, size, digest)


class DerivedWriter(FileWriter):
    """Writes a file that can be made again."""

    def __init__(
        self,
        files: Files,
        data: Path,
        location: str,
        of: tuple[Kind, str, Mapping[str, str]],
        schema: pa.Schema,
    ) -> None:
        """Begin a file; of: its kind, site and sources. The schema's metadata has its version."""
        super().__init__(
            files, (data / location).parent, (schema, derived_options(), DERIVED_ROW_GROUP_ROWS)
        )
        self._path = data / location
        self._location = location
        self._of = of
        kind = of[0]
        self._format = int(schema.metadata[f"mallard.{kind}_version".encode()])

    def __enter__(self) -> DerivedWriter:
        return self

    def finish_derived(self) -> Derived:
        """Finish the file and return it, to be committed; raises StorageError."""
        size, digest = self.finish(self._path)
        kind, site_id, sources = self._of
        return Derived(
            self._location, kind, site_id, dict(sources), self.rows, size, self._format, digest
        )
