from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mallard.errors import StorageError
from mallard.event import Frame
from mallard.jobs import flush as flush_module
from mallard.jobs.apart import Ended
from mallard.jobs.recent import RecentWriter
from mallard.query.events import open_folder
from mallard.store.part import Part
from tests.factories import make_event
from tests.rooms import Rooms, names_in
from tests.waiting import until

Build = Callable[..., Rooms]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    made: list[Rooms] = []

    def make(**settings: Any) -> Rooms:
        made.append(Rooms(tmp_path / "data", **settings))
        return made[-1]

    yield make
    for rooms in made:
        rooms.close()


def stored(rooms: Rooms) -> Counter[str]:
    with open_folder(rooms.data) as connection:
        return names_in(connection.execute("SELECT event_name FROM events").fetchall())


def named(*names: str) -> list[Any]:
    return [make_event(event_name=name) for name in names]


def test_a_flush_moves_what_is_buffered_to_parts_and_trims_the_log(build: Build) -> None:
    rooms = build()
    rooms.append(*named("a", "b"))
    rooms.append(*named("c"))
    assert rooms.flusher.flush() == 3
    assert rooms.buffer.tail() == ()
    assert rooms.store.snapshot().watermark == 3
    until(lambda: rooms.files.names(rooms.data / "wal") == [], "the log is trimmed")
    assert stored(rooms) == {"a": 1, "b": 1, "c": 1}
    assert rooms.flusher.flush() == 0
    assert len(rooms.store.snapshot().recent) == 1


def test_a_flush_is_cut_into_slices_and_never_within_a_frame(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flush_module, "SLICE_EVENTS", 5)
    rooms = build()
    for count in (2, 2, 2, 7, 5, 1):
        rooms.append(*[make_event()] * count)
    assert rooms.flusher.flush() == 19
    assert [part.rows for part in rooms.store.snapshot().parts] == [4, 2, 7, 5, 1]


def test_what_is_in_parts_is_let_go_of_before_the_rest_is_flushed(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flush_module, "SLICE_EVENTS", 2)
    rooms = build()
    for count in (2, 2, 2):
        rooms.append(*[make_event(event_name="held")] * count)
    publish = rooms.store.publish
    held: list[int] = []

    def counted(events: pa.Table, watermark: int) -> None:
        frames = [each for each in gc.get_objects() if type(each) is Frame]
        held.append(sum(b'"held"' in frame.payload for frame in frames))
        publish(events, watermark)

    monkeypatch.setattr(rooms.store, "publish", counted)
    assert rooms.flusher.flush() == 6
    assert held == [3, 2, 1]


def test_enough_events_wake_the_flusher(build: Build) -> None:
    rooms = build(flush_events=3)
    rooms.flusher.start()
    rooms.append(*named("a", "b"))
    rooms.append(*named("c"))
    until(lambda: rooms.store.snapshot().watermark == 3, "a flush by number")
    rooms.close(flush=True)


