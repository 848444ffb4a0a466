"""Answers that are kept are given again as long as nothing has changed, and no longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given, settings

from mallard.buffer.buffer import Buffer
from mallard.config import RetentionConfig
from mallard.event import Event
from mallard.jobs.expiry import Expiry
from mallard.query.answers import Answers
from mallard.query.dimensions import Dimension
from mallard.query.engine import Session
from mallard.query.period import Interval, Period, micros
from mallard.query.reports.chosen import Choice
from mallard.query.reports.journeys import Path as Walk
from mallard.query.reports.journeys import PathsQuestion, paths
from mallard.query.reports.retention import Person, RetentionQuestion, retention
from mallard.query.reports.sessions import SessionsQuestion, sessions
from mallard.query.reports.table import Metric, Question, Table, ask
from mallard.query.rules import Condition, Definition
from mallard.query.tail import Tail
from mallard.store.snapshot import Change, Rule
from tests.factories import make_event
from tests.query.reports.laid import CHOICES, PERIODS, PHASES, asked, laid_out
from tests.query.reports.test_daily import days, numbers, visit_of
from tests.query.test_answers import SITE, Room

DAY = "2024-05-02"
SUMMARY = Question(SITE, days(1, 5).period, (Metric.VISITS,), (Dimension.SOURCE,))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """Settled days from 2024-05-01 to 04, with a visit each; it is the 11th."""
    made = Room(tmp_path)
    for day in range(4):
        made.flush(visit_of(day, 1))
    made.settle(sum_up=True)
    yield made
    made.close()


def visits(room: Room) -> list[int]:
    """Return how many visits each report that is kept says there are from the 1st to the 5th."""
    (row,) = asked(room, ask, SUMMARY).rows
    told = asked(room, sessions, SessionsQuestion(days(1, 5), 10))
    return [*row.metrics, told.total_rows, *numbers(room, 1, 5)]


def late(room: Room) -> None:
    room.hold(visit_of(1, 2))


def stored_late(room: Room) -> None:
    room.flush(visit_of(1, 2))


def compacted_late(room: Room) -> None:
    room.flush(visit_of(1, 2))
    room.settle(sum_up=True)


def today(room: Room) -> None:
    room.hold(visit_of(4, 2))


def over(room: Room) -> None:
    """Let the day of new events end."""
    room.flush(visit_of(4, 2))
    room.settle(sum_up=True)


def ruled_out(room: Room) -> None:
    """Make a rule that drops the visitor from a day, which is not rewritten yet."""
    visitor = Condition("visitor_id", "is", (f"{1:016x}",))
    said = Definition(first_date=DAY, last_date=DAY, conditions=(visitor,))
    text = orjson.dumps({"rule": said.to_json()}).decode()
    store = room.stored.store
    rule = Rule("r", 1, store.snapshot().watermark, text, frozenset({(SITE, DAY)}))
    store.swap(Change("rule", rules_added=(rule,)))


def erased(room: Room) -> None:
    store = room.stored.store
    day = store.snapshot().days[SITE, DAY]
    (part,) = day.parts
    assert day.sessions is not None
    store.swap(
        Change(
            "erasure",
            removed=(part, day.sessions),
            lost_rows=part.rows,
            lost_position_sum=part.position_sum,
        )
    )


def keep_days(room: Room, number: int) -> None:
    Expiry(RetentionConfig(days=number), room.stored.store, room.stored.clock).run()


def expired(room: Room) -> None:
    keep_days(room, 8)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        *((late, 5), (stored_late, 5), (compacted_late, 5), (today, 5), (over, 5)),
        *((ruled_out, 3), (erased, 3), (expired, 2)),
    ],
)
def test_what_was_given_is_not_given_after_a_change(
    change: Callable[[Room], None], left: int, room: Room
) -> None:
    assert visits(room) == [4] * 8
    change(room)
    assert visits(room) == [left] * 8


def test_today_is_as_it_is_now_before_and_after_midnight(room: Room) -> None:
    room.hold(visit_of(4, 1))
    assert visits(room) == [5] * 8
    first = room.held.frames
    room.hold(visit_of(4, 2))
    room.held.frames = first + room.held.frames
    assert visits(room) == [6] * 8
    room.flush(visit_of(4, 1) + visit_of(4, 2))
    room.held.frames = ()
    assert visits(room) == [6] * 8
    room.settle(sum_up=True)
    assert visits(room) == [6] * 8


def test_days_that_are_taken_back_have_the_answer_they_had(room: Room) -> None:
    assert visits(room) == [4] * 8
    expired(room)
    assert visits(room) == [2] * 8
    keep_days(room, 0)
    assert visits(room) == [4] * 8


def test_the_same_again_is_not_asked_of_the_database(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.hold(visit_of(4, 1))
    assert visits(room) == [5] * 8
    for name in ("rows", "table", "made", "view"):
        monkeypatch.setattr(Session, name, None)
    assert visits(room) == [5] * 8


def test_retention_is_counted_again_when_somebody_is_new_and_not_as_time_passes(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def people(second: int) -> int | None:
        now = datetime(2024, 5, 11, 12, 0, second, tzinfo=UTC)
        question = RetentionQuestion(days(1, 5), Interval.MONTH, Person.USER, None, now)
        (cohort,) = asked(room, retention, question)
        return cohort.retained[0]

    assert people(0) == 0
    room.hold([make_event(user_id="somebody")])
    assert people(1) == 1
    monkeypatch.setattr(Session, "rows", None)
    assert people(2) == 1


def test_hours_that_come_twice_are_two(room: Room) -> None:
    new_york = ZoneInfo("America/New_York")
    first = datetime(2024, 11, 3, 1, tzinfo=new_york)
    hours = [
        Period(start, start.replace(minute=59), new_york)
        for start in (first, first.replace(fold=1))
    ]
    assert hours[0] == hours[1]
    start_us = micros(hours[1].start)
    room.flush([make_event(timestamp=start_us + 60_000_000)])
    room.settle(sum_up=False)
    asked_of = [replace(SUMMARY, period=each) for each in hours]
    assert [len(asked(room, ask, each).rows) for each in asked_of] == [0, 1]


def test_as_of_an_instant_the_answer_stays(room: Room) -> None:
    question = replace(SUMMARY, as_of_us=room.stored.clock.us)
    room.stored.clock.us += 1_000_000
    stored_late(room)
    for each, left in ((question, 4), (SUMMARY, 5), (question, 4)):
        (row,) = asked(room, ask, each).rows
        assert row.metrics == (left,)


@settings(max_examples=4, deadline=None)
@given(phases=PHASES, choice=CHOICES, period=PERIODS)
def test_answers_are_those_of_one_that_keeps_nothing(
    phases: tuple[list[Event], ...], choice: Choice, period: Period
) -> None:
    choices = choice, replace(choice, period=period)
    with laid_out((phases[0], [], [], [])) as room:
        changes: list[Callable[[], None]] = [
            partial(room.flush, phases[1]),
            partial(room.settle, sum_up=True),
            partial(room.flush, phases[2]),
            partial(room.hold, phases[3]),
        ]
        for change in changes:
            for each in choices:
                _agree(room, each)
            change()
        for each in choices:
            _agree(room, each)


def _agree(room: Room, choice: Choice) -> None:
    nothing = Answers(room.stored.store, Tail(cast(Buffer, room.held)), 0)
    table = Question(SITE, choice.period, (Metric.VISITORS,), (Dimension.PAGE,), keep=choice.keep)
    walks = PathsQuestion(choice, 2, 10)

    def work(session: Session, answers: Answers) -> tuple[Table, list[Walk]]:
        return ask(session, answers, table), paths(session, answers, walks)

    expected, found = (
        room.engine.submit(partial(work, answers=each)).result(60)
        for each in (nothing, room.answers)
    )
    assert found == expected
