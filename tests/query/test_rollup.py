from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.event import Event, Frame, to_table
from mallard.query.dimensions import Dimension
from mallard.query.metrics import Quantity, Ratio
from mallard.query.period import Slice, slices_of_date
from mallard.query.rollup import ROLLUP_ORDER, ROLLUP_SCHEMA, make_rollup, sums
from mallard.query.sessions import annotated, visits
from mallard.query.sql import Sql
from tests import oracle, oracle_rollup
from tests.factories import NOON_US, make_event
from tests.oracle import Stored
from tests.oracle_rollup import Key, Numbers
from tests.strategies import VISITED_EVENTS

MINUTE_US = 60_000_000
ZONES = ["UTC", "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"]
TUPLES = {"visit:browser_version", "visit:os_version", "visit:region", "visit:city"}
# Few of each, so that they meet.
SEEN_EVENTS = st.builds(
    lambda event, extra: event._replace(**extra),
    VISITED_EVENTS,
    st.fixed_dictionaries(
        {
            "scroll_depth": st.sampled_from([None, 0, 40, 100]),
            "browser": st.sampled_from([None, "Chrome", 'a "quoted" one']),
            "browser_version": st.sampled_from([None, "", "12"]),
            "region": st.sampled_from([None, "DE-BE"]),
            "city": st.sampled_from([None, "Berlin", "Zürich\x7f/\\"]),
            "screen_width": st.sampled_from([None, 0, 575, 576, 991, 992, 1439, 1440]),
            "channel": st.sampled_from(["Direct", "Referral"]),
        }
    ),
)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")  # of a few rows, threads cost more than they save
        yield connection


def offer(connection: duckdb.DuckDBPyConnection, stored: Sequence[Stored]) -> tuple[Sql, Sql]:
    """Register events, and return queries for them, annotated, and for their visits."""
    frames = [Frame(position, 1, 1, (event,)) for position, event in stored]
    connection.register("stored", to_table(frames))
    query = annotated(Sql("SELECT * FROM stored"))
    connection.execute(f"CREATE OR REPLACE TEMP TABLE annotated AS {query}")
    of_events = Sql("SELECT * FROM annotated")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE visited AS {visits(of_events)}")
    return of_events, Sql("SELECT * FROM visited")


def roll_up(
    connection: duckdb.DuckDBPyConnection,
    stored: Sequence[Stored],
    cut: Sequence[tuple[str, Slice]] = (),
    turns: int = 1,
) -> dict[Key, Numbers]:
    make_rollup(connection, Sql("sums"), *offer(connection, stored), cut, turns)
    rows = connection.execute(f"SELECT {', '.join(ROLLUP_SCHEMA.names)} FROM sums").fetchall()
    connection.execute("DROP TABLE sums")
    found = to_numbers(rows)
    assert len(found) == len(rows)  # no value has two rows
    return found


def to_numbers(rows: Sequence[tuple[Any, ...]]) -> dict[Key, Numbers]:
    quantities = [each.value for each in Quantity]
    return {read_key(*row[:5]): dict(zip(quantities, row[5:], strict=True)) for row in rows}


def read_key(site_id: str, date: Any, dimension: str, value: str, currency: str | None) -> Key:
    read = tuple(json.loads(value)) if dimension in TUPLES else value
    return Key(site_id, date, dimension, read, currency)


def of_events(
    connection: duckdb.DuckDBPyConnection, dimension: str, *events: Event
) -> dict[Any, Numbers]:
    """The sums of one site-day's events by the values of a dimension, and by currency."""
    found = roll_up(connection, oracle.store(events))
    return {
        key.value if key.currency is None else (key.value, key.currency): numbers
        for key, numbers in found.items()
        if key.dimension == dimension
    }


def pick(numbers: Numbers, *names: str) -> tuple[Any, ...]:
    return tuple(numbers[name] for name in names)


