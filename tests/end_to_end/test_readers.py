"""Ten readers count while events are flushed and compacted: never a dip, never a double."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb

from mallard.config import BufferConfig, Config, ServerConfig, StoreConfig
from mallard.errors import StorageError
from mallard.jobs.compaction import Compactor
from mallard.query.events import add_macros, rows_of, show_folder
from mallard.server import Server
from mallard.store.store import Store
from mallard.telemetry import Telemetry
from tests.factories import make_event
from tests.stored import A, B, Stored

ROUNDS = 100
READERS = 5  # in the process, and as many beside it
PAUSE_SECONDS = 0.2  # between counts; ten readers that never rest leave compaction no processor
LATER = 3  # days after the events
CONFIG = StoreConfig(merge_files=2, close_after_seconds=0, late_merge_seconds=3_600)
COUNT = "SELECT count(*), coalesce(sum(position), 0)::BIGINT FROM"

Count = Callable[[], "tuple[int, int, int]"]  # least rows there can be, rows, sum of positions


class FileGone(Exception):
    """A reader beside the server took so long that what it was about to read was swept away."""


class Readers:
    """Threads that count again and again, and what they found wrong."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.counts = 0
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, count: Count) -> None:
        thread = threading.Thread(target=self._run, args=(count,))
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _run(self, count: Count) -> None:
        before = 0
        while not self._done.wait(PAUSE_SECONDS) and not self.wrong:
            try:
                least, rows, positions = count()
            except FileGone:
                continue
            except (duckdb.Error, StorageError, AssertionError) as error:
                self.wrong.append(str(error))
                return
            # Positions count from 1, so that this sum is of each of them once and of no other.
            if rows < max(before, least) or positions != rows * (rows + 1) // 2:
                self.wrong.append(f"{rows} rows after {before}, {least} flushed, sum {positions}")
            before = rows
            self.counts += 1


def counting(store: Store, connection: duckdb.DuckDBPyConnection) -> Count:
    """A reader in the server's process."""

    def count() -> tuple[int, int, int]:
        with store.reading() as snapshot:
            sources = [store.source(part) for part in snapshot.parts]
            if not sources:
                return 0, 0, 0
            row = connection.execute(f"{COUNT} ({rows_of(sources)})").fetchone()
        assert row is not None
        assert row[0] == snapshot.watermark
        return snapshot.watermark, *row

    return count


def counting_beside(store: Store, data: Path, connection: duckdb.DuckDBPyConnection) -> Count:
    """A reader that has only the folder, as `mallard shell` beside the server has."""
    add_macros(connection)

    def count() -> tuple[int, int, int]:
        flushed = store.snapshot().watermark
        try:
            show_folder(connection, data)
            ((rows, positions),) = connection.execute(f"{COUNT} events").fetchall()
        except duckdb.IOException as error:  # it looks again, as `mallard shell` does
            raise FileGone from error
        return flushed, rows, positions

    return count


def test_ten_readers_never_see_a_dip_or_a_double(tmp_path: Path) -> None:
    stored = Stored(tmp_path, day=LATER)
    compactor = Compactor(CONFIG, stored.store, tmp_path, lambda: 2**40, stored.clock, Telemetry())
    readers = Readers()
    connections = [duckdb.connect(config={"threads": 1}) for _ in range(2 * READERS)]
    for connection, other in zip(connections[:READERS], connections[READERS:], strict=True):
        readers.start(counting(stored.store, connection))
        readers.start(counting_beside(stored.store, tmp_path, other))
    try:
        for number in range(1, ROUNDS + 1):
            stored.flush(number % 2, A, B, A)
            if number % 5 == 0:  # a time after which late events are due
                stored.clock.pass_by(CONFIG.late_merge_seconds)
            compactor.run()
            stored.store.sweep()
        done = Counter(version.reason for version in stored.store.history())
    finally:
        readers.stop()
        stored.close()
        for connection in connections:
            connection.close()
    assert readers.wrong == []
    assert compactor.problems == []
    assert readers.counts >= ROUNDS
    assert done["flush"] == ROUNDS
    assert done["compaction"] >= 20
    assert done["merge"] >= 20


def test_a_server_that_was_stopped_leaves_each_event_once_to_who_reads_every_file(
    tmp_path: Path,
) -> None:
    rooms = Config(
        server=ServerConfig(data=tmp_path),
        buffer=BufferConfig(durability="os", flush_interval_seconds=3_600),
        store=StoreConfig(merge_files=2),
    )

    def positions() -> list[int]:
        files = duckdb.read_parquet(str(tmp_path / "recent" / "*.parquet"))
        return [position for (position,) in files.project("position").order("position").fetchall()]

    server = Server(rooms)
    server.start()
    for _ in range(2):
        asyncio.run(server.buffer.append([make_event()]))
        server.flusher.flush()
    server.compactor.run()
    assert positions() == [1, 1, 2, 2]  # what was replaced is there for readers who know of it
    server.stop()
    assert positions() == [1, 2]
