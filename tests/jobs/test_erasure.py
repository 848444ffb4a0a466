from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mallard.query.events import open_folder
from tests.erasing import KEPT, MARK, ErasingRooms, holders, user


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[ErasingRooms]:
    rooms = ErasingRooms(tmp_path / "data")
    yield rooms
    rooms.close()


def users(data: Path) -> dict[str, int]:
    with open_folder(data) as connection:
        return dict(connection.sql("SELECT user_id, count(*) FROM events GROUP BY 1").fetchall())


def test_nothing_of_a_subject_is_on_disk_once_the_receipt_says_so(rooms: ErasingRooms) -> None:
    rooms.fill()
    everywhere = {"events", "recent", "rollups", "sessions", "wal"}
    assert holders(rooms.data) == everywhere
    assert users(rooms.data) == {MARK: 6, KEPT: 4}
    rule = rooms.erasure.begin(user())
    assert users(rooms.data) == {KEPT: 4}
    receipt = rooms.finish(rule)
    assert holders(rooms.data) == set()
    assert users(rooms.data) == {KEPT: 4}
    assert receipt["events"] == 6