def test_a_commit_during_a_flush_by_number_does_not_wake_another_for_few_events(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = build(flush_events=2, flush_interval_seconds=3600)
    publish = rooms.store.publish
    published: list[int] = []

    def publish_late(events: pa.Table, watermark: int) -> None:
        if not published:
            rooms.append(*named("c"))  # the ring still holds what is being flushed
        publish(events, watermark)
        published.append(events.num_rows)

    monkeypatch.setattr(rooms.store, "publish", publish_late)
    rooms.flusher.start()
    rooms.append(*named("a", "b"))
    until(lambda: published, "the first flush")
    rooms.append(*named("d"))
    until(lambda: rooms.store.snapshot().watermark == 4, "the next flush by number")
    assert published == [2, 2]
    rooms.close(flush=True)


def test_a_flusher_rests_twice_as_long_as_it_worked_unless_the_buffer_is_half_full(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = build(flush_events=1, capacity_events=8, flush_interval_seconds=1500)
    now = [0.0]
    monkeypatch.setattr(rooms.clock, "monotonic", lambda: now[0])
    publish = rooms.store.publish
    published: list[int] = []

    def publish_slowly(events: pa.Table, watermark: int) -> None:
        publish(events, watermark)
        published.append(events.num_rows)
        now[0] += 500 * len(published)

    rests: list[float] = []

    class Hurry(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if timeout:
                rests.append(timeout)
            return super().wait(timeout)

    monkeypatch.setattr(rooms.store, "publish", publish_slowly)
    rooms.flusher._hurry = Hurry()
    rooms.flusher.start()
    rooms.append(*named("a"))
    until(lambda: rests == [1000.0], "the rest")
    for name in "bcd":
        rooms.append(*named(name))
    assert published == [1]
    rooms.append(*named("e"))  # half of the room is taken
    until(lambda: published == [1, 4], "the flush that could not wait")
    until(lambda: rests == [1000.0, 1500.0], "the next rest, of an interval at most")
    rooms.close(flush=True)  # which does not wait for its end


def test_few_events_are_flushed_when_they_have_waited(build: Build) -> None:
    rooms = build(flush_interval_seconds=0.01)
    rooms.flusher.start()
    rooms.append(*named("a"))
    until(lambda: rooms.store.snapshot().watermark == 1, "a flush by age")
    rooms.close(flush=True)


def test_stopping_flushes_what_is_left_and_leaves_an_empty_log(build: Build) -> None:
    rooms = build()
    rooms.flusher.start()
    rooms.append(*named("a", "b"))
    rooms.close(flush=True)
    again = build()
    assert again.store.snapshot().watermark == 2
    assert again.files.names(again.data / "wal") == []
    assert stored(again) == {"a": 1, "b": 1}


def test_events_that_cannot_be_flushed_stay_in_the_log_and_the_failure_shows_until_it_is_over(
    build: Build,
) -> None:
    rooms = build(flush_interval_seconds=0.01)
    rooms.flusher.start()
    rooms.commits.fail = "before"
    rooms.append(*named("a"))
    until(lambda: rooms.flusher.failure, "the failure shows")
    assert rooms.telemetry.failures["flush"] >= 1
    rooms.append(*named("b"))
    assert stored(rooms) == {"a": 1, "b": 1}
    rooms.commits.fail = ""
    until(lambda: rooms.store.snapshot().watermark == 2, "the flush works again")
    until(lambda: rooms.flusher.failure is None, "the failure is cleared")
    assert stored(rooms) == {"a": 1, "b": 1}
    rooms.close(flush=True)


def test_the_flusher_outlives_a_fault_of_ours_and_says_so(
    build: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rooms = build(flush_interval_seconds=0.01)

    def fault(frames: object) -> pa.Table:
        raise pa.ArrowInvalid("a value that no part can hold")

    with monkeypatch.context() as broken:
        broken.setattr(flush_module, "to_table", fault)
        rooms.flusher.start()
        rooms.append(*named("a"))
        until(lambda: rooms.flusher.failure, "the failure shows")
        assert "no part can hold" in caplog.text
    until(lambda: rooms.store.snapshot().watermark == 1, "the next flush works")
    rooms.close(flush=True)


@pytest.mark.parametrize("fail", ["before", "after"])
def test_a_store_that_fails_between_slices_loses_and_doubles_nothing(
    fail: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flush_module, "SLICE_EVENTS", 2)
    rooms = build()
    for name in "abcdef":
        rooms.append(*named(name))
    publish = rooms.store.publish
    calls = 0

    def second_fails(events: pa.Table, watermark: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2 and fail == "before":
            raise StorageError("the disk is full")
        publish(events, watermark)
        if calls == 2:
            raise StorageError("the disk failed")

    monkeypatch.setattr(rooms.store, "publish", second_fails)
    with pytest.raises(StorageError):
        rooms.flusher.flush()
    assert stored(rooms) == dict.fromkeys("abcdef", 1)
    rooms.append(*named("g"))
    rooms.flusher.flush()
    assert stored(rooms) == dict.fromkeys("abcdefg", 1)
    assert rooms.buffer.tail() == ()
    assert sum(part.rows for part in rooms.store.snapshot().parts) == 7
    rooms.close()
    assert stored(build()) == dict.fromkeys("abcdefg", 1)


def test_what_a_commit_that_seemed_to_fail_took_is_let_go_by_the_next_flush(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = build()
    rooms.append(*named("a"))
    publish = rooms.store.publish

    def happens_and_raises(events: pa.Table, watermark: int) -> None:
        publish(events, watermark)
        raise StorageError("the disk failed")

    with monkeypatch.context() as broken:
        broken.setattr(rooms.store, "publish", happens_and_raises)
        with pytest.raises(StorageError):
            rooms.flusher.flush()
    assert rooms.flusher.flush() == 0
    assert rooms.buffer.ring.events == 0
    assert stored(rooms) == {"a": 1}


def test_appends_while_flushing_are_each_stored_once(build: Build) -> None:
    rooms = build(flush_events=1, segment_bytes=2_000)
    rooms.flusher.start()
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            found = stored(rooms)
            assert max(found.values(), default=1) == 1
            seen.append(len(found))

    async def send() -> None:
        for start in range(0, 600, 20):
            names = [str(number) for number in range(start, start + 20)]
            await asyncio.gather(*(rooms.buffer.append(named(name)) for name in names))

    watcher = threading.Thread(target=watch)
    watcher.start()
    asyncio.run(send())
    over.set()
    watcher.join()
    rooms.close(flush=True)
    assert seen == sorted(seen)  # a reader never sees less than it saw before
    again = build()
    assert stored(again) == {str(number): 1 for number in range(600)}
    assert again.store.snapshot().watermark == 600


class Beside(RecentWriter):
    """Counts what it is asked to write, and fails where it is told to."""

    def __init__(self, rooms: Rooms) -> None:
        super().__init__(rooms.data, rooms.clock)
        self.asked: list[int] = []
        self.ended = 0
        self.error: Exception | None = None

    def write(self, frames: Sequence[Frame]) -> tuple[Part, ...]:
        self.asked.append(sum(frame.rows for frame in frames))
        if self.error:
            raise self.error
        return super().write(frames)

    def end(self) -> None:
        super().end()
        self.ended += 1


@pytest.fixture
def beside(build: Build, monkeypatch: pytest.MonkeyPatch) -> tuple[Rooms, Beside]:
    monkeypatch.setattr(flush_module, "ROWS_BESIDE", 3)
    rooms = build(flush_events=1)
    rooms.flusher._beside = found = Beside(rooms)
    return rooms, found


def test_many_events_are_written_beside_the_server_and_few_are_not(
    beside: tuple[Rooms, Beside],
) -> None:
    rooms, writer = beside
    rooms.append(*named("a", "b", "c"))
    rooms.flusher.start()
    until(lambda: rooms.store.snapshot().watermark == 3, "the first flush")
    rooms.append(*named("d", "e"))
    until(lambda: rooms.store.snapshot().watermark == 5, "the second flush")
    assert writer.asked == [3]
    rooms.close(flush=True)
    assert stored(rooms) == dict.fromkeys("abcde", 1)
    assert writer.ended
    assert writer._apart._process is None


def test_a_server_that_stops_does_not_wait_for_a_process_that_somebody_has_stopped(
    beside: tuple[Rooms, Beside],
) -> None:
    rooms, writer = beside
    rooms.flusher.start()
    rooms.append(*named("a", "b", "c"))
    until(lambda: rooms.store.snapshot().watermark == 3, "the first flush")
    process = writer._apart._process
    assert process
    process.send_signal(signal.SIGSTOP)
    rooms.append(*named("d", "e", "f"))
    until(lambda: writer.asked == [3, 3], "the second flush is under way")
    rooms.close(flush=True)
    assert stored(rooms) == dict.fromkeys("abcdef", 1)


@pytest.mark.parametrize("fail", ["before", "after"])
def test_a_commit_of_what_was_written_beside_that_fails_loses_and_doubles_nothing(
    fail: str, beside: tuple[Rooms, Beside]
) -> None:
    rooms, writer = beside
    rooms.commits.fail = fail
    rooms.append(*named("a", "b", "c"))
    rooms.flusher.start()
    until(lambda: rooms.flusher.failure or not rooms.buffer.tail(), "the commit")
    rooms.commits.fail = ""
    rooms.append(*named("d"))
    rooms.close(flush=True)
    assert writer.asked
    assert stored(rooms) == dict.fromkeys("abcd", 1)
    assert sum(part.rows for part in rooms.store.snapshot().parts) == 4


def test_another_thread_than_the_flushers_writes_all_itself(beside: tuple[Rooms, Beside]) -> None:
    # The process would end with a thread that started it.
    rooms, writer = beside
    rooms.append(*named("a", "b", "c"))
    rooms.flusher.flush()
    assert writer.asked == []
    assert stored(rooms) == dict.fromkeys("abc", 1)


@pytest.mark.parametrize(
    "error", [Ended("its process ended with -9"), StorageError("no"), OSError("no process")]
)
def test_what_is_not_written_beside_the_server_it_writes_itself(
    error: Exception, beside: tuple[Rooms, Beside], caplog: pytest.LogCaptureFixture
) -> None:
    rooms, writer = beside
    writer.error = error
    rooms.append(*named("a", "b", "c"))
    rooms.flusher.start()
    until(lambda: rooms.store.snapshot().watermark == 3, "the flush")
    rooms.close(flush=True)
    assert writer.asked == [3]
    assert stored(rooms) == dict.fromkeys("abc", 1)
    assert f"the server writes a flush itself: {error}" in caplog.text
    assert rooms.flusher.failure is None


def test_a_disk_that_takes_nothing_fails_a_flush_in_both_processes_and_nothing_is_lost(
    beside: tuple[Rooms, Beside],
) -> None:
    rooms, writer = beside
    (rooms.data / "recent").rename(rooms.data / "away")
    (rooms.data / "recent").write_text("in the way")
    rooms.append(*named("a", "b", "c"))
    rooms.flusher.start()
    until(lambda: rooms.flusher.failure, "the failure shows")
    (rooms.data / "recent").unlink()
    (rooms.data / "away").rename(rooms.data / "recent")
    rooms.append(*named("d"))
    rooms.close(flush=True)
    assert writer.asked
    assert stored(rooms) == dict.fromkeys("abcd", 1)