# A rollup is some thirty statements: large examples cost little more than small ones.
@settings(max_examples=20, deadline=None)
@given(
    events=st.lists(SEEN_EVENTS, max_size=40),
    turns=st.sampled_from([1, 1, 3]),
    zone=st.sampled_from(ZONES),
)
def test_every_sum_is_what_plain_python_counts(
    connection: duckdb.DuckDBPyConnection, events: list[Event], turns: int, zone: str
) -> None:
    stored = oracle.store(events)
    days = {(event.site_id, oracle.day_of(event).isoformat()) for event in events}
    cut = [
        (site_id, piece)
        for site_id, day in days
        for piece in slices_of_date(day, ZoneInfo(zone))
        if not piece.is_whole
    ]
    assert roll_up(connection, stored, cut, turns) == oracle_rollup.rollup(stored, cut)


@settings(max_examples=20, deadline=None)
@given(st.lists(SEEN_EVENTS, max_size=40), st.sampled_from(Dimension))
def test_one_dimension_asked_for_has_the_sums_it_has_among_all(
    connection: duckdb.DuckDBPyConnection, events: list[Event], dimension: Dimension
) -> None:
    stored = oracle.store(events)
    query = sums(dimension, *offer(connection, stored))
    expected = oracle_rollup.rollup(stored)
    assert to_numbers(connection.execute(query).fetchall()) == {
        key: numbers for key, numbers in expected.items() if key.dimension == dimension.value
    }


@settings(max_examples=10, deadline=None)
@given(st.lists(SEEN_EVENTS, max_size=40))
def test_what_lies_in_one_value_only_adds_up_to_the_total(
    connection: duckdb.DuckDBPyConnection, events: list[Event]
) -> None:
    found = roll_up(connection, oracle.store(events))
    total = {key[:2] + key[4:]: numbers for key, numbers in found.items() if key[2] == "total"}
    for dimension in Dimension:
        of_events = ("pageviews", "events", "engaged_ms", "revenue_amount", "revenue_events")
        of_visits = ("visits", "bounces", "duration_ms", "entries", "exits", "scroll_sum")
        whole = (*of_events, *of_visits) if dimension.scope == "visit" else of_events
        added = {
            where: {
                name: None
                if numbers[name] is None
                else sum(
                    each[name]
                    for key, each in found.items()
                    if key.dimension == dimension.value and key[:2] + key[4:] == where
                )
                for name in whole
            }
            for where, numbers in total.items()
        }
        assert added == {
            where: {name: numbers[name] for name in whole} for where, numbers in total.items()
        }


def test_the_columns_are_those_of_the_schema(connection: duckdb.DuckDBPyConnection) -> None:
    make_rollup(connection, Sql("sums"), *offer(connection, oracle.store([make_event()])))
    table = connection.sql(f"SELECT * FROM sums ORDER BY {ROLLUP_ORDER}").to_arrow_table()
    connection.execute("DROP TABLE sums")
    assert table.schema.names == ROLLUP_SCHEMA.names
    assert table.schema.types == ROLLUP_SCHEMA.types
    assert ROLLUP_SCHEMA.metadata[b"mallard.rollup_version"] == b"2"
    dimensions = table["dimension"].to_pylist()
    assert dimensions == sorted(each.value for each in Dimension)


