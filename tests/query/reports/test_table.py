from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from mallard.errors import InvalidInput
from mallard.query.dimensions import Dimension, Property
from mallard.query.filters import Condition, Operator
from mallard.query.period import Interval, Period
from mallard.query.reports.table import Goal, Metric, Money, Question, Table, ask
from tests.factories import NOON_US, make_event
from tests.query.test_answers import SITE, Room

MINUTE_US = 60_000_000
PERIOD = Period.of_days(date(2024, 5, 1), date(2024, 5, 3), ZoneInfo("UTC"))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    made.flush(
        [
            make_event(visitor_id=1, pathname="/", referrer_source="Google"),
            make_event(visitor_id=1, pathname="/pricing", timestamp=NOON_US + 2 * MINUTE_US),
            make_event(
                visitor_id=1,
                event_name="purchase",
                event_type="track",
                pathname="/pricing",
                timestamp=NOON_US + 3 * MINUTE_US,
                props='{"plan": "pro"}',
                revenue_amount=Decimal("99.00"),
                revenue_currency="EUR",
            ),
            make_event(visitor_id=2, pathname="/", timestamp=NOON_US + MINUTE_US),
        ]
    )
    made.settle(sum_up=True)
    made.hold(
        [
            make_event(
                visitor_id=3,
                event_name="purchase",
                event_type="track",
                timestamp=NOON_US + 86_400_000_000,
                pathname="/",
                revenue_amount=Decimal("1.50"),
                revenue_currency="USD",
            )
        ]
    )
    yield made
    made.close()


def answer(room: Room, *metrics: Metric, **asked: object) -> Table:
    question = Question(SITE, PERIOD, metrics, **asked)  # type: ignore[arg-type]
    return room.engine.submit(lambda session: ask(session, room.answers, question)).result(30)


def test_a_summary_is_one_row(room: Room) -> None:
    metrics = [each for each in Metric if each is not Metric.REVENUE]
    (row,) = answer(room, *metrics).rows
    found = dict(zip([each.value for each in metrics], row.metrics, strict=True))
    assert found == {
        "visitors": 3,
        "visits": 3,
        "pageviews": 3,
        "events": 5,
        "entries": 2,
        "exits": 2,
        "views_per_visit": 1.0,
        "bounce_rate": 33,
        "entry_bounce_rate": 50,
        "visit_duration": 60,
        "time_on_page": None,
        "scroll_depth": None,
        "exit_rate": 66.7,
    }


def test_a_breakdown_is_ordered_paged_and_counted(room: Room) -> None:
    table = answer(
        room, Metric.VISITORS, by=(Dimension.PAGE,), order=(("visitors", True),), limit=1
    )
    assert [(row.values, row.metrics) for row in table.rows] == [(("/",), (3,))]
    assert table.total_rows == 2
    table = answer(
        room, Metric.VISITORS, by=(Dimension.PAGE,), order=(("visitors", True),), offset=1
    )
    assert [row.values for row in table.rows] == [("/pricing",)]
    with pytest.raises(InvalidInput, match="'pageviews' is neither"):
        answer(room, Metric.VISITORS, order=(("pageviews", True),))


def test_a_series_has_its_buckets_whether_or_not_they_have_rows(room: Room) -> None:
    table = answer(room, Metric.VISITORS, interval=Interval.DAY, order=(("time", False),))
    told = [(row.bucket.label.date().isoformat(), row.metrics) for row in table.rows if row.bucket]
    assert told == [("2024-05-01", (2,)), ("2024-05-02", (1,))]
    assert len(table.buckets) == 3


def test_money_of_two_currencies_is_never_added(room: Room) -> None:
    (row,) = answer(room, Metric.REVENUE).rows
    assert row.metrics == ((Money("EUR", Decimal("99.00"), 1), Money("USD", Decimal("1.50"), 1)),)


def test_goals_are_groups_of_their_conversions(room: Room) -> None:
    pro = Condition(Property("plan"), Operator.IS, ("pro",))
    goals = (
        Goal("Pricing seen", Condition(Dimension.PAGE, Operator.IS, ("/pricing",))),
        Goal("Pro", pro),
    )
    table = answer(room, Metric.VISITORS, Metric.EVENTS, by=(Dimension.SOURCE,), goals=goals)
    assert [(row.goal, row.values, row.metrics) for row in table.rows] == [
        ("Pricing seen", ("Google",), (1, 2)),
        ("Pro", ("Google",), (1, 1)),
    ]


def test_nothing_is_an_empty_table_and_no_zero(room: Room) -> None:
    nobody = Condition(Dimension.PAGE, Operator.IS, ("/nowhere",))
    table = answer(room, Metric.VISITORS, keep=nobody)
    assert (table.rows, table.total_rows) == ([], 0)
