from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.clock import utc_date
from mallard.event import Event, Frame
from mallard.query import open_days
from mallard.query.answers import Answers
from mallard.query.dimensions import Dimension
from mallard.query.engine import Session
from mallard.query.period import Interval, Period, buckets, slices
from mallard.query.rules import Definition, about
from mallard.query.sql import Sql
from mallard.query.sums import Grouping
from mallard.store.snapshot import Change, Rule
from tests.factories import NOON_US, make_event
from tests.query.test_answers import SITE, UTC, WIDE, Room
from tests.strategies import VISITED_EVENTS

DAY = utc_date(NOON_US)
PIECES = slices(buckets(WIDE, Interval.DAY))
SUMS = Grouping(SITE, (Dimension.ENTRY_PAGE,))
STEPS = st.one_of(
    st.just("ask"),
    st.just("flush"),
    st.just("settle"),
    st.lists(VISITED_EVENTS, min_size=1, max_size=4),
)


class Live(Room):
    """A room whose events come in, and are put into parts, while it is asked."""

    def append(self, events: list[Event]) -> None:
        first = self.stored.store.snapshot().watermark + 1
        first += sum(frame.rows for frame in self.held.frames)
        self.held.frames += (Frame(first, NOON_US, 1, events),)

    def put_away(self) -> None:
        for frame in self.held.frames:
            self.stored.publish(frame.events)
        self.held.frames = ()

    def ask(self, answers: Answers) -> tuple[Any, ...]:
        def work(session: Session) -> tuple[Any, ...]:
            with answers.relations(session, SITE, PIECES) as found:
                rows = [
                    sorted(map(repr, session.rows(Sql(f"SELECT {columns} FROM ({query})"))))
                    for query, columns in (
                        (found.events, "position, timestamp, pathname, revenue_amount, visit"),
                        (found.visits, "COLUMNS(*)"),
                    )
                ]
            sums = answers.sums(session, SUMS, PIECES)
            assert isinstance(sums, pa.Table)
            return *rows, sorted(map(repr, sums.to_pylist()))

        return self.engine.submit(work).result(60)

    def anew(self) -> Answers:
        """Answers that know nothing yet."""
        return Answers(self.stored.store, self.answers._tail, 10_000_000)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    made = Live(tmp_path)
    yield made
    made.close()


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(STEPS, max_size=12), pieces_max=st.sampled_from([1, 4]))
def test_what_is_brought_up_to_date_is_what_is_looked_up_anew(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str | list[Event]], pieces_max: int
) -> None:
    live = Live(tmp_path_factory.mktemp("live"))
    try:
        with mock.patch.object(open_days, "PIECES_MAX", pieces_max):
            for step in [*steps, "ask"]:
                if isinstance(step, list):
                    live.append(step)
                elif step == "ask":
                    assert live.ask(live.answers) == live.ask(live.anew())
                else:
                    live.put_away()
                    if step == "settle":
                        live.stored.settle()
    finally:
        live.close()


def visits_of(live: Live) -> list[tuple[int, int]]:
    def work(session: Session) -> list[tuple[int, int]]:
        with live.answers.relations(session, SITE, PIECES) as found:
            query = f"SELECT visitor_id, pageviews FROM ({found.visits}) ORDER BY ALL"
            return session.rows(Sql(query))

    return live.engine.submit(work).result(60)


def test_new_events_cost_their_own_visitors_alone(live: Live) -> None:
    live.append([make_event(visitor_id=n) for n in range(100)])
    assert len(visits_of(live)) == 100
    live.append([make_event(visitor_id=7), make_event(visitor_id=100)])
    annotated: list[int] = []

    def look(session: Session, query: Sql, instant: open_days.Instant) -> open_days.OpenDays:
        annotated.append(session.rows(Sql(f"SELECT count(*) FROM ({query})"))[0][0])
        return open_days_looked_up(session, query, instant)

    open_days_looked_up = open_days.looked_up
    with mock.patch.object(open_days, "looked_up", look):
        found = visits_of(live)
    assert annotated == [3]
    assert [visit for visit in found if visit[0] in {7, 8, 100}] == [(7, 2), (8, 1), (100, 1)]
    assert len(found) == 101
    live.put_away()  # what parts hold now is known already
    with mock.patch.object(open_days, "looked_up", look):
        assert visits_of(live) == found
    assert annotated == [3]


def test_a_question_knows_all_that_was_committed_when_it_was_asked(live: Live) -> None:
    live.append([make_event(visitor_id=1)])
    assert visits_of(live) == [(1, 1)]
    for number in range(2, 5):
        live.append([make_event(visitor_id=number)])
        assert visits_of(live)[-1] == (number, 1)


def test_a_rule_holds_for_what_is_known_already(live: Live) -> None:
    live.append([make_event(visitor_id=1, user_id="ada"), make_event(visitor_id=2)])
    live.put_away()
    assert visits_of(live) == [(1, 1), (2, 1)]
    definition = Definition(conditions=(about("user", "ada"),))
    affected = frozenset({(SITE, DAY.isoformat())})
    rule = Rule("r", NOON_US, 2, orjson.dumps({"rule": definition.to_json()}).decode(), affected)
    live.stored.store.swap(Change("rule", rules_added=(rule,)))
    assert visits_of(live) == [(2, 1)]


def test_what_was_stored_by_an_instant_stays_what_it_was(live: Live) -> None:
    live.append([make_event(visitor_id=1)])
    before = Grouping(SITE, (), None, NOON_US - 1)
    then = Grouping(SITE, (), None, NOON_US)
    period = slices(buckets(Period.of_days(DAY, date(2024, 5, 4), UTC), None))
    for _ in range(2):
        counted = [
            live.engine.submit(lambda session, g=g: live.answers.sums(session, g, period))  # type: ignore[misc]
            for g in (before, then)
        ]
        found = [each.result(60) for each in counted]
        rows = [sums.to_pylist() for sums in found if isinstance(sums, pa.Table)]
        assert rows[0] == []
        assert rows[1][0]["visitors"] == 1
        live.held.frames += (Frame(2, NOON_US + 1, 1, [make_event(visitor_id=2)]),)
