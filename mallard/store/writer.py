"""Writes a file of the store in pieces, so that its size does not bound the memory it takes.

A file has a temporary name until it is finished; then it is synced, renamed, and its folder synced.
It counts once a commit of the manifest names it.
"""

from __future__ import annotations

import contextlib
import io
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mallard.errors import StorageError
from mallard.files import TEMPORARY_SUFFIX, Files
from mallard.store.dictionaries import arranged
from mallard.store.encoding import (
    DERIVED_ROW_GROUP_ROWS,
    FOREIGN_IDS,
    condensed,
    derived_options,
)
from mallard.store.part import Derived, Kind, Part, Summary
from mallard.store.turns import turns

WRITE_BYTES = 65_536
# A row group ends before it is full of rows where they take so much, the largest column twice; of
# page views all fit.
WAITING_BYTES = 40 * 1024 * 1024
# Of a column's different texts, which are compressed at once where they make one dictionary, and
# zstd takes many times as much for it; where there are more, they are written page by page.
DICTIONARY_BYTES = 1024 * 1024

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
        self._coded_schema = _coded_schema(schema)
        self._arranged = frozenset[str]()  # the columns whose dictionaries are put in order
        self._waiting: dict[str, list[pa.Array]] = defaultdict(list)  # pieces, by column
        self._waiting_rows = 0
        self._waiting_bytes: Counter[str] = Counter()  # by column
        self.rows = 0
        self._parquet: pq.ParquetWriter | None = None
        self._descriptor: int | None = None
        with self._errors():
            files.make_folder(folder)
            self._descriptor = files.create(self._temporary)
            self._sink = _Sink(files, self._descriptor)
            try:
                # Without Arrow's own copy of the schema, 4 kB: it would say that texts are
                # dictionaries, and polars does not read such files beside those of a flush.
                self._parquet = pq.ParquetWriter(
                    self._sink, self._coded_schema, **{**options, "store_schema": False}
                )
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
        rows = rows.select(self._schema.names).cast(self._schema)
        self.rows += rows.num_rows
        with self._errors():
            while rows.num_rows:
                # Cut first: a dictionary says what its own row group holds, and nothing else.
                room = self._row_group_rows - self._waiting_rows
                some = rows.slice(0, min(room, _rows_at_once(rows)))
                rows = rows.slice(some.num_rows)
                for field, piece in zip(self._schema, _pieces(some), strict=True):
                    self._waiting[field.name].append(piece)
                    self._waiting_bytes[field.name] += piece.nbytes
                self._waiting_rows += some.num_rows
                full = self._waiting_rows == self._row_group_rows
                sizes = self._waiting_bytes.values()
                if full or sum(sizes) + max(sizes) >= WAITING_BYTES:
                    self._write_group()

    def end_group(self) -> None:
        """End the row group: what is written next begins another. Raises StorageError."""
        with self._errors():
            if self._waiting_rows:
                self._write_group()

    def finish(self, path: Path) -> tuple[int, str]:
        """Give the file its name, safe on disk; return its size in bytes and its SHA-256.

        path: in the folder it was begun in. Raises StorageError.
        """
        assert self._descriptor is not None and self._parquet, "a file is finished once"
        self.end_group()
        with self._errors():
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
        columns = []
        for field in self._coded_schema:  # one by one, as each needs its memory a second time
            pieces = pa.chunked_array(self._waiting.pop(field.name), field.type)
            columns.append(self._coded(field.name, pieces))
        self._waiting_rows = 0
        self._waiting_bytes.clear()
        if self._arranged and all(column.num_chunks == 1 for column in columns):
            # A text of a dictionary that is too large is nowhere but in its own piece.
            self._take_turns(columns)
        rows = pa.table(columns, self._coded_schema)
        del columns, pieces
        # The pool would keep what coding took, and then what writing took, for the next time.
        pa.default_memory_pool().release_unused()
        self._parquet.write_table(rows, row_group_size=self._row_group_rows)
        del rows
        pa.default_memory_pool().release_unused()

    def _take_turns(self, columns: list[pa.ChunkedArray]) -> None:
        visitor_id, visit = (
            columns[self._schema.get_field_index(name)].chunk(0) for name in ("visitor_id", "visit")
        )
        order = turns(visitor_id, visit)
        for number, column in enumerate(columns):  # one by one, as above
            columns[number] = column.take(order)

    def _coded(self, name: str, pieces: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return a column with one dictionary; where that would be too large, as it is.

        Arrow writes the first piece's dictionary then, and all other texts as they are.
        """
        if not pa.types.is_dictionary(pieces.type):
            return pa.chunked_array([pieces.combine_chunks()])
        unified = pieces.unify_dictionaries()
        if unified.num_chunks and unified.chunk(0).dictionary.nbytes > DICTIONARY_BYTES:
            return pieces
        whole = unified.combine_chunks()
        if name not in self._arranged:
            return pa.chunked_array([whole])
        fill = name not in FOREIGN_IDS
        return pa.chunked_array([arranged(whole, fill=fill)], pieces.type)

    @contextlib.contextmanager
    def _errors(self) -> Any:
        try:
            yield
        except OSError as error:  # pyarrow raises it too, for what the sink raised
            raise StorageError(f"A file could not be written to {self._folder} ({error}).") from (
                error
            )


def _coded_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema whose texts are numbers into a dictionary; Parquet's is the same."""
    return pa.schema(
        [
            field.with_type(pa.dictionary(pa.int32(), pa.string()))
            if field.type == pa.string()
            else field
            for field in schema
        ],
        metadata=schema.metadata,
    )


def _rows_at_once(rows: pa.Table) -> int:
    """Return how many rows make a piece in which no column takes more than a dictionary may."""
    largest: int = max(column.nbytes for column in rows.columns)
    rows_max: int = rows.num_rows * DICTIONARY_BYTES // max(largest, DICTIONARY_BYTES)
    return max(1, rows_max)


def _pieces(rows: pa.Table) -> Iterator[pa.Array]:
    """Yield the columns of rows, each text once, in memory of their own: they wait for the rest.

    As they came they would hold all that was given with them: half as much again, unused.
    """
    for column in rows.columns:
        coded = column.dictionary_encode() if column.type == pa.string() else column
        half = len(coded) // 2  # what is of one piece would not be copied
        pieces = [*coded.slice(0, half).chunks, *coded.slice(half).chunks]
        yield pa.chunked_array(pieces, coded.type).unify_dictionaries().combine_chunks()


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
        if self._level:
            self._arranged = frozenset(form[1]["use_dictionary"])
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
