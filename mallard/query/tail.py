"""The buffer's tail as Arrow tables: each frame is made columns once, however many ask."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mallard.buffer.buffer import Buffer
from mallard.event import ARROW_SCHEMA, Frame, to_table

# Frames are made columns so many events at a time: it holds Python's interpreter for a millisecond.
CHUNK_EVENTS = 500


@dataclass(frozen=True, slots=True)
class _Chunk:
    last_position: int
    rows: pa.Table


@dataclass(frozen=True, slots=True)
class TailView:
    """The tail at one instant; last_position is 0 when it is empty."""

    last_position: int
    _chunks: tuple[_Chunk, ...]

    def after(self, watermark: int, site_id: str) -> pa.Table | None:
        """Return a site's events past a watermark, of `ARROW_SCHEMA`; None where there are none."""
        found = []
        for chunk in self._chunks:
            if chunk.last_position <= watermark:
                continue
            is_meant = pc.and_(
                pc.equal(chunk.rows["site_id"], site_id),
                pc.greater(chunk.rows["position"], watermark),
            )
            rows = chunk.rows.filter(is_meant)
            if rows.num_rows:
                found.append(rows)
        return pa.concat_tables(found) if found else None

    def all_after(self, watermark: int, sites: Collection[str] | None) -> pa.Table:
        """Return the events of some sites past a watermark, of `ARROW_SCHEMA`; None: of all."""
        found = [ARROW_SCHEMA.empty_table()]
        for chunk in self._chunks:
            if chunk.last_position > watermark:
                is_meant = pc.greater(chunk.rows["position"], watermark)
                if sites is not None:
                    among = pa.array(sorted(sites), pa.string())
                    is_meant = pc.and_(is_meant, pc.is_in(chunk.rows["site_id"], among))
                found.append(chunk.rows.filter(is_meant))
        return pa.concat_tables(found)


class Tail:
    """Follows a buffer's tail; any thread may ask."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._lock = threading.Lock()
        self._chunks: tuple[_Chunk, ...] = ()

    def view(self) -> TailView:
        """Return what the buffer holds now. Take it before the store's snapshot."""
        with self._lock:
            frames = self._buffer.tail()
            first = frames[0].first_position if frames else 0
            kept = [chunk for chunk in self._chunks if chunk.last_position >= first and frames]
            known = kept[-1].last_position if kept else 0
            fresh = [frame for frame in frames if frame.last_position > known]
            kept += [_Chunk(some[-1].last_position, to_table(some)) for some in _runs(fresh)]
            self._chunks = tuple(kept)
            return TailView(known if not fresh else fresh[-1].last_position, self._chunks)


def view_of(frames: Sequence[Frame]) -> TailView:
    """Return frames of a log, in order of position, as a tail at one instant."""
    chunks = tuple(_Chunk(some[-1].last_position, to_table(some)) for some in _runs(frames))
    return TailView(chunks[-1].last_position if chunks else 0, chunks)


def _runs(frames: Sequence[Frame]) -> list[list[Frame]]:
    runs: list[list[Frame]] = []
    events = CHUNK_EVENTS
    for frame in frames:
        if events >= CHUNK_EVENTS:
            runs.append([])
            events = 0
        runs[-1].append(frame)
        events += len(frame.events)
    return runs
