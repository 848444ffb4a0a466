"""Makes few large parts of many small ones, and visits of what is settled.

Invariants: what is read is checked first, and a file that is not what was written is set aside
alone; what is written counts with one commit that takes out what it was made from; what fails
leaves everything as it was and is tried again later. Much is written in a process of its own, so
that it takes neither the interpreter nor, for long, the processor or the memory from the server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa

from mallard.clock import Clock
from mallard.config import StoreConfig
from mallard.errors import CorruptData, StorageError
from mallard.jobs.apart import Apart
from mallard.jobs.day_files import write_days, write_merged
from mallard.jobs.ordering import SCRATCH_BYTES
from mallard.jobs.policy import Merge, Settle, plan
from mallard.jobs.worker import Worker
from mallard.query.events import rows_of
from mallard.store.part import Part
from mallard.store.snapshot import Change
from mallard.store.store import Store, Writing
from mallard.telemetry import Telemetry

# How long a date waits after its compaction failed: what failed may be what takes long.
RETRY_SECONDS = 300.0

_log = logging.getLogger(__name__)


class Compactor:
    """The job that does what the policy says; one thread runs it, any may ask how it goes."""

    def __init__(
        self,
        config: StoreConfig,
        store: Store,
        data: Path,
        room_bytes: Callable[[], int],
        clock: Clock,
        telemetry: Telemetry,
        apart: Apart | None = None,
    ) -> None:
        """Begin with nothing to do.

        data: where DuckDB may put what does not fit in memory. room_bytes: what may be written
        there without taking what a flush needs. apart: does what is much; None: nobody does.
        """
        self._config = config
        self._store = store
        self._room_bytes = room_bytes
        self._clock = clock
        self._telemetry = telemetry
        self._worker = Worker(config, store, data, apart)
        self._problems: dict[str, str] = {}  # by date
        self._retry_at: dict[str, float] = {}
        self._stopping = False

    @property
    def problems(self) -> list[str]:
        """What keeps dates from being compacted, a sentence each."""
        return [f"{date} is not compacted: {why}" for date, why in sorted(self._problems.items())]

    def interrupt(self) -> None:
        """End what is under way, which then did not happen; call it until `run` has ended."""
        self._stopping = True
        self._worker.interrupt()

    def run(self) -> None:
        """Do what is due now; what fails is counted and comes again later."""
        for work in plan(self._store.snapshot(), self._clock.now_us(), self._config):
            if self._stopping:
                return
            if self._retry_at.get(work.date, 0.0) <= self._clock.monotonic():
                self._try(work)

    def _try(self, work: Merge | Settle) -> None:
        try:
            problem = self._do(work)
        # RuntimeError is how DuckDB says that it was interrupted; OSError is the disk's.
        except (StorageError, duckdb.Error, pa.ArrowException, RuntimeError, OSError) as error:
            if self._stopping:
                return
            self._telemetry.failures["compaction"] += 1
            _log.error("%s is not compacted for now: %s", work.date, error)
            problem = str(error)
            if not isinstance(error, CorruptData):  # that part is out of the way already
                self._retry_at[work.date] = self._clock.monotonic() + RETRY_SECONDS
        if problem:
            self._problems[work.date] = problem
        else:
            self._problems.pop(work.date, None)

    def _do(self, work: Merge | Settle) -> str | None:
        """Do one piece of work, or return why it has to wait."""
        started = self._clock.monotonic()
        parts = parts_of(work)
        size_bytes, rows = sum(part.size_bytes for part in parts), sum(part.rows for part in parts)
        room_bytes = self._room_bytes()
        if room_bytes < 2 * size_bytes:
            free = max(0, room_bytes)
            return f"it needs {2 * size_bytes} bytes of room on the disk, and {free} are free"
        with self._store.reading():
            for part in parts:
                self._store.check(part)
            spill_bytes = room_bytes - size_bytes - SCRATCH_BYTES * rows
            change = self._worker.do(write, work, rows, spill_bytes)
            self._store.swap(change)
        self._telemetry.compacted[change.reason] += rows
        self._telemetry.compaction_seconds.observe(self._clock.monotonic() - started)
        return None


def parts_of(work: Merge | Settle) -> tuple[Part, ...]:
    """Return what a piece of work takes in."""
    return (*work.parts, *work.compacted) if isinstance(work, Settle) else work.parts


def write(store: Writing, connection: duckdb.DuckDBPyConnection, work: Merge | Settle) -> Change:
    """Write the files of a piece of work; return the change they are for, uncommitted."""
    parts = parts_of(work)
    events = rows_of([store.source(part) for part in parts])
    detail = {"date": work.date, "parts": len(parts), "rows": sum(each.rows for each in parts)}
    if isinstance(work, Merge):
        merged = write_merged(store, connection, work.date, events)
        return Change("merge", added=(merged,), removed=parts, detail=detail)
    written = write_days(store, connection, work.date, events)
    return Change("compaction", added=tuple(written), removed=parts, detail=detail)
