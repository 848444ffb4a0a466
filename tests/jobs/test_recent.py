from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mallard.clock import Clock
from mallard.errors import StorageError
from mallard.event import Frame, to_table
from mallard.files import Files
from mallard.jobs.apart import Ended
from mallard.jobs.recent import STAYS_SECONDS, RecentWriter
from mallard.store.workshop import Workshop
from tests.factories import make_event

DAY_US = 86_400_000_000


class SetClock(Clock):
    at = 0.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def writer(tmp_path: Path, clock: SetClock) -> Iterator[RecentWriter]:
    (tmp_path / "recent").mkdir()
    made = RecentWriter(tmp_path, clock)
    yield made
    made.end()


def two_days() -> list[Frame]:
    early, late = make_event(), make_event()._replace(timestamp=make_event().timestamp + DAY_US)
    return [Frame(1, 5, 7, [early, late]), Frame(3, 6, 7, [late._replace(event_name="é\n")])]


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def process_of(writer: RecentWriter) -> int:
    process = writer._apart._process
    assert process
    return process.pid


@pytest.mark.parametrize("texts_at_once", [1, 2, 1_000])
def test_it_writes_what_the_server_would_write_itself(
    texts_at_once: int, writer: RecentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mallard.jobs.apart.TEXTS_AT_ONCE", texts_at_once)
    here = tmp_path / "here"
    (here / "recent").mkdir(parents=True)
    frames = two_days()
    parts = writer.write(frames)
    assert parts == Workshop(here, Files()).write_recent(to_table(frames))
    assert [part.rows for part in parts] == [1, 2]
    assert files_in(tmp_path / "recent") == files_in(here)


def test_a_process_stays_until_it_has_had_nothing_to_do_for_long(
    writer: RecentWriter, clock: SetClock
) -> None:
    writer.rest()
    writer.write(two_days())
    first = process_of(writer)
    clock.at += STAYS_SECONDS - 1
    writer.rest()
    writer.write(two_days())
    assert process_of(writer) == first
    clock.at += STAYS_SECONDS - 1
    writer.rest()
    assert process_of(writer) == first
    clock.at += 1
    writer.rest()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    writer.write(two_days())
    assert process_of(writer) != first


def test_what_was_not_written_is_told_and_its_names_are_left_to_who_writes_it_again(
    writer: RecentWriter, tmp_path: Path
) -> None:
    parts = writer.write(two_days())
    before = files_in(tmp_path)
    (tmp_path / parts[1].location).unlink()
    (tmp_path / parts[1].location).mkdir()  # no file can have its name
    with pytest.raises(StorageError, match="could not be written"):
        writer.write(two_days())
    name = Path(parts[0].location).name
    assert files_in(tmp_path)[name] == before[name]


def test_a_process_that_was_killed_is_told_and_followed_by_another(writer: RecentWriter) -> None:
    parts = writer.write(two_days())
    os.kill(process_of(writer), signal.SIGKILL)
    with pytest.raises(Ended):
        writer.write(two_days())
    assert writer.write(two_days()) == parts


def test_it_keeps_what_it_is_given_open(tmp_path: Path, clock: SetClock) -> None:
    (tmp_path / "recent").mkdir()
    reading, writing = os.pipe()
    writer = RecentWriter(tmp_path, clock, [writing])
    writer.write(two_days())
    os.close(writing)
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):
        os.read(reading, 1)  # somebody could still write
    writer.end()
    assert os.read(reading, 1) == b""
    os.close(reading)
