from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.errors import InvalidInput
from mallard.event import Event
from mallard.query.period import Interval, Period, buckets, micros
from mallard.query.reports.chosen import Choice
from mallard.query.reports.retention import Cohort, Person, RetentionQuestion, retention
from tests.factories import NOON_US, make_event
from tests.oracle import Stored
from tests.query.reports.laid import CHOICES, PHASES, asked, chosen, laid_out
from tests.query.test_answers import SITE, Room

DAY_US = 86_400_000_000
EARLY = date(2024, 4, 1)
QUESTIONS = st.builds(
    RetentionQuestion,
    CHOICES,
    st.sampled_from([Interval.DAY, Interval.WEEK, Interval.MONTH]),
    st.sampled_from(Person),
    st.just(EARLY),
    st.sampled_from([datetime(2024, 5, 2, 12, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC)]),
)


def by_hand(stored: list[Stored], question: RetentionQuestion) -> list[Cohort]:
    start = datetime(EARLY.year, EARLY.month, EARLY.day, tzinfo=UTC)
    period = question.choice.period
    history = Period(start, period.end, period.zone)
    came: dict[str, list[int]] = {}
    for one in chosen(stored, dataclasses.replace(question.choice, period=history)):
        person = getattr(one.event, question.person.value)
        if person is not None and one.event.event_type != "engagement":
            came.setdefault(person, []).append(one.event.timestamp)
    cut = buckets(period, question.interval)
    found = []
    for number, bucket in enumerate(cut):
        new = [
            times
            for times in came.values()
            if micros(bucket.start) <= times[0] < micros(bucket.end)
        ]
        retained = tuple(
            sum(any(micros(later.start) <= at < micros(later.end) for at in times) for times in new)
            if later.start <= question.now
            else None
            for later in cut[number:]
        )
        found.append(Cohort(bucket, retained))
    return found


@settings(max_examples=10, deadline=None)
@given(phases=PHASES, questions=st.lists(QUESTIONS, min_size=5, max_size=5))
def test_retention_is_what_plain_python_says(
    phases: tuple[list[Event], ...], questions: list[RetentionQuestion]
) -> None:
    some = [[each._replace(anonymous_id=each.pathname) for each in events] for events in phases]
    with laid_out(some) as room:
        for question in questions:
            assert asked(room, retention, question) == by_hand(room.events, question)


@pytest.fixture
def week(tmp_path: Path) -> Room:
    room = Room(tmp_path)
    days = {"ada": (0, 1, 3), "bob": (0, 3), "eve": (2,), "old": (-20, 1)}
    for user, theirs in days.items():
        room.flush([make_event(user_id=user, timestamp=NOON_US + day * DAY_US) for day in theirs])
    room.settle(sum_up=False)
    return room


def test_who_came_before_the_period_is_not_new_in_it(week: Room) -> None:
    try:
        period = Period.of_days(date(2024, 5, 1), date(2024, 5, 5), ZoneInfo("UTC"))
        now = datetime(2024, 5, 4, 12, tzinfo=UTC)
        question = RetentionQuestion(
            Choice(SITE, period), Interval.DAY, Person.USER, date(2024, 4, 11), now
        )
        assert [each.retained for each in asked(week, retention, question)] == [
            (2, 1, 0, 2, None),
            (0, 0, 0, None),
            (1, 0, None),
            (0, None),
            (None,),
        ]
        later = Period.of_days(date(9000, 1, 1), date(9000, 1, 2), ZoneInfo("UTC"))
        to_come = dataclasses.replace(question, choice=Choice(SITE, later))
        told = [each.retained for each in asked(week, retention, to_come)]
        assert told == [(None, None), (None,)]
        long = Period(now - timedelta(days=200), now, ZoneInfo("UTC"))
        with pytest.raises(InvalidInput, match="intervals"):
            asked(week, retention, dataclasses.replace(question, choice=Choice(SITE, long)))
    finally:
        week.close()
