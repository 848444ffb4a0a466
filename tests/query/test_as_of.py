"""What was stored at an instant is the same answer later: flushed, compacted, started anew."""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.event import Event, Frame
from mallard.query.confined import confine, show_reading
from mallard.query.dimensions import Dimension
from mallard.query.events import show
from mallard.query.period import Interval, Period, buckets, slices
from mallard.query.tail import view_of
from tests import oracle_answers
from tests.oracle import Stored as One
from tests.query.test_answers import EVENTS, SITE, Room

SECOND_US = 1_000_000
PIECES = slices(
    buckets(Period.of_days(date(2024, 4, 29), date(2024, 5, 4), ZoneInfo("UTC")), Interval.DAY)
)


class Timed(Room):
    """A room whose clock goes on a second with each commit, and that remembers when each was."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self.loaded: dict[int, int] = {}

    def commit(self, events: list[Event], *, flush: bool) -> None:
        self.stored.clock.us += SECOND_US
        first = len(self.events) + 1
        (self.flush if flush else self.hold)(events)
        self.loaded.update(dict.fromkeys(range(first, len(self.events) + 1), self.stored.clock.us))
        if not flush:
            self.held.frames = tuple(
                Frame(one.position, self.stored.clock.us, 1, (one.event,))
                for one in self.events[first - 1 :]
            )

    def stored_at(self, instant_us: int) -> list[One]:
        return [one for one in self.events if self.loaded[one.position] <= instant_us]

    def seen_at(self, instant_us: int) -> tuple[Counter[int], int]:
        """The positions in the view `events`, and how many visits the view `sessions` has.

        SQL that is confined to sites must see the same of all of them.
        """
        store, frames = self.stored.store, self.held.frames
        with duckdb.connect() as whole, duckdb.connect() as confined:
            show(whole, store.snapshot(), store.source, frames, instant_us)
            reading = confine(
                view_of(frames), store.snapshot(), None, store.source, as_of_us=instant_us
            )
            show_reading(confined, reading)
            found, same = _seen(whole), _seen(confined)
        assert found == same
        return found


def _seen(connection: duckdb.DuckDBPyConnection) -> tuple[Counter[int], int]:
    rows = connection.sql("SELECT position FROM events").fetchall()
    ((visits,),) = connection.sql("SELECT count(*) FROM sessions").fetchall()
    return Counter(row[0] for row in rows), visits


@settings(max_examples=9, deadline=None)
@given(
    commits=st.lists(st.lists(EVENTS, min_size=1, max_size=5), min_size=2, max_size=5),
    back=st.integers(0, 4),
)
def test_an_answer_as_of_an_instant_does_not_change(commits: list[list[Event]], back: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        room = Timed(Path(folder))
        try:
            for events in commits[:-1]:
                room.commit(events, flush=True)
            instant_us = room.stored.clock.us - back * SECOND_US
            expected = _expected(room, instant_us)
            before = room.seen_at(instant_us)
            assert before[0] == Counter(one.position for one in room.stored_at(instant_us))
            assert _found(room, instant_us) == expected
            room.commit(commits[-1], flush=False)
            assert room.seen_at(instant_us) == before
            assert _found(room, instant_us) == expected
            room.stored.settle()
            assert room.seen_at(instant_us) == before
            assert _found(room, instant_us) == expected
        finally:
            room.close()


def _expected(room: Timed, instant_us: int) -> Any:
    stored = room.stored_at(instant_us)
    return oracle_answers.sums(stored, SITE, (Dimension.PAGE,), None, PIECES)


def _found(room: Timed, instant_us: int) -> Any:
    return room.sums(PIECES, (Dimension.PAGE,), None, instant_us)


@pytest.mark.parametrize("sum_up", [True, False])
def test_settled_days_are_read_from_their_files_when_all_of_them_was_stored(
    sum_up: bool, tmp_path: Path
) -> None:
    room = Timed(tmp_path)
    room.commit(
        [Event(SITE, PIECES[2].start_us + n, "pageview", "page") for n in range(3)], flush=True
    )
    room.settle(sum_up=sum_up)
    now = room.stored.clock.us
    assert room.sums(PIECES, (), None, now) == room.sums(PIECES)
    assert room.sums(PIECES, (), None, now - SECOND_US) == {}
    room.close()
