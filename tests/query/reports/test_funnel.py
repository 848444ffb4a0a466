from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Sequence
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.clock import to_datetime
from mallard.event import Event
from mallard.query.dimensions import Dimension, Property
from mallard.query.period import Period
from mallard.query.plausible.filtering import Context
from mallard.query.reports.chosen import Choice, percent
from mallard.query.reports.funnel import Funnel, FunnelQuestion, Within, funnel
from mallard.query.reports.steps import read_steps
from mallard.site import Goal
from tests.factories import NOON_US, make_event
from tests.oracle import Stored, day_of
from tests.oracle_answers import fits, value_of
from tests.query.reports.laid import CHOICES, PERIODS, PHASES, One, again, asked, chosen, laid_out
from tests.query.test_answers import SITE, Room

UTC = ZoneInfo("UTC")
MINUTE_US = 60_000_000
CONTEXT = Context(
    UTC,
    to_datetime(NOON_US),
    goals=(Goal(1, SITE, "Pro", event_name="signup", props=(("plan", "pro"),)),),
)
PERIOD = Period.of_days(date(2024, 5, 1), date(2024, 5, 2), UTC)


def question(steps: str, **asked: object) -> FunnelQuestion:
    given = {"choice": Choice(SITE, PERIOD), **asked}
    return FunnelQuestion(steps=read_steps(steps, CONTEXT, least=1, most=20), **given)  # type: ignore[arg-type]


def brute_force(stored: Sequence[Stored], asked: FunnelQuestion) -> dict[object, Funnel]:
    """Try every way to take the steps."""
    units: dict[Hashable, list[One]] = defaultdict(list)
    for one in chosen(stored, asked.choice):
        unit = _unit(one, asked.within)
        if unit is not None and one.event.event_type != "engagement":
            units[unit].append(one)
    people: dict[object, list[set[Hashable]]] = {}
    reached: dict[object, list[int]] = {}
    for unit, ones in units.items():
        first = next((one for one in ones if _is(one, asked, 0)), None)
        if first is None:
            continue
        value = value_of(asked.by, first.event, first.visit) if asked.by else None
        counts = reached.setdefault(value, [0] * len(asked.steps))
        persons = people.setdefault(value, [set() for _ in asked.steps])
        for n in range(len(asked.steps)):
            if any(_is_way(way, asked) for way in itertools.combinations(ones, n + 1)):
                counts[n] += 1
                persons[n].add(unit[:2] if asked.within is Within.VISIT else unit)  # type: ignore[index]
    found = {
        value: Funnel(value, tuple(map(len, people[value])), tuple(counts))  # type: ignore[arg-type]
        for value, counts in reached.items()
    }
    if asked.by is None and not found:
        nothing = (0,) * len(asked.steps)
        return {None: Funnel(None, nothing, nothing)}
    return found


def _unit(one: One, within: Within) -> Hashable:
    event = one.event
    if within is Within.USER:
        return event.user_id
    if event.visitor_id is None or (within is Within.VISIT and one.visit is None):
        return None
    day = (day_of(event), event.visitor_id)
    return (*day, one.visit.visit) if within is Within.VISIT and one.visit else day


def _is(one: One, asked: FunnelQuestion, step: int) -> bool:
    return fits(asked.steps[step].keep, one.event, one.visit)


def _is_way(way: Sequence[One], asked: FunnelQuestion) -> bool:
    took_us = way[-1].event.timestamp - way[0].event.timestamp
    in_time = asked.window_us is None or took_us <= asked.window_us
    return in_time and all(_is(one, asked, n) for n, one in enumerate(way))


QUESTIONS = st.builds(
    FunnelQuestion,
    CHOICES,
    st.sampled_from(
        [
            "page:/,page:/pricing",
            "page:/*,event:signup",
            "page:/**,page:/**,page:/**",
            "event:signup,page:/pricing,goal:Pro,event:purchase",
            "event:purchase,event:purchase",
        ]
    ).map(lambda text: read_steps(text, CONTEXT, least=2, most=20)),
    st.sampled_from(Within),
    st.sampled_from([None, 0, 10 * MINUTE_US, 60 * MINUTE_US]),
    st.sampled_from(
        [None, None, Dimension.SOURCE, Dimension.PAGE, Dimension.ENTRY_PAGE, Property("plan")]
    ),
)


@settings(max_examples=8, deadline=None)
@given(phases=PHASES, questions=st.lists(QUESTIONS, min_size=4, max_size=4), shifted=PERIODS)
def test_a_funnel_finds_who_took_the_steps_in_any_way(
    phases: tuple[list[Event], ...], questions: list[FunnelQuestion], shifted: Period
) -> None:
    with laid_out(phases) as room:
        for each in again(questions, shifted):
            told = asked(room, funnel, each)
            assert {one.value: one for one in told} == brute_force(room.events, each)


def at(minute: int, path: str, **values: object) -> Event:
    return make_event(pathname=path, timestamp=NOON_US + minute * MINUTE_US, **values)


def test_the_window_is_from_a_later_start_where_the_first_is_too_early(tmp_path: Path) -> None:
    room = Room(tmp_path)
    try:
        room.hold([at(0, "/"), at(20, "/"), at(21, "/pricing"), at(25, "/signup")])
        steps = "page:/,page:/pricing,page:/signup"
        for window, people in ((5, (1, 1, 1)), (4, (1, 1, 0)), (0, (1, 0, 0))):
            found = asked(room, funnel, question(steps, window_us=window * MINUTE_US))
            assert found == [Funnel(None, people, people)]
    finally:
        room.close()


def test_users_are_followed_across_days_and_twenty_steps_are_no_trouble(tmp_path: Path) -> None:
    room = Room(tmp_path)
    try:
        room.flush([at(minute, f"/{minute}", user_id="ada") for minute in range(10)])
        room.settle(sum_up=False)
        later = [
            at(1440 + minute, f"/{minute}", user_id="ada", visitor_id=9) for minute in range(10, 20)
        ]
        room.hold(later)
        steps = ",".join(f"page:/{n}" for n in range(20))
        (found,) = asked(room, funnel, question(steps, within=Within.USER))
        assert found.people == (1,) * 20
        (found,) = asked(room, funnel, question(steps, within=Within.VISITOR))
        assert found.people == (1,) * 10 + (0,) * 10
    finally:
        room.close()


def test_a_rate_of_nobody_does_not_exist() -> None:
    assert percent(1, 3) == 33.33
    assert percent(0, 0) is None
