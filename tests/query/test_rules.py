from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.errors import InvalidInput
from mallard.event import Event, Frame, to_table
from mallard.query.rules import (
    Condition,
    Definition,
    about,
    affected,
    apply,
    check_expressions,
    commute,
)
from mallard.query.sessions import SESSION_SCHEMA, annotated, visits
from mallard.query.sql import Sql
from mallard.store.snapshot import Rule
from tests import oracle
from tests.factories import NOON_US, make_event
from tests.oracle import Stored
from tests.strategies import VISITED_EVENTS

EVENTS = Sql("SELECT * FROM stored")


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def rule_of(definition: Definition, last_position: int = 2**62) -> Rule:
    text = orjson.dumps({"rule": definition.to_json()}).decode()
    return Rule("r", 0, last_position, text, frozenset())


def offer(connection: duckdb.DuckDBPyConnection, stored: Sequence[Stored]) -> None:
    frames = [Frame(position, 1, 1, (event,)) for position, event in stored]
    connection.register("stored", to_table(frames))


def left(connection: duckdb.DuckDBPyConnection, definition: Definition, *events: Event) -> set[int]:
    """The positions that a rule leaves, which count from 1."""
    offer(connection, oracle.store(events))
    query = f"SELECT position FROM ({apply(EVENTS, [rule_of(definition)])})"
    return {position for (position,) in connection.execute(query).fetchall()}


def said(column: str, operator: str, *values: str) -> Definition:
    return Definition(conditions=(Condition(column, operator, values),))


# Plain Python, to compare with ------------------------------------------------------------------


def holds(condition: Condition, event: Event) -> bool:
    value = getattr(event, condition.column)
    text = str(value).lower() if isinstance(value, bool) else None if value is None else str(value)
    if condition.operator == "is_not":
        return text not in condition.values
    if text is None:
        return False
    if condition.operator == "is":
        return text in condition.values
    if condition.operator == "contains":
        return any(each in text for each in condition.values)
    return any(re.search(each, text) for each in condition.values)


def is_meant(definition: Definition, event: Event) -> bool:
    day = oracle.day_of(event).isoformat()
    return (
        definition.site_id in {None, event.site_id}
        and (definition.first_date or "") <= day
        and day <= (definition.last_date or "9")
        and all(holds(each, event) for each in definition.conditions)
    )


def after(rules: Sequence[Rule], stored: Sequence[Stored]) -> list[Stored]:
    found = list(stored)
    for rule in rules:
        definition = Definition.from_json(orjson.loads(rule.definition)["rule"])
        changed = []
        for position, event in found:
            meant = position <= rule.last_position and is_meant(definition, event)
            new: tuple[str | None, ...] | None = ()
            if meant and definition.drops:
                continue
            if meant and not definition.drops:
                key = tuple(getattr(event, column) for column in definition.keys)
                new = definition.mapping.get(key)
            values: dict[str, Any] = dict(zip(definition.columns, new or (), strict=False))
            changed.append(Stored(position, event._replace(**values)))
        found = changed
    return found


