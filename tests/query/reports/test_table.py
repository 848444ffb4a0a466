from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from unittest import mock
from zoneinfo import ZoneInfo

import pytest

from mallard.errors import InvalidInput, QueryTooLarge
from mallard.query.dimensions import Dimension, Property
from mallard.query.filters import Condition, Operator
from mallard.query.period import Interval, Period
from mallard.query.reports import table
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


def test_of_some_groups_alone_there_are_rows_where_there_is_anything_of_them(room: Room) -> None:
    groups = ((0, None, ("/",)), (0, None, (None,)))
    table = answer(room, Metric.VISITORS, Metric.REVENUE, by=(Dimension.PAGE,), groups=groups)
    dollars = (Money("USD", Decimal("1.50"), 1),)
    assert [(row.values, row.metrics) for row in table.rows] == [(("/",), (3, dollars))]
    nothing = answer(room, Metric.VISITORS, by=(Dimension.PAGE,), groups=())
    assert nothing.rows == []


def test_rows_are_ordered_by_the_money_of_one_currency_and_the_last_part_of_a_value(
    room: Room,
) -> None:
    events = [
        make_event(country_code=country, city=city, timestamp=NOON_US, visitor_id=n)
        for n, (country, city) in enumerate([("DE", "Ulm"), ("FR", "Albi"), ("FR", None)], 10)
    ]
    earned = [
        (("EUR", "7.00"),),
        (("EUR", "1.50"), ("EUR", "1.50"), ("EUR", "7.50")),
        (("EUR", "9.00"), ("USD", "9.00")),
    ]
    room.hold(
        [
            event._replace(revenue_amount=Decimal(amount), revenue_currency=currency)
            for event, brought in zip(events, earned, strict=True)
            for currency, amount in brought
        ]
    )
    is_new = Condition(Dimension.COUNTRY, Operator.IS, ("DE", "FR"))
    orders = {"visit:city": ["Albi", "Ulm", None], "total_revenue": ["Ulm", "Albi", None]}
    orders["average_revenue"] = ["Albi", "Ulm", None]
    for name, expected in orders.items():
        table = answer(
            room,
            Metric.REVENUE,
            by=(Dimension.CITY,),
            keep=is_new,
            order=((name, False),),
        )
        assert [json.loads(row.values[0] or "")[-1] for row in table.rows] == expected, name


def test_more_rows_than_python_is_to_hold_are_refused_but_for_pages_of_them(room: Room) -> None:
    with mock.patch.object(table, "ROWS_MAX", 1):
        with pytest.raises(QueryTooLarge, match=r"has 2 groups; .* at most 1\."):
            answer(room, Metric.VISITORS, by=(Dimension.PAGE,))
        page = answer(room, Metric.VISITORS, by=(Dimension.PAGE,), limit=2)
        assert len(page.rows) == page.total_rows == 2


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
