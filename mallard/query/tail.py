"""The buffer's tail as Arrow tables: each frame is made columns once, however many ask."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from mallard.event import ARROW_SCHEMA, Frame, to_table

# Frames are made columns so many events at a time: it holds Python's interpreter for a millisecond.
CHUNK_EVENTS = 500


class Holding(Protocol):
    """A buffer, as far as it is read."""

    def tail(self) -> tuple[Frame, ...]:
        """Return the frames that are held, oldest first."""


class _Chunk:
    """Some events of the tail, by position, and which of them are whose, found once for a site."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows
        self.last_position: int = rows["position"][-1].as_py()
        self._of: dict[str, pa.Table] = {}

    def of(self, site_id: str) -> pa.Table:
        found = self._of.get(site_id)
        if found is None:
            is_meant = pc.equal(self.rows["site_id"], pa.scalar(site_id, pa.string()))
            self._of[site_id] = found = self.rows.filter(is_meant)
        return found

    def with_more(self, rows: pa.Table) -> _Chunk:
        return _Chunk(pa.concat_tables([self.rows, rows]).combine_chunks())


@dataclass(frozen=True, slots=True)
class TailView:
    """The tail at one instant; last_position is 0 when it is empty.

    seen_at: all that was committed by then is in it, as `monotonic` counts; unknown of a log.
    """

    last_position: int
    _chunks: tuple[_Chunk, ...]
    seen_at: float = -math.inf

    def after(self, watermark: int, site_id: str) -> pa.Table | None:
        """Return a site's events past a watermark, of `ARROW_SCHEMA`; None where there are none.

        They are in order of position.
        """
        found = []
        for chunk in self._chunks:
            if chunk.last_position > watermark:
                rows = _past(watermark, chunk.of(site_id))
                if rows.num_rows:
                    found.append(rows)
        return pa.concat_tables(found) if found else None

    def all_after(self, watermark: int, sites: Collection[str] | None) -> pa.Table:
        """Return the events of some sites past a watermark, of `ARROW_SCHEMA`; None: of all."""
        found = [ARROW_SCHEMA.empty_table()]
        for chunk in self._chunks:
            if chunk.last_position > watermark:
                rows = _past(watermark, chunk.rows)
                if sites is not None:
                    among = pa.array(sorted(sites), pa.string())
                    rows = rows.filter(pc.is_in(rows["site_id"], among))
                found.append(rows)
        return pa.concat_tables(found)


class Tail:
    """Follows a buffer's tail; any thread may ask."""

    def __init__(self, buffer: Holding) -> None:
        self._buffer = buffer
        self._lock = threading.Lock()
        self._chunks: tuple[_Chunk, ...] = ()

    @property
    def last_position(self) -> int:
        """The last position that the buffer holds now; 0 when it holds none."""
        frames = self._buffer.tail()
        return frames[-1].last_position if frames else 0

    def view(self) -> TailView:
        """Return what the buffer holds now. Take it before the store's snapshot."""
        seen_at = monotonic()
        with self._lock:
            frames = self._buffer.tail()
            first = frames[0].first_position if frames else 0
            chunks = [chunk for chunk in self._chunks if chunk.last_position >= first and frames]
            known = chunks[-1].last_position if chunks else 0
            is_known = bisect_right(frames, known, key=lambda frame: frame.last_position)
            for rows in _tables(frames[is_known:]):
                # Who asks often gets few events at a time: many small tables cost more than a copy.
                if chunks and chunks[-1].rows.num_rows + rows.num_rows <= CHUNK_EVENTS:
                    chunks[-1] = chunks[-1].with_more(rows)
                else:
                    chunks.append(_Chunk(rows))
            self._chunks = tuple(chunks)
            return TailView(chunks[-1].last_position if chunks else 0, self._chunks, seen_at)


def view_of(frames: Sequence[Frame]) -> TailView:
    """Return frames of a log, in order of position, as a tail at one instant."""
    chunks = tuple(_Chunk(rows) for rows in _tables(frames))
    return TailView(chunks[-1].last_position if chunks else 0, chunks)


def view_of_rows(rows: pa.Table) -> TailView:
    """Return events, of `ARROW_SCHEMA` and in order of position, as a tail at one instant."""
    chunks = (_Chunk(rows),) if rows.num_rows else ()
    return TailView(chunks[-1].last_position if chunks else 0, chunks)


def _past(watermark: int, rows: pa.Table) -> pa.Table:
    """Return the rows past a position, of rows in order of it."""
    if not rows.num_rows or rows["position"][0].as_py() > watermark:
        return rows
    return rows.filter(pc.greater(rows["position"], pa.scalar(watermark, pa.int64())))


def _tables(frames: Sequence[Frame]) -> Iterator[pa.Table]:
    run: list[Frame] = []
    events = 0
    for frame in frames:
        run.append(frame)
        events += frame.rows
        if events >= CHUNK_EVENTS:
            yield to_table(run)
            run, events = [], 0
    if run:
        yield to_table(run)
