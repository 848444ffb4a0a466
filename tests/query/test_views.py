from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.event import Event
from mallard.query.rules import Definition, about
from mallard.query.sessions import SESSION_SCHEMA
from mallard.query.views import Listed, list_files
from mallard.store.snapshot import SiteDay
from tests import oracle
from tests.factories import NOON_US, make_event
from tests.histories import History
from tests.oracle import Stored
from tests.strategies import VISITED_EVENTS

DATES = ["2024-05-01", "2024-05-02"]
DAY_US = 86_400_000_000


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "data")
    yield history
    history.store.close()


def look(history: History) -> tuple[list[tuple[Any, ...]], list[dict[str, Any]]]:
    """Position, site and time of all events, and all visits."""
    with duckdb.connect() as connection:
        history.show(connection)
        events = connection.execute(
            "SELECT position, site_id, timestamp, visitor_id FROM events ORDER BY position"
        ).fetchall()
        rows = connection.execute("FROM sessions").fetchall()
    return events, [dict(zip(SESSION_SCHEMA.names, row, strict=True)) for row in rows]


def by_name(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["site_id"], row["date"], row["visitor_id"], row["visit"])


def check(history: History) -> None:
    """Both views say what the definitions say of what was stored."""
    stored: list[Stored] = sorted([*history.events, *history.in_log])
    events, sessions = look(history)
    assert events == [
        (position, event.site_id, oracle.instant(event.timestamp), event.visitor_id)
        for position, event in stored
    ]
    expected = [visit.row() for visit in oracle.visits(stored)]
    assert sorted(sessions, key=by_name) == sorted(expected, key=by_name)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("log"), st.lists(VISITED_EVENTS, max_size=8)),
        st.tuples(st.just("flush"), st.none()),
        st.tuples(st.just("settle"), st.sampled_from([DATES[:1], DATES])),
        st.tuples(st.just("drop"), st.sampled_from(["ada", "bob"])),
    ),
    max_size=10,
)


@settings(deadline=None, max_examples=25)
@given(STEPS)
def test_views_say_what_was_stored_whatever_was_flushed_compacted_or_dropped(
    steps: list[tuple[str, Any]],
) -> None:
    with TemporaryDirectory() as folder:
        history = History(Path(folder) / "data")
        for step, value in steps:
            if step == "log":
                history.log(value)
            elif step == "flush":
                history.flush()
            elif step == "settle" and not history.store.snapshot().rules:
                history.settle(value)
            elif step == "drop":
                history.flush()
                drop(history, value)
        check(history)
        history.store.close()


def drop(history: History, user_id: str) -> None:
    definition = Definition(conditions=(about("user", user_id),))
    history.drop(definition, lambda event: event.user_id == user_id)


def read_from(history: History, *more: SiteDay) -> Counter[str]:
    lists = list_files(history.store.snapshot(), more)
    return Counter({variable.name: len(files) for variable, files in lists.items() if files})


def test_visits_of_settled_days_are_read_and_of_others_computed(history: History) -> None:
    history.log([make_event(), make_event(timestamp=NOON_US + DAY_US)])
    history.flush()
    assert read_from(history) == {"LOOSE": 2, "OPEN": 2}
    history.settle(DATES[:1])
    assert read_from(history) == {"COMPACTED": 1, "LOOSE": 1, "VISITS": 1, "OPEN": 1}
    history.settle(DATES)
    assert read_from(history) == {"COMPACTED": 2, "VISITS": 2}
    check(history)


@pytest.mark.parametrize("where", ["in the log", "in a part"])
def test_a_late_event_has_the_visits_of_its_day_computed_and_of_no_other(
    where: str, history: History
) -> None:
    history.log([make_event(), make_event(site_id="example.org")])
    history.flush()
    history.settle(DATES)
    history.log([make_event(timestamp=NOON_US + 1)])
    if where == "in a part":
        history.flush()
        assert read_from(history) == {"COMPACTED": 2, "LOOSE": 1, "VISITS": 1, "OPEN": 2}
    else:
        assert read_from(history, ("example.com", DATES[0])) == {
            "COMPACTED": 2,
            "VISITS": 1,
            "OPEN": 1,
        }
    check(history)


def test_a_rule_has_the_visits_of_its_days_computed_and_of_no_other(history: History) -> None:
    history.log([make_event(user_id="ada"), make_event(site_id="example.org", user_id="bob")])
    history.flush()
    history.settle(DATES)
    drop(history, "ada")
    assert read_from(history) == {"COMPACTED": 2, "VISITS": 1, "OPEN": 1}
    check(history)


ODD_SITES = ["NULL", "__HIVE_DEFAULT_PARTITION__", "a" * 300, "it's/a=site", "%41", "é b", ".."]


@pytest.mark.parametrize("site_id", ODD_SITES)
def test_a_sites_name_may_be_anything(site_id: str, history: History) -> None:
    history.log([make_event(site_id=site_id), make_event()])
    history.flush()
    history.settle(DATES)
    check(history)
    history.log([make_event(site_id=site_id)])
    check(history)


def test_a_condition_on_site_and_date_opens_the_files_it_is_about_alone(history: History) -> None:
    days = range(3)
    history.log(
        [
            make_event(site_id=site_id, timestamp=NOON_US + day * DAY_US)
            for site_id in ("a.example", "b.example")
            for day in days
        ]
    )
    history.flush()
    history.settle(["2024-05-01", "2024-05-02", "2024-05-03"])
    with duckdb.connect() as connection:
        history.show(connection)
        for query, files in (
            ("FROM sessions WHERE site_id = 'a.example' AND date >= '2024-05-02'", 2),
            ("FROM events WHERE site_id = 'a.example'", 3),
        ):
            (plan,) = connection.execute(f"EXPLAIN ANALYZE {query}").fetchall()
            assert f"Scanning Files: {files}/6" in plan[1]


def test_a_file_of_visits_of_another_format_is_not_read(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.log([make_event()])
    history.flush()
    history.settle(DATES)
    monkeypatch.setattr("mallard.query.views.SESSIONS_VERSION", 2)
    assert read_from(history) == {"COMPACTED": 1, "OPEN": 1}
    check(history)


def test_views_of_nothing_are_empty(history: History) -> None:
    assert look(history) == ([], [])
    assert list_files(history.store.snapshot()).keys() == set(Listed)


def test_the_columns_of_sessions_are_those_of_its_files(history: History) -> None:
    history.log([make_event()])
    history.flush()
    history.settle(DATES)
    history.log([make_event(site_id="example.org")])
    with duckdb.connect() as connection:
        history.show(connection)
        found = connection.sql("FROM sessions").to_arrow_table().schema
    assert [(field.name, field.type) for field in found] == [
        (field.name, field.type) for field in SESSION_SCHEMA
    ]


def test_every_column_of_an_event_is_in_the_view_and_none_else(history: History) -> None:
    history.log([make_event()])
    history.flush()
    history.settle(DATES)
    with duckdb.connect() as connection:
        history.show(connection)
        found = [row[0] for row in connection.execute("DESCRIBE events").fetchall()]
    assert found == ["event_id", "position", "loaded_at", *Event._fields]