_VALUES = {
    "user_id": ["ada", "bob", "a"],
    "pathname": ["/", "/pricing", "pri", "^/s", "g$"],
    "country_code": ["DE", "FR"],
    "event_type": ["page", "engagement"],
    "referrer_source": ["Google", "oo", "x"],
}
_CONDITIONS = st.one_of(
    *(
        st.builds(
            Condition,
            st.just(column),
            st.sampled_from(["is", "is_not", "contains", "matches"]),
            st.lists(st.sampled_from(values), min_size=1, max_size=2).map(tuple),
        )
        for column, values in _VALUES.items()
    ),
    st.builds(Condition, st.just("visitor_id"), st.just("is"), st.just(("-7",))),
    st.builds(Condition, st.just("interactive"), st.just("is_not"), st.just(("true",))),
)
_SITES = st.sampled_from([None, "example.com", "it's/a=site"])
_DROPS = st.builds(
    Definition,
    _SITES,
    st.sampled_from([None, "2024-05-01", "2024-05-02"]),
    st.sampled_from([None, "2024-05-02"]),
    st.lists(_CONDITIONS, min_size=1, max_size=2).map(tuple),
)
_REPLACES = st.builds(
    Definition,
    _SITES,
    keys=st.just(("referrer_source", "utm_source")),
    columns=st.just(("referrer_source", "channel")),
    mapping=st.fixed_dictionaries(
        {
            ("Google", None): st.just(("Google News", "Organic Search")),
            ("Google", "news"): st.just((None, None)),
            (None, None): st.just(("it's", "Referral")),
        }
    ),
)
_RULES = st.lists(
    st.builds(rule_of, st.one_of(_DROPS, _REPLACES), st.integers(0, 40)), min_size=1, max_size=3
)


@settings(deadline=None, max_examples=30)
@given(st.lists(VISITED_EVENTS, max_size=40), _RULES)
def test_visits_after_rules_are_those_of_the_events_that_plain_python_leaves(
    connection: duckdb.DuckDBPyConnection, events: list[Event], rules: list[Rule]
) -> None:
    stored = oracle.store(events)
    expected = after(rules, stored)
    offer(connection, stored)
    query = visits(annotated(apply(EVENTS, rules)))
    rows = connection.execute(query).fetchall()
    found = [dict(zip(SESSION_SCHEMA.names, row, strict=True)) for row in rows]
    positions = connection.execute(f"SELECT position FROM ({apply(EVENTS, rules)})").fetchall()
    assert sorted(position for (position,) in positions) == [each.position for each in expected]

    def name(row: dict[str, Any]) -> tuple[Any, ...]:
        return (row["site_id"], row["date"], row["visitor_id"], row["visit"])

    wanted = [visit.row() for visit in oracle.visits(expected)]
    assert sorted(found, key=name) == sorted(wanted, key=name)


@settings(deadline=None, max_examples=30)
@given(st.lists(VISITED_EVENTS, max_size=20), st.one_of(_DROPS, _REPLACES), st.integers(0, 20))
def test_what_a_rule_was_applied_to_has_nothing_left_that_it_would_change(
    connection: duckdb.DuckDBPyConnection,
    events: list[Event],
    definition: Definition,
    last_position: int,
) -> None:
    rule = rule_of(definition, last_position)
    stored = oracle.store(events)
    offer(connection, stored)
    would = connection.execute(f"SELECT position FROM ({affected(EVENTS, rule)})").fetchall()
    again = connection.execute(
        f"SELECT count(*) FROM ({affected(apply(EVENTS, [rule]), rule)})"
    ).fetchall()
    kept = dict(after([rule], stored))
    assert {position for (position,) in would} == {
        position for position, event in stored if kept.get(position) != event
    }
    assert again == [(0,)]


@settings(deadline=None)
@given(st.lists(VISITED_EVENTS, max_size=20), st.one_of(_DROPS, _REPLACES), _DROPS)
def test_rules_that_commute_come_to_the_same_in_either_order(
    events: list[Event], one: Definition, other: Definition
) -> None:
    rules = [rule_of(one), rule_of(other)]
    stored = oracle.store(events)
    if commute(one, other):
        assert after(rules, stored) == after(rules[::-1], stored)


# Words and edges -------------------------------------------------------------------------------


def test_a_value_that_looks_like_sql_is_a_value(connection: duckdb.DuckDBPyConnection) -> None:
    evil = "x') OR true; DROP TABLE stored; --\n.quit\n'"
    events = make_event(user_id=evil), make_event(user_id="x")
    for operator in ("is", "contains"):
        assert left(connection, said("user_id", operator, evil), *events) == {2}


