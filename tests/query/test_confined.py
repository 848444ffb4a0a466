"""Whoever may see some sites sees what the whole store says of these, and no row of another."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.event import Event, Frame
from mallard.query.confined import Reading, confine, show_reading
from mallard.query.events import add_macros, show
from mallard.query.rules import Definition, about
from mallard.query.tail import view_of
from mallard.store.snapshot import Change, Rule
from tests.factories import NOON_US, make_event
from tests.stored import A, B, C, Stored, date
from tests.strategies import VISITED_EVENTS

ODD = "it's/a=site"
SITES = st.sampled_from(
    [
        None,
        frozenset[str](),
        frozenset({"example.com"}),
        frozenset({ODD}),
        frozenset({"example.com", ODD, "null"}),
    ]
)


def held(stored: Stored, events: Sequence[Event]) -> list[Frame]:
    first = stored.store.snapshot().watermark + 1
    return [Frame(first + i, NOON_US, 1, (event,)) for i, event in enumerate(events)]


def rule(stored: Stored, definition: Definition) -> None:
    """Have a rule apply to all that is in parts."""
    snapshot = stored.store.snapshot()
    of_recent = {(site, part.date) for part in snapshot.recent for site in part.sites}
    made = Rule(
        "r",
        NOON_US,
        snapshot.watermark,
        orjson.dumps({"rule": definition.to_json()}).decode(),
        frozenset({*snapshot.days, *of_recent}),
    )
    stored.store.swap(Change("erasure", rules_added=(made,)))


def reading(stored: Stored, frames: Sequence[Frame], sites: frozenset[str] | None) -> Reading:
    return confine(view_of(frames), stored.store.snapshot(), sites, stored.store.source)


def seen(found: Reading) -> dict[str, list[tuple[object, ...]]]:
    with duckdb.connect() as connection:
        show_reading(connection, found)
        return rows(connection, "true")


def rows(connection: duckdb.DuckDBPyConnection, where: str) -> dict[str, list[tuple[object, ...]]]:
    return {
        view: connection.execute(f"FROM {view} WHERE {where} ORDER BY ALL").fetchall()
        for view in ("events", "sessions")
    }


@settings(max_examples=8, deadline=None)
@given(
    phases=st.tuples(*[st.lists(VISITED_EVENTS, max_size=10)] * 3),
    erased=st.booleans(),
    sites=SITES,
)
def test_it_is_what_the_whole_store_says_of_these_sites(
    phases: tuple[list[Event], ...], erased: bool, sites: frozenset[str] | None
) -> None:
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        stored = Stored(Path(folder), day=10)
        try:
            if phases[0]:
                stored.publish(phases[0])
            stored.settle()
            if phases[1]:
                stored.publish(phases[1])
            if erased:
                rule(stored, Definition(conditions=(about("user", "ada"),)))
            frames = held(stored, phases[2])
            add_macros(connection)
            show(connection, stored.store.snapshot(), stored.store.source, frames)
            listed = ", ".join("'" + each.replace("'", "''") + "'" for each in sites or ())
            where = "true" if sites is None else f"site_id IN ({listed or 'NULL'})"
            assert seen(reading(stored, frames, sites)) == rows(connection, where)
        finally:
            stored.close()


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    """Two sites: a compacted day, and later events of that and of the next."""
    made = Stored(tmp_path, day=10)
    made.flush(0, A, B, A)
    made.settle()
    made.flush(0, A, B)
    made.flush(1, A)
    return made


def test_files_of_other_sites_are_not_even_named(stored: Stored) -> None:
    found = reading(stored, [], frozenset({A}))
    snapshot = stored.store.snapshot()
    (own,) = snapshot.days[A, date(0)].parts
    mixed, alone = snapshot.recent
    assert found.sources == {stored.store.source(own), stored.store.source(alone)}
    assert found.copied == (stored.store.source(mixed),)
    assert len(seen(found)["events"]) == 4


def test_who_may_see_all_reads_every_file_where_it_lies(stored: Stored) -> None:
    found = reading(stored, [], None)
    assert found.copied == ()
    every = {stored.store.source(part) for part in stored.store.snapshot().parts}
    assert every <= found.sources


def test_files_that_a_rule_changes_are_copied_for_those_too_who_may_see_all(
    stored: Stored,
) -> None:
    rule(stored, Definition(conditions=(about("visitor", f"{1:016x}"),)))
    found = reading(stored, [], None)
    assert found.sources == set()
    assert len(found.copied) == len(list(stored.store.snapshot().parts))
    columns = [row[13] for row in seen(found)["events"]]
    assert len(columns) == 4


def test_a_site_that_nobody_knows_has_no_rows(stored: Stored) -> None:
    assert seen(reading(stored, [], frozenset({C}))) == {"events": [], "sessions": []}


def test_the_tail_is_there_for_its_own_sites_alone(stored: Stored) -> None:
    frames = held(stored, [make_event(site_id=A), make_event(site_id=B)])
    found = reading(stored, frames, frozenset({B}))
    assert found.tail["site_id"].to_pylist() == [B]
    assert len(seen(found)["events"]) == 3
