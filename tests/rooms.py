"""Buffer, store and flusher over one folder, wired as the server wires them, for tests to fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mallard.buffer.buffer import Buffer
from mallard.buffer.commit import Receipt
from mallard.clock import Clock
from mallard.config import BufferConfig
from mallard.event import Event
from mallard.files import Files
from mallard.jobs.flush import Flusher
from mallard.store.local import LocalStore
from mallard.telemetry import Telemetry
from tests.faults import FailingCommits


class Rooms:
    """What moves events from the door to Parquet; the flusher's thread is started by the test."""

    def __init__(self, data: Path, *, files: Files | None = None, **settings: Any) -> None:
        self.data = data
        data.mkdir(exist_ok=True)
        self.config = BufferConfig(
            **{"free_bytes_min": 0, "flush_interval_seconds": 3_600.0, **settings}
        )
        self.commits = FailingCommits()
        self.files = files or self.commits
        self.telemetry, self.clock = Telemetry(), Clock()
        self.store = LocalStore(data, self.files, self.clock)
        self.buffer = Buffer(
            self.config, data, self.files, self.clock, self.telemetry, self.store.node
        )
        self.flusher = Flusher(self.config, self.buffer, self.store, self.clock, self.telemetry)
        snapshot = self.store.snapshot()
        self.buffer.start(snapshot.watermark, snapshot.last_loaded_at, self.flusher.notice_commit)

    def append(self, *events: Event) -> Receipt:
        return asyncio.run(self.buffer.append(events))

    def close(self, *, flush: bool = False) -> None:
        """Stop; without a flush what is buffered stays in the log, as after kill -9."""
        self.buffer.close()
        if flush:
            self.flusher.stop()
        self.store.close()


def names_in(rows: Sequence[tuple[Any, ...]]) -> Counter[str]:
    """Count the names in the first column of a query's rows."""
    return Counter(row[0] for row in rows)
