from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.event import ARROW_SCHEMA, Event, Frame, to_table
from mallard.query.sessions import SESSION_SCHEMA, annotated, visits
from mallard.query.sql import Sql
from tests import oracle
from tests.factories import NOON_US, make_event
from tests.oracle import Stored
from tests.strategies import VISITED_EVENTS

MINUTE_US = 60_000_000
MIDNIGHT_US = NOON_US + 12 * 60 * MINUTE_US


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def offer(connection: duckdb.DuckDBPyConnection, stored: Sequence[Stored]) -> Sql:
    """Register events, and return the query for them."""
    frames = [Frame(position, 1, 1, (event,)) for position, event in stored]
    connection.register("stored", to_table(frames))
    return Sql("SELECT * FROM stored")


def find_visits(
    connection: duckdb.DuckDBPyConnection, stored: Sequence[Stored]
) -> list[dict[str, Any]]:
    query = visits(annotated(offer(connection, stored)))
    return [
        dict(zip(SESSION_SCHEMA.names, row, strict=True))
        for row in connection.execute(f"{query} ORDER BY ALL").fetchall()
    ]


def number_visits(connection: duckdb.DuckDBPyConnection, *events: Event) -> dict[int, int | None]:
    """The visit of each event by its position, which counts from 1."""
    query = annotated(offer(connection, oracle.store(events)))
    return dict(connection.execute(f"SELECT position, visit FROM ({query})").fetchall())


def engagement(**values: Any) -> Event:
    return make_event(event_name="engagement", event_type="engagement", interactive=False, **values)


