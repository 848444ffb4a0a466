from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.event import Event, Frame
from mallard.query.events import add_macros, show
from mallard.store.snapshot import Snapshot
from tests import oracle
from tests.factories import NOON_US, make_event
from tests.oracle import Stored
from tests.strategies import VISITED_EVENTS

Connection = duckdb.DuckDBPyConnection
MINUTE_US = 60_000_000
DAYS = ("2024-05-01", "2024-05-02", "2024-05-03")
PERIODS = st.sampled_from([(first, last) for first in DAYS for last in DAYS if first <= last])
STEPS = st.lists(
    st.sampled_from(["page:/", "page:/pricing", "pageview", "signup", "purchase"]),
    min_size=1,
    max_size=4,
)
EVENTS = st.lists(VISITED_EVENTS, max_size=30)


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with duckdb.connect() as connection:
        offer(connection, [])
        add_macros(connection)
        yield connection


def offer(connection: Connection, events: Sequence[Event]) -> None:
    """Make the views show these events."""
    frames = [Frame(position, 1, 1, [event]) for position, event in oracle.store(events)]
    show(connection, Snapshot(), lambda file: file.location, frames)


def ask(connection: Connection, query: str, *values: object) -> list[dict[str, Any]]:
    result = connection.execute(query, values)
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def within(events: Sequence[Event], since: str, until: str) -> list[Stored]:
    """What a report about example.com is about."""
    first, end = date.fromisoformat(since), date.fromisoformat(until)
    return [
        one
        for one in oracle.store(events)
        if one.event.site_id == "example.com" and first <= oracle.day_of(one.event) < end
    ]


def rounded(numbers: dict[str, Any]) -> dict[str, Any]:
    return {
        name: pytest.approx(value) if isinstance(value, float) else value
        for name, value in numbers.items()
    }


@settings(deadline=None, max_examples=25)
@given(EVENTS, PERIODS)
def test_totals_are_those_of_the_definitions(
    connection: Connection, events: list[Event], period: tuple[str, str]
) -> None:
    offer(connection, events)
    (found,) = ask(connection, "FROM totals('example.com', ?, ?)", *period)
    assert found == rounded(oracle.summary(within(events, *period)))


@settings(deadline=None, max_examples=25)
@given(EVENTS, PERIODS)
def test_a_series_has_every_day_and_its_numbers(
    connection: Connection, events: list[Event], period: tuple[str, str]
) -> None:
    offer(connection, events)
    found = ask(connection, "FROM timeseries('example.com', ?, ?)", *period)
    stored = within(events, *period)
    day, expected = date.fromisoformat(period[0]), []
    while day < date.fromisoformat(period[1]):
        numbers = oracle.summary([one for one in stored if oracle.day_of(one.event) == day])
        del numbers["views_per_visit"]
        expected.append({"date": day} | rounded(numbers))
        day += timedelta(days=1)
    assert found == expected


@settings(deadline=None, max_examples=25)
@given(EVENTS, st.sampled_from(["referrer_source", "entry_page", "screen_width", "bounce"]))
def test_a_breakdown_has_the_visits_of_each_value(
    connection: Connection, events: list[Event], dimension: str
) -> None:
    offer(connection, events)
    query = "FROM breakdown('example.com', '2024-05-01', '2024-05-03', ?)"
    found = ask(connection, query, dimension)
    groups: dict[Any, list[oracle.Visit]] = defaultdict(list)
    for visit in oracle.visits(within(events, "2024-05-01", "2024-05-03")):
        groups[visit.row()[dimension]].append(visit)
    expected = {value: rounded(oracle.visit_numbers(visits)) for value, visits in groups.items()}
    assert {row.pop("value"): row for row in found} == expected
    assert [row["visitors"] for row in found] == sorted(
        (row["visitors"] for row in found), reverse=True
    )


@settings(deadline=None, max_examples=25)
@given(EVENTS)
def test_pages_have_their_visitors_and_views(connection: Connection, events: list[Event]) -> None:
    offer(connection, events)
    found = ask(connection, "FROM pages('example.com', '2024-05-01', '2024-05-03')")
    stored = within(events, "2024-05-01", "2024-05-03")
    views = [event for _, event in stored if event.event_type == "page"]
    visitors = {
        (event.pathname, oracle.day_of(event), event.visitor_id)
        for event in views
        if event.visitor_id is not None
    }
    who = Counter(pathname for pathname, _, _ in visitors)
    expected = [
        {"pathname": pathname, "visitors": who[pathname], "pageviews": count}
        for pathname, count in Counter(event.pathname for event in views).items()
    ]
    assert sorted(found, key=str) == sorted(expected, key=str)


@settings(deadline=None, max_examples=40)
@given(EVENTS, STEPS)
def test_a_funnel_counts_visits_that_did_its_steps_in_their_order(
    connection: Connection, events: list[Event], steps: list[str]
) -> None:
    offer(connection, events)
    query = "FROM funnel('example.com', '2024-05-01', '2024-05-03', ?)"
    found = ask(connection, query, steps)
    reached = oracle.funnel(within(events, "2024-05-01", "2024-05-03"), steps)
    assert [row["step"] for row in found] == list(range(1, len(steps) + 1))
    assert [row["name"] for row in found] == steps
    assert [row["visits"] for row in found] == reached
    assert [row["percent"] for row in found] == [
        oracle.percent(visits, reached[0]) for visits in reached
    ]


def test_a_funnel_takes_steps_in_their_order_within_one_visit(
    connection: Connection,
) -> None:
    paths = [("/", 0, 1), ("/pricing", 1, 1), ("/pricing", 0, 2), ("/", 1, 2), ("/pricing", 50, 2)]
    events = [
        make_event(pathname=path, timestamp=NOON_US + minute * MINUTE_US, visitor_id=visitor)
        for path, minute, visitor in paths
    ]
    offer(connection, events)
    query = "FROM funnel('example.com', '2024-05-01', '2024-05-02', ?)"
    assert connection.execute(query, [["page:/", "page:/pricing"]]).fetchall() == [
        (1, "page:/", 2, 100.0),
        (2, "page:/pricing", 1, 50.0),
    ]


def test_visitors_and_bounce_rate_go_with_any_grouping(
    connection: Connection,
) -> None:
    events = [
        make_event(visitor_id=1, country_code="DE"),
        make_event(visitor_id=2, country_code="DE"),
        make_event(visitor_id=2, country_code="DE"),
        make_event(visitor_id=3, country_code="FR"),
        make_event(visitor_id=None, country_code="FR"),
    ]
    offer(connection, events)
    by_country = connection.execute(
        "SELECT country_code, visitors(visitor_id, started_at), bounce_rate(bounce) "
        "FROM sessions GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    of_events = connection.execute(
        "SELECT country_code, visitors(visitor_id, timestamp) FROM events GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    nothing = connection.execute(
        "SELECT visitors(visitor_id, started_at), bounce_rate(bounce) FROM sessions WHERE false"
    ).fetchall()
    assert by_country == [("DE", 2, 50.0), ("FR", 1, 100.0)]
    assert of_events == [("DE", 2), ("FR", 1)]
    assert nothing == [(0, None)]
