"""What reports count of settled site-days is kept, and counted again only where it changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.event import Event
from mallard.query.dimensions import Dimension
from mallard.query.filters import Condition, Operator
from mallard.query.period import Period
from mallard.query.reports import journeys
from mallard.query.reports.attribution import Across, AttributionQuestion, Model, attribution
from mallard.query.reports.chosen import Choice
from mallard.query.reports.funnel import FunnelQuestion, funnel
from mallard.query.reports.journeys import Direction, FlowsQuestion, PathsQuestion
from mallard.query.reports.props import PropsQuestion, props
from mallard.query.reports.steps import Step
from mallard.query.site_days import SiteDays
from mallard.query.sql import Sql
from tests.factories import NOON_US, make_event
from tests.query.reports.laid import asked
from tests.query.test_answers import SITE, Room

ZONE = ZoneInfo("UTC")
MINUTE_US = 60_000_000


def page(path: str) -> Condition:
    return Condition(Dimension.PAGE, Operator.IS, (path,))


STEPS = (Step("page:/", page("/")), Step("page:/pricing", page("/pricing")))


def visit_of(day: int, visitor: int) -> list[Event]:
    """Return a visit to / and then to /pricing, on a day from 2024-05-01 on."""
    start = NOON_US + day * DAY_US + visitor * MINUTE_US
    return [
        make_event(visitor_id=visitor, pathname=path, timestamp=start + n, props='{"plan": "pro"}')
        for n, path in enumerate(("/", "/pricing"))
    ]


def days(first: int, last: int) -> Choice:
    return Choice(SITE, Period.of_days(date(2024, 5, first), date(2024, 5, last), ZONE))


def numbers(room: Room, first: int, last: int) -> list[int]:
    """Return what each report that is kept says of some days: as many as there are visits."""
    choice = days(first, last)
    (steps,) = asked(room, funnel, FunnelQuestion(choice, STEPS))
    (path,) = asked(room, journeys.paths, PathsQuestion(choice, 3, 10))
    flow = asked(room, journeys.flows, FlowsQuestion(choice, page("/"), Direction.AFTER, 1, 10))[0]
    (key,) = asked(room, props, PropsQuestion(choice, 10)).rows
    goal = Dimension.SOURCE, Model.LAST, Across.VISITOR
    (credit,) = asked(room, attribution, AttributionQuestion(choice, page("/pricing"), *goal))
    assert (path.of, flow.of, key.events) == (path.visits, flow.visits, 2 * key.visitors)
    assert steps.people == steps.units
    return [*steps.units, path.visits, flow.visits, key.visitors, int(credit.conversions)]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    for day in range(4):
        made.flush(visit_of(day, 1))
    made.settle(sum_up=False)
    yield made
    made.close()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What settled days were read, a list of them each time."""
    found: list[tuple[str, ...]] = []
    settled = SiteDays.settled

    def noticed(days: SiteDays, dates: tuple[str, ...]) -> tuple[Sql, Sql]:
        found.append(tuple(dates))
        return settled(days, dates)

    monkeypatch.setattr(SiteDays, "settled", noticed)
    return found


def test_a_shifted_period_reads_the_days_that_are_new(
    room: Room, read: list[tuple[str, ...]]
) -> None:
    assert numbers(room, 1, 3) == [3] * 6
    assert read == [("2024-05-01", "2024-05-02", "2024-05-03")] * 5
    read.clear()
    assert numbers(room, 2, 4) == [3] * 6
    assert read == [("2024-05-04",)] * 5
    read.clear()
    assert numbers(room, 1, 4) == [4] * 6
    assert numbers(room, 2, 4) == [3] * 6
    assert read == []


def test_a_day_that_changed_is_counted_again(room: Room, read: list[tuple[str, ...]]) -> None:
    numbers(room, 1, 4)
    read.clear()
    room.flush(visit_of(1, 2))
    assert numbers(room, 1, 4) == [5] * 6  # by now an open day
    assert read == []
    room.settle(sum_up=False)
    assert numbers(room, 1, 4) == [5] * 6
    assert read == [("2024-05-02",)] * 5


def test_part_of_a_day_is_not_taken_for_all_of_it(room: Room) -> None:
    auckland = ZoneInfo("Pacific/Auckland")  # its days end at noon UTC, with the first page
    local = Choice(SITE, Period.of_days(date(2024, 5, 2), date(2024, 5, 2), auckland))
    assert numbers(room, 1, 2) == [2] * 6
    (found,) = asked(room, funnel, FunnelQuestion(local, STEPS))
    assert found.units == (1, 1)
    start = days(1, 1).period.start
    morning = Choice(SITE, Period(start, start.replace(hour=12), ZONE))
    (found,) = asked(room, funnel, FunnelQuestion(morning, STEPS))
    assert found.units == (0, 0)
