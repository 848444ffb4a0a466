from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from datetime import UTC, date, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.event import Event
from mallard.query.dimensions import Dimension
from mallard.query.filters import Condition, Operator
from mallard.query.period import Period
from mallard.query.reports.attribution import (
    DIMENSIONS,
    Across,
    AttributionQuestion,
    Credit,
    Model,
    attribution,
)
from mallard.query.reports.chosen import Choice
from tests import oracle
from tests.factories import NOON_US, make_event
from tests.oracle import Stored, Visit, day_of
from tests.oracle_answers import fits, value_of
from tests.query.reports.laid import CHOICES, PERIODS, PHASES, One, again, asked, chosen, laid_out
from tests.query.test_answers import SITE, Room

Group = tuple[bool, Any]

BUYS = Condition(Dimension.NAME, Operator.IS, ("purchase",))
QUESTIONS = st.builds(
    AttributionQuestion,
    CHOICES,
    st.just(BUYS),
    st.sampled_from([Dimension.SOURCE, Dimension.UTM_SOURCE]),
    st.sampled_from(Model),
    st.sampled_from(Across),
)


def user_of(visit: Visit) -> str | None:
    user: str | None = visit.row()["user_id"]
    return user


def person_of(one: One, across: Across) -> Hashable:
    if across is Across.USER:
        return one.event.user_id or (user_of(one.visit) if one.visit else None)
    return None if one.event.visitor_id is None else (day_of(one.event), one.event.visitor_id)


def by_hand(stored: list[Stored], question: AttributionQuestion) -> dict[Group, Credit]:
    dates = {
        day
        for day in {day_of(one.event) for one in stored}
        if question.choice.period.start.astimezone(UTC).date() <= day
        and day <= _last_utc_day(question)
    }
    visits = [
        each
        for each in oracle.visits([one for one in stored if one.event.site_id == SITE])
        if each.pages and each.date in dates
    ]
    conversions: dict[Group, float] = defaultdict(float)
    people: dict[Group, set[Hashable]] = defaultdict(set)
    money: dict[Group, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one in chosen(stored, question.choice):
        if one.event.event_type == "engagement" or not fits(BUYS, one.event, one.visit):
            continue
        person = person_of(one, question.across)
        touches = [
            each
            for each in visits
            if person is not None
            and person
            == (user_of(each) if question.across is Across.USER else (each.date, each.visitor_id))
            and _key(each.events[0]) <= _key(one.stored)
        ]
        touches.sort(key=lambda each: _key(each.events[0]))
        owed = {
            Model.FIRST: touches[:1],
            Model.LAST: touches[-1:],
            Model.LINEAR: touches,
        }[question.model]
        groups: list[Group] = [
            (True, value_of(question.by, each.events[0].event, each)) for each in owed
        ] or [(False, None)]
        for group in groups:
            conversions[group] += 1 / len(groups)
            if person is not None:
                people[group].add(person)
            amount, currency = one.event.revenue_amount, one.event.revenue_currency
            if amount is not None and currency is not None:
                money[group][currency] += float(amount) / len(groups)
    return {
        group: Credit(
            group[0], group[1], count, len(people[group]), tuple(sorted(money[group].items()))
        )
        for group, count in conversions.items()
    }


def _last_utc_day(question: AttributionQuestion) -> date:
    end = question.choice.period.end.astimezone(UTC)
    return (end - timedelta(microseconds=1)).date()


def _key(stored: Stored) -> tuple[int, int]:
    return stored.event.timestamp, stored.position


@settings(max_examples=8, deadline=None)
@given(phases=PHASES, questions=st.lists(QUESTIONS, min_size=4, max_size=4), shifted=PERIODS)
def test_credit_is_what_plain_python_gives(
    phases: tuple[list[Event], ...], questions: list[AttributionQuestion], shifted: Period
) -> None:
    with laid_out(phases) as room:
        for question in again(questions, shifted):
            told = {(each.touched, each.value): each for each in asked(room, attribution, question)}
            expected = by_hand(room.events, question)
            assert told.keys() == expected.keys()
            for group, credit in expected.items():
                found = told[group]
                assert found.conversions == pytest.approx(credit.conversions)
                assert found.people == credit.people
                assert [each[0] for each in found.revenue] == [each[0] for each in credit.revenue]
                assert [each[1] for each in found.revenue] == pytest.approx(
                    [each[1] for each in credit.revenue]
                )
    assert Dimension.SOURCE in DIMENSIONS


def test_what_is_owed_in_parts_is_in_order_by_what_the_parts_come_to(tmp_path: Path) -> None:
    room = Room(tmp_path)
    minute_us, apart = 60_000_000, 31
    buys = {"event_name": "purchase", "event_type": "track"}
    events = [
        make_event(
            visitor_id=visitor,
            referrer_source="m" if number else "a",
            timestamp=NOON_US + number * apart * minute_us,
        )
        for visitor in range(1, 11)
        for number in range(10)
    ]
    events += [
        make_event(visitor_id=visitor, timestamp=NOON_US + 10 * apart * minute_us - 1, **buys)
        for visitor in range(1, 11)
    ]
    events += [
        make_event(visitor_id=99, referrer_source="z"),
        make_event(visitor_id=99, timestamp=NOON_US + 1, **buys),
    ]
    try:
        room.hold(events)
        day = Choice(SITE, Period.of_days(date(2024, 5, 1), date(2024, 5, 1), ZoneInfo("UTC")))
        question = AttributionQuestion(day, BUYS, Dimension.SOURCE, Model.LINEAR, Across.VISITOR)
        found = asked(room, attribution, question)
    finally:
        room.close()
    assert [each.value for each in found] == ["m", "a", "z"]
    assert [each.conversions for each in found] == pytest.approx([9, 1, 1])
    assert found[1].conversions < 1  # by a little
