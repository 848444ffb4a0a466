from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mallard.buffer.wal import read_log
from mallard.errors import StorageError
from mallard.event import Event, Frame
from mallard.query.events import open_folder, show, show_folder
from mallard.store.snapshot import Snapshot
from tests.factories import NOON_US, make_event
from tests.rooms import Rooms

Build = Callable[..., Rooms]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    made: list[Rooms] = []

    def make(data: Path = tmp_path / "data", **settings: Any) -> Rooms:
        made.append(Rooms(data, **settings))
        return made[-1]

    yield make
    for rooms in made:
        rooms.close()


def count(connection: duckdb.DuckDBPyConnection) -> int:
    ((number,),) = connection.execute("SELECT count(*) FROM events").fetchall()
    assert isinstance(number, int)
    return number


def to_instant(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC).replace(tzinfo=None)


def test_the_view_has_every_column_of_an_event_and_its_id(build: Build) -> None:
    rooms = build()
    rooms.append(make_event())
    with open_folder(rooms.data) as connection:
        found = [row[0] for row in connection.execute("DESCRIBE events").fetchall()]
    assert found == ["event_id", "position", "loaded_at", *Event._fields]


@pytest.mark.parametrize("flushed", [False, True], ids=["in the log", "in a part"])
def test_an_event_reads_the_same_from_the_log_and_from_a_part(flushed: bool, build: Build) -> None:
    rooms = build()
    event = make_event(
        timestamp=NOON_US + 123_456,
        revenue_amount=Decimal("10.10"),
        props='{"plan": "päid"}',
        visitor_id=-5,
        received_at=NOON_US + 7,
    )
    rooms.append(event)
    if flushed:
        rooms.flusher.flush()
    columns = "timestamp, received_at, revenue_amount, props, visitor_id, position, interactive"
    with open_folder(rooms.data) as connection:
        row = connection.execute(f"SELECT {columns} FROM events").fetchone()
        plan = connection.execute("SELECT props->>'$.plan' FROM events").fetchone()
    instants = (to_instant(NOON_US + 123_456), to_instant(NOON_US + 7))
    assert row == (*instants, Decimal("10.10"), '{"plan": "päid"}', -5, 1, True)
    assert plan == ("päid",)


@pytest.mark.parametrize("position", [1, 2**53 + 1, 2**60 - 1])
def test_an_event_id_is_a_uuid_7_of_milliseconds_node_and_position(position: int) -> None:
    with duckdb.connect() as connection:
        event = make_event(timestamp=NOON_US + 123_999)
        frame = Frame(position, 1, 0xABC, (event,))
        show(connection, Snapshot(), lambda file: file.location, [frame])
        row = connection.execute("SELECT event_id FROM events").fetchone()
    assert row is not None
    found: uuid.UUID = row[0]
    assert found.version == 7
    assert found.variant == uuid.RFC_4122  # which RFC 9562 keeps
    assert found.int >> 80 == (NOON_US + 123_999) // 1000
    assert found.int >> 64 & 0xFFF == 0xABC
    assert found.int & (1 << 62) - 1 == position


def test_a_time_that_was_not_stored_because_it_equals_timestamp_is_restored(build: Build) -> None:
    rooms = build()
    rooms.append(make_event(received_at=None))
    with open_folder(rooms.data) as connection:
        row = connection.execute("SELECT received_at = timestamp, sent_at FROM events").fetchone()
    assert row == (True, None)


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_flush_between_reading_the_log_and_the_manifest_counts_each_event_once(
    durability: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = build(segment_bytes=1, durability=durability)
    for _ in range(3):
        rooms.append(make_event())

    def with_a_flush_after(*arguments: Any) -> Iterator[Frame]:
        yield from list(read_log(*arguments))
        rooms.flusher.flush()
        rooms.append(make_event())  # too late for this reader: it was accepted after the log's end

    monkeypatch.setattr("mallard.query.events.read_log", with_a_flush_after)
    with open_folder(rooms.data) as connection:
        assert count(connection) == 3
        monkeypatch.undo()
        show_folder(connection, rooms.data)
        assert count(connection) == 4


def test_a_folder_without_any_event_has_the_view_all_the_same(build: Build) -> None:
    rooms = build()
    with open_folder(rooms.data) as connection:
        assert count(connection) == 0
    with pytest.raises(StorageError, match="not a Mallard data folder"):
        open_folder(rooms.data / "wal")


def test_what_is_flushed_before_the_log_is_read_is_seen_in_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = Rooms(tmp_path / "data")
    rooms.append(make_event())

    def read_after_a_flush(*arguments: Any) -> Any:
        rooms.flusher.flush()
        return read_log(*arguments)

    monkeypatch.setattr("mallard.query.events.read_log", read_after_a_flush)
    with open_folder(rooms.data) as connection:
        assert connection.sql("SELECT position FROM events").fetchall() == [(1,)]
    rooms.close()
