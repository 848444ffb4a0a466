from __future__ import annotations

from pathlib import Path

from tests.factories import make_event
from tests.rooms import Rooms
from tests.waiting import until


def test_a_rolled_log_lets_go_of_a_segment_although_events_came_in_since(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path / "data")
    rooms.append(make_event(), make_event())
    rooms.buffer.roll(0)
    positions: list[int] = []

    def is_in_another_segment() -> bool:
        positions.append(rooms.append(make_event()).first_position)
        return rooms.buffer.wal.segment_count == 2

    until(is_in_another_segment, "the log goes on in another segment")
    last = positions[-1]
    rooms.buffer.release(last - 1)  # as a flush does that the last event came too late for
    until(lambda: rooms.buffer.wal.first_position == last, "the first segment is gone")
    rooms.close()

    again = Rooms(rooms.data)
    assert [frame.first_position for frame in again.buffer.tail()] == [last]
    again.close()


def test_rolling_an_empty_log_changes_nothing(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path / "data")
    rooms.buffer.roll(0)
    rooms.buffer.roll(0)
    assert rooms.append(make_event()).first_position == 1
    rooms.close(flush=True)
    assert rooms.buffer.wal.first_position is None
