from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mallard.errors import CorruptData
from mallard.query.newest import NewestPart
from tests.factories import make_event
from tests.rooms import Rooms


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    with closing(Rooms(tmp_path / "data")) as made:
        yield made


@pytest.fixture
def newest(rooms: Rooms) -> Iterator[NewestPart]:
    with closing(NewestPart(rooms.store)) as made:
        yield made


def test_reading_it_gives_its_rows_and_zero_without_parts(rooms: Rooms, newest: NewestPart) -> None:
    assert newest.read() == 0
    for count in (1, 2):
        rooms.append(*[make_event()] * count)
        rooms.flusher.flush()
    assert newest.read() == 2
    newest.close()
    assert newest.read() == 2


def lose(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def blank(path: Path) -> None:
    """Keep the footer, lose the rows."""
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(400) + content[404:])


def swap(path: Path) -> None:
    other = path.with_name("empty.parquet")
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("harm", [lose, cut, blank, swap])
@pytest.mark.parametrize("looked", [False, True], ids=["at first", "after a look"])
def test_what_is_damaged_is_told_once_and_set_aside_and_the_part_before_it_is_the_newest(
    harm: Callable[[Path], None], looked: bool, rooms: Rooms, newest: NewestPart
) -> None:
    for events in (1, 2):
        rooms.append(*[make_event()] * events)
        rooms.flusher.flush()
    part = rooms.store.snapshot().recent[-1]
    if looked:
        assert newest.read() == 2
    harm(rooms.data / part.location)
    with pytest.raises(CorruptData, match=part.location):
        newest.read()
    assert newest.read() == 1
    ((aside, _),) = rooms.store.snapshot().quarantined
    assert aside == part


def test_a_whole_part_that_cannot_be_read_is_told_every_time(
    rooms: Rooms, newest: NewestPart, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms.append(make_event())
    rooms.flusher.flush()
    monkeypatch.setattr(rooms.store, "source", lambda _: str(rooms.data / "elsewhere.parquet"))
    for _ in range(2):
        with pytest.raises(CorruptData, match="cannot be read"):
            newest.read()
    assert rooms.store.snapshot().quarantined == ()
