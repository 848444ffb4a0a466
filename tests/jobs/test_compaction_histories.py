"""Whatever comes in whatever order, compaction changes where events lie and nothing else."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.config import StoreConfig
from mallard.event import Event
from mallard.jobs.compaction import Compactor
from mallard.query.sessions import SESSION_SCHEMA
from mallard.store.snapshot import Snapshot
from mallard.telemetry import Telemetry
from tests import oracle
from tests.beside import looking_at
from tests.factories import NOON_US
from tests.sql import ask
from tests.stored import Stored
from tests.strategies import VISITED_EVENTS

MERGE_FILES = 3
CONFIG = StoreConfig(merge_files=MERGE_FILES, close_after_seconds=0, late_merge_seconds=0)
OPEN_DAY, CLOSED_DAY = 0, 5  # from the earlier of the two dates that the events are of

FLUSH = st.lists(VISITED_EVENTS, min_size=1, max_size=6)
STEP = FLUSH | FLUSH | st.sampled_from(["merge", "settle", "restart"])


class History:
    """A store that events come to, and a list of them."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.stored = Stored(data)
        self.events: list[oracle.Stored] = []

    @property
    def snapshot(self) -> Snapshot:
        return self.stored.store.snapshot()

    def take(self, step: list[Event] | str) -> None:
        if isinstance(step, list):
            self.stored.publish(step)
            self.events += oracle.store(step, len(self.events) + 1)
        elif step == "restart":
            self.stored.close()
            self.stored = Stored(self.data)
        else:
            self.compact(OPEN_DAY if step == "merge" else CLOSED_DAY)

    def compact(self, day: int) -> None:
        """Do what is due on a day, until nothing is."""
        clock = self.stored.clock
        clock.us = NOON_US + day * DAY_US
        compactor = Compactor(
            CONFIG, self.stored.store, self.data, lambda: 2**40, clock, Telemetry()
        )
        version = -1
        while version != self.snapshot.version:
            version = self.snapshot.version
            compactor.run()
            assert compactor.problems == []


@settings(max_examples=12, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=10))
def test_events_stay_as_they_are_and_visits_are_those_of_the_definition(
    steps: list[list[Event] | str],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder))
        for step in steps:
            history.take(step)
            if not isinstance(step, list):
                assert_events(history)
            if step in ("merge", "settle"):
                assert_few_files(history)
        history.compact(CLOSED_DAY)
        assert_events(history)
        assert_settled(history)
        history.stored.close()


def assert_events(history: History) -> None:
    """Raise AssertionError unless every event reads as it came, once."""
    columns = ", ".join(Event._fields)
    with looking_at(history.data) as connection:
        rows = connection.execute(f"SELECT position, {columns} FROM events ORDER BY 1").fetchall()
    assert rows == [(one.position, *as_read(one.event)) for one in history.events]


def as_read(event: Event) -> tuple[Any, ...]:
    """What the view says of an event of the strategy, which has no other instants."""
    at = oracle.instant(event.timestamp)
    return tuple(event._replace(timestamp=at, received_at=at))  # type: ignore[arg-type]


def assert_few_files(history: History) -> None:
    """Raise AssertionError when a date has as many parts of level 0 as should be merged."""
    dates = Counter(part.date for part in history.snapshot.recent)
    assert all(parts < MERGE_FILES for parts in dates.values())


def assert_settled(history: History) -> None:
    """Raise AssertionError unless each site-day has a part and its visits."""
    snapshot, source = history.snapshot, history.stored.store.source
    assert not snapshot.recent
    keys = {(one.event.site_id, oracle.day_of(one.event).isoformat()) for one in history.events}
    assert set(snapshot.days) == keys
    visits: dict[int, int | None] = {}
    sessions: list[dict[str, Any]] = []
    for day in snapshot.days.values():
        (part,) = day.parts
        assert day.sessions
        visits |= dict(ask("SELECT position, visit FROM read_parquet($1)", [source(part)]))
        sessions += sessions_in(source(day.sessions))
    assert visits == oracle.visit_by_position(history.events)
    expected = [visit.row() for visit in oracle.visits(history.events)]
    assert sorted(sessions, key=str) == sorted(expected, key=str)


def sessions_in(source: str) -> list[dict[str, Any]]:
    rows = ask("SELECT * FROM read_parquet($1, hive_partitioning = false)", [source])
    return [dict(zip(SESSION_SCHEMA.names, row, strict=True)) for row in rows]