def test_a_visitor_is_named_by_its_sixteen_digits(connection: duckdb.DuckDBPyConnection) -> None:
    events = make_event(visitor_id=-2), make_event(visitor_id=2), make_event(visitor_id=None)
    rule = Definition(conditions=(about("visitor", "fffffffffffffffe"),))
    assert left(connection, rule, *events) == {2, 3}


def test_dates_are_whole_days_in_utc_and_both_ends_are_meant(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    day_us = 86_400_000_000
    midnight = NOON_US - day_us // 2
    at = (midnight - 1, midnight, midnight + day_us - 1, midnight + day_us)
    events = [make_event(timestamp=us) for us in at]
    rule = Definition("example.com", "2024-05-01", "2024-05-01")
    assert left(connection, rule, *events) == {1, 4}


def test_events_after_the_last_position_are_not_meant(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    offer(connection, oracle.store([make_event(), make_event()]))
    rule = rule_of(Definition("example.com"), last_position=1)
    assert connection.execute(f"SELECT position FROM ({apply(EVENTS, [rule])})").fetchall() == [
        (2,)
    ]


def test_an_expression_that_is_none_is_refused(connection: duckdb.DuckDBPyConnection) -> None:
    check_expressions(connection, said("url", "matches", "^/a"))
    with pytest.raises(InvalidInput, match="no regular expression"):
        check_expressions(connection, said("url", "matches", "("))


def test_a_definition_reads_back_as_it_was() -> None:
    mapping: dict[tuple[str | None, ...], tuple[str | None, ...]] = {("a", None): ("b",)}
    for definition in (
        Definition("s", "2024-01-01", "2024-01-02", (Condition("user_id", "is", ("ü'",)),)),
        Definition(keys=("referrer", "utm_source"), columns=("channel",), mapping=mapping),
    ):
        text = orjson.dumps(definition.to_json())
        assert Definition.from_json(orjson.loads(text)) == definition


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Definition, "must say which events"),
        (lambda: Definition("a", "2024-02-30"), "no date"),
        (lambda: Definition("a", "2024-02-02", "2024-02-01"), "is after"),
        (lambda: Definition("\0"), "at most"),
        (lambda: Definition("\ud800"), "no Unicode"),
        (lambda: said("position", "is", "1"), "no column"),
        (lambda: said("timestamp", "is", "1"), "no column"),
        (lambda: said("user_id", "like", "1"), "is none of"),
        (lambda: said("user_id", "is"), "1 to"),
        (lambda: said("visitor_id", "contains", "1"), "is no text"),
        (lambda: said("visitor_id", "is", "9223372036854775808"), "whole number"),
        (lambda: said("interactive", "is", "yes"), "true or false"),
        (lambda: about("visitor", "xyz"), "16 hexadecimal digits"),
        (lambda: Definition("s", keys=("url",), columns=("url",)), "says which"),
        (
            lambda: Definition(keys=("url",), columns=("visitor_id",), mapping={("a",): ("1",)}),
            "columns of text",
        ),
        (
            lambda: Definition(
                keys=("url",), columns=("url",), mapping={("a",): ("b",), ("b",): ("c",)}
            ),
            "applied twice",
        ),
        (
            lambda: Definition(
                conditions=(Condition("url", "is", ("a",)),),
                keys=("url",),
                columns=("url",),
                mapping={("a",): ("b",)},
            ),
            "cannot change the columns",
        ),
        (lambda: Definition.from_json({"format": 1}), "no rule"),
        (lambda: Definition.from_json({"format": 2}), "newer Mallard"),
    ],
)
def test_what_is_no_rule_is_refused_in_words(make: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        make()


def test_the_words_of_a_rule_and_its_digest_name_nobody() -> None:
    definition = Definition("s", conditions=(about("user", "ada@a.example"),))
    assert definition.words == "user_id is, site s"
    # printf salt:ada@a.example | sha256sum
    wanted = "1bac601f83571949e6da477210fa03fac6285e89ed6d322143d37e8eac549f19"
    assert definition.digest("salt") == wanted