def test_a_visitor_on_two_pages_is_one_of_each_and_one_in_all(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    events = [make_event(pathname="/a"), make_event(pathname="/b"), make_event(pathname="/a")]
    pages = of_events(connection, "event:page", *events)
    total = of_events(connection, "total", *events)
    names = ("visitors", "visits", "pageviews", "visit_pageviews")
    assert {value: pick(numbers, *names) for value, numbers in pages.items()} == {
        "/a": (1, 1, 2, 3),
        "/b": (1, 1, 1, 3),
    }
    assert pick(total[""], *names) == (1, 1, 3, 3)


def test_a_page_bounces_those_who_entered_there(connection: duckdb.DuckDBPyConnection) -> None:
    pages = of_events(
        connection,
        "event:page",
        make_event(pathname="/a", visitor_id=1),
        make_event(pathname="/a", visitor_id=2, timestamp=NOON_US),
        make_event(pathname="/b", visitor_id=2, timestamp=NOON_US + MINUTE_US),
        make_event(pathname="/b", visitor_id=3),
    )
    names = ("visits", "bounces", "entries", "entry_bounces", "exits", "duration_ms")
    assert pick(pages["/a"], *names) == (2, 1, 2, 1, 1, 60_000)
    assert pick(pages["/b"], *names) == (2, 1, 1, 1, 2, 60_000)


def test_views_of_nobody_are_counted_as_views_and_not_as_visits(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    sources = of_events(
        connection,
        "visit:source",
        make_event(visitor_id=None, referrer_source="Google"),
        make_event(visitor_id=None, referrer_source="Google"),
        make_event(visitor_id=4, referrer_source="Google"),
    )
    names = ("pageviews", "anonymous_pageviews", "visitors", "visits", "visit_pageviews")
    assert pick(sources["Google"], *names) == (3, 2, 1, 1, 1)


def test_time_and_scroll_are_of_each_page_and_visit(connection: duckdb.DuckDBPyConnection) -> None:
    def report(**values: Any) -> Event:
        return make_event(event_name="engagement", event_type="engagement", **values)

    events = [
        make_event(pathname="/a"),
        report(pathname="/a", engaged_ms=4_000, scroll_depth=30),
        report(pathname="/a", engaged_ms=1_000, scroll_depth=80),
        make_event(pathname="/b"),
        report(pathname="/b", engaged_ms=2_000, scroll_depth=20),
        make_event(pathname="/a", visitor_id=2),
        report(pathname="/a", visitor_id=2, scroll_depth=10),
        make_event(pathname="/a", visitor_id=3),
    ]
    names = ("engaged_ms", "engaged_pages", "scroll_sum", "scroll_pages")
    pages = of_events(connection, "event:page", *events)
    assert pick(pages["/a"], *names) == (5_000, 1, 90, 2)
    assert pick(pages["/b"], *names) == (2_000, 1, 20, 1)
    assert pick(of_events(connection, "total", *events)[""], *names) == (7_000, 2, 110, 3)


def test_money_of_two_currencies_is_never_added(connection: duckdb.DuckDBPyConnection) -> None:
    total = of_events(
        connection,
        "total",
        make_event(revenue_amount=Decimal("9.99"), revenue_currency="EUR"),
        make_event(revenue_amount=Decimal("0.01"), revenue_currency="EUR", visitor_id=None),
        make_event(revenue_amount=Decimal("5.00"), revenue_currency="USD"),
        make_event(revenue_amount=Decimal("7.00"), revenue_currency=None),
    )
    names = ("revenue_amount", "revenue_events", "pageviews")
    assert pick(total["", "EUR"], *names) == (Decimal("10.00"), 2, None)
    assert pick(total["", "USD"], *names) == (Decimal("5.00"), 1, None)
    assert pick(total[""], *names) == (None, None, 4)


@pytest.mark.parametrize(
    ("ratio", "numbers", "expected"),
    [
        (Ratio.BOUNCE_RATE, "1 AS bounces, 4 AS visits", 0.25),
        (Ratio.BOUNCE_RATE, "0 AS bounces, 0 AS visits", None),
        (Ratio.EXIT_RATE, "1 AS exits, 5 AS pageviews, 3 AS anonymous_pageviews", 0.5),
        (Ratio.AVERAGE_REVENUE, "NULL AS revenue_amount, NULL AS revenue_events", None),
    ],
)
def test_a_rate_is_null_where_nothing_is_to_be_divided(
    ratio: Ratio, numbers: str, expected: float | None, connection: duckdb.DuckDBPyConnection
) -> None:
    row = connection.execute(f"SELECT {ratio.sql} FROM (SELECT {numbers})").fetchone()
    assert row == (expected,)