def test_thirty_minutes_of_rest_stay_in_the_visit_and_a_microsecond_more_ends_it(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    at = (NOON_US, NOON_US + 30 * MINUTE_US, NOON_US + 60 * MINUTE_US + 1)
    found = number_visits(connection, *(make_event(timestamp=us) for us in at))
    assert found == {1: 1, 2: 1, 3: 2}


def test_an_engagement_report_keeps_a_visit_alive_but_starts_none(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    minutes = {"early": -50, "first": 0, "alive": 25, "second": 50, "late": 200, "third": 231}
    at = {name: NOON_US + minute * MINUTE_US for name, minute in minutes.items()}
    found = number_visits(
        connection,
        engagement(timestamp=at["early"]),
        make_event(timestamp=at["first"]),
        engagement(timestamp=at["alive"]),
        make_event(timestamp=at["second"]),
        engagement(timestamp=at["late"]),
        make_event(timestamp=at["third"]),
    )
    assert found == {1: None, 2: 1, 3: 1, 4: 1, 5: 1, 6: 2}


def test_the_first_visit_is_number_one_also_just_after_an_engagement_report(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    found = number_visits(
        connection, engagement(timestamp=NOON_US), make_event(timestamp=NOON_US + MINUTE_US)
    )
    assert found == {1: None, 2: 1}


def test_no_visit_crosses_midnight_or_holds_two_visitors_or_sites(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    stored = oracle.store(
        [
            make_event(timestamp=MIDNIGHT_US - 1),
            make_event(timestamp=MIDNIGHT_US),
            make_event(timestamp=MIDNIGHT_US, visitor_id=2),
            make_event(timestamp=MIDNIGHT_US, site_id="example.org"),
            make_event(timestamp=MIDNIGHT_US, visitor_id=None),
        ]
    )
    found = find_visits(connection, stored)
    assert [(row["visit"], row["events"], row["first_position"]) for row in found] == [
        (1, 1, 1),
        (1, 1, 2),
        (1, 1, 3),
        (1, 1, 4),
    ]


def test_events_of_one_instant_are_in_the_order_of_their_positions(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    pages = [make_event(pathname=f"/{number}", referrer=f"from {number}") for number in range(9)]
    for order in ([4, 9, 5, 2, 8, 6, 7, 3, 1], [1, 2, 3, 4, 5, 6, 7, 8, 9]):
        stored = [Stored(position, pages[position - 1]) for position in order]
        (visit,) = find_visits(connection, stored)
        assert (visit["entry_page"], visit["exit_page"]) == ("/0", "/8")
        assert visit["referrer"] == "from 0"


@pytest.mark.parametrize("name", oracle.TAKEN)
def test_what_the_first_event_does_not_tell_is_not_taken_from_a_later_one(
    name: str, connection: duckdb.DuckDBPyConnection
) -> None:
    value: object = 1920 if name == "screen_width" else "known"
    first, second = make_event(**{name: None}), make_event(**{name: value})
    (visit,) = find_visits(connection, oracle.store([first, second]))
    assert visit[name] is None
    (visit,) = find_visits(connection, oracle.store([second, first]))
    assert visit[name] == value


def test_an_entry_page_that_is_not_known_is_not_taken_from_a_later_pageview(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    nowhere = make_event(pathname=None, hostname=None)
    (visit,) = find_visits(connection, oracle.store([nowhere, make_event(), nowhere]))
    pages = ("entry_page", "exit_page", "entry_hostname", "exit_hostname")
    assert [visit[name] for name in pages] == [None] * 4


def test_a_user_is_the_last_one_a_visit_tells_of(connection: duckdb.DuckDBPyConnection) -> None:
    events = [make_event(user_id=user) for user in (None, "ada", "bob", None)]
    (visit,) = find_visits(connection, oracle.store(events))
    assert visit["user_id"] == "bob"


@pytest.mark.parametrize(
    ("more", "bounce"),
    [
        ([], True),
        ([engagement()], True),
        ([make_event(event_type="track", interactive=False)], True),
        ([make_event(event_type="track")], False),
        ([make_event()], False),
    ],
    ids=["alone", "engagement", "not interactive", "interactive", "second pageview"],
)
def test_a_bounce_is_one_pageview_and_no_interactive_event(
    more: list[Event], bounce: bool, connection: duckdb.DuckDBPyConnection
) -> None:
    (visit,) = find_visits(connection, oracle.store([make_event(), *more]))
    assert visit["bounce"] is bounce


def test_a_visit_without_a_pageview_is_no_bounce_and_has_no_pages(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    (visit,) = find_visits(connection, oracle.store([make_event(event_type="track")]))
    assert (visit["bounce"], visit["pageviews"], visit["events"]) == (False, 0, 1)
    assert (visit["entry_page"], visit["exit_hostname"]) == (None, None)
    assert (visit["engaged_ms"], visit["revenue"]) == (None, None)


def test_money_is_summed_by_currency_to_the_cent(connection: duckdb.DuckDBPyConnection) -> None:
    money = [("0.10", "EUR"), ("0.20", "EUR"), ("-5", "USD"), ("7", None), (None, "GBP")]
    events = [
        make_event(
            revenue_amount=None if amount is None else Decimal(amount), revenue_currency=currency
        )
        for amount, currency in money
    ]
    (visit,) = find_visits(connection, oracle.store(events))
    assert visit["revenue"] == {"EUR": Decimal("0.30"), "USD": Decimal("-5.00")}


def test_sums_that_no_column_holds_are_null_and_stop_nothing(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    (visit,) = find_visits(
        connection, oracle.store([engagement(), *[make_event(engaged_ms=2**62)] * 3])
    )
    assert (visit["events"], visit["engaged_ms"]) == (3, None)


def test_a_visit_that_events_have_already_is_replaced(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    offer(connection, oracle.store([make_event(), make_event(visitor_id=None)]))
    query = annotated(Sql("SELECT *, 7::SMALLINT AS visit FROM stored"))
    rows = connection.sql(query).to_arrow_table()
    assert rows.schema.names == [*ARROW_SCHEMA.names, "visit"]
    assert rows.schema.field("visit").type == pa.int16()
    assert sorted(rows["visit"].to_pylist(), key=str) == [1, None]


def test_the_columns_of_visits_are_those_of_a_sessions_file(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    query = visits(annotated(offer(connection, oracle.store([make_event()]))))
    found = connection.sql(query).to_arrow_table()
    assert [(field.name, field.type) for field in found.schema] == [
        (field.name, field.type) for field in SESSION_SCHEMA
    ]
    assert found.cast(SESSION_SCHEMA).num_rows == 1
    assert SESSION_SCHEMA.metadata[b"mallard.sessions_version"] == b"1"


@settings(deadline=None)
@given(st.lists(VISITED_EVENTS, max_size=40), st.randoms(use_true_random=False))
def test_visits_are_those_of_the_definition(events: list[Event], random: Any) -> None:
    stored = oracle.store(events)
    random.shuffle(stored)  # late events: a part holds them in any order
    with duckdb.connect() as connection:
        query = annotated(offer(connection, stored))
        numbers = dict(connection.execute(f"SELECT position, visit FROM ({query})").fetchall())
        found = find_visits(connection, stored)
    assert numbers == oracle.visit_by_position(stored)
    expected = [visit.row() for visit in oracle.visits(stored)]
    assert sorted(found, key=name_of) == sorted(expected, key=name_of)


def name_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["site_id"], row["date"], row["visitor_id"], row["visit"])


@settings(deadline=None, max_examples=15)
@given(st.lists(VISITED_EVENTS, min_size=1, max_size=40))
def test_visits_of_site_days_add_up_to_those_of_all(events: list[Event]) -> None:
    stored = oracle.store(events)
    days = itertools.groupby(
        sorted(stored, key=lambda one: (one.event.site_id, oracle.day_of(one.event))),
        key=lambda one: (one.event.site_id, oracle.day_of(one.event)),
    )
    with duckdb.connect() as connection:
        whole = find_visits(connection, stored)
        parts = [row for _, day in days for row in find_visits(connection, list(day))]
    assert sorted(parts, key=name_of) == sorted(whole, key=name_of)
