from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest import mock
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.buffer.buffer import Buffer
from mallard.clock import utc_date
from mallard.config import QueryConfig
from mallard.event import Event, Frame
from mallard.query import answers, running_sums
from mallard.query.answers import Answers
from mallard.query.dimensions import By, Dimension, Property
from mallard.query.engine import Engine, Session
from mallard.query.filters import AllOf, AnyOf, Condition, Filter, HasDone, Not, Operator
from mallard.query.metrics import MONEY, Level, quantities
from mallard.query.period import Interval, Period, Slice, buckets, slices
from mallard.query.sql import Sql
from mallard.query.sums import Grouping
from mallard.query.tail import Tail
from tests import oracle_answers
from tests.factories import NOON_US, make_event
from tests.oracle import Stored as One
from tests.oracle import store as positioned
from tests.stored import Stored
from tests.strategies import VISITED_EVENTS

SITE = "example.com"
UTC = ZoneInfo("UTC")
MARCH_30_US = 1_711_756_800_000_000
WIDE = Period.of_days(date(2024, 4, 29), date(2024, 5, 4), UTC)


class Held:
    """Stands for a buffer: the frames that are not in parts yet."""

    def __init__(self) -> None:
        self.frames: tuple[Frame, ...] = ()

    def tail(self) -> tuple[Frame, ...]:
        return self.frames


class Room:
    """A store with a tail, and answers over both."""

    def __init__(self, data: Path, cache_bytes: int = 10_000_000) -> None:
        self.stored = Stored(data, day=10)
        self.held = Held()
        self.engine = Engine(QueryConfig(workers=1, threads=1), data)
        self.answers = Answers(self.stored.store, Tail(cast(Buffer, self.held)), cache_bytes)
        self.events: list[One] = []

    def flush(self, events: Sequence[Event]) -> None:
        if events:
            self.events += positioned(events, len(self.events) + 1)
            self.stored.publish(events)

    def hold(self, events: Sequence[Event]) -> None:
        first = len(self.events) + 1
        self.events += positioned(events, first)
        self.held.frames = tuple(
            Frame(first + i, NOON_US, 1, (event,)) for i, event in enumerate(events)
        )

    def settle(self, *, sum_up: bool, zone: str = "UTC") -> None:
        """Compact every date, and keep the sums of the site's, as a zone cuts them."""
        start = date(2024, 5, 1)
        self.stored.settle()
        days = [
            (date.fromisoformat(day) - start).days
            for site, day in self.stored.store.snapshot().days
            if site == SITE
        ]
        if sum_up:
            for _, of_month in itertools.groupby(
                sorted(days), key=lambda day: (start + timedelta(days=day)).month
            ):
                self.stored.sum_up(SITE, *of_month, zone=zone)

    def sums(
        self,
        pieces: Sequence[Slice],
        by: tuple[By, ...] = (),
        keep: Filter | None = None,
        as_of_us: int | None = None,
        level: Level = Level.ENGAGEMENT,
    ) -> dict[oracle_answers.Group, dict[str, Any]]:
        return self._read(
            Grouping(SITE, by, keep, as_of_us, level=level),
            lambda grouping, session: read(session, self.answers.sums(session, grouping, pieces)),
        )

    def kept(self, pieces: Sequence[Slice]) -> dict[oracle_answers.Group, dict[str, Any]]:
        """The totals of pieces out of files alone."""
        return self._read(
            Grouping(SITE),
            lambda grouping, session: read(
                session, self.answers.added(session, grouping, pieces, _must_not_count)
            ),
        )

    def _read(
        self, asked: Grouping, answer: Callable[[Grouping, Session], pa.Table]
    ) -> dict[oracle_answers.Group, dict[str, Any]]:
        """What happened and what came in, together."""
        found = {}
        for grouping in (asked, replace(asked, money=True)):
            work = partial(answer, grouping)
            table = self.engine.submit(work).result(60)
            for row in table.to_pylist():
                if grouping.money is (row["currency"] is None):
                    continue  # of a rollup, which has both: it says nothing
                values = tuple(_value(each, row[each.column]) for each in asked.by)
                numbers = {each.value: row[each.value] for each in grouping.quantities}
                found[row["bucket"], values, row["currency"]] = {
                    name: number for name, number in numbers.items() if number is not None
                }
        return found

    def close(self) -> None:
        self.engine.close()
        self.stored.close()


def read(session: Session, sums: pa.Table | Sql) -> pa.Table:
    """Return sums, wherever they are."""
    return sums if isinstance(sums, pa.Table) else session.table(Sql(f"FROM {sums}"))


def _must_not_count(*_: object) -> Sql:
    raise AssertionError("events are read")


def _value(by: By, text: str | None) -> Any:
    if isinstance(by, Dimension) and "json_array" in by.sql and text is not None:
        return tuple(json.loads(text))
    return text


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.close()


EVENTS = st.builds(
    lambda event, plan: event._replace(props=plan),
    VISITED_EVENTS,
    st.sampled_from([None, None, '{"plan": "pro"}', '{"plan": "free", "n": 1}']),
)
GROUPS: st.SearchStrategy[tuple[By, ...]] = st.sampled_from(
    [
        (),
        (Dimension.PAGE,),
        (Dimension.SOURCE,),
        (Dimension.ENTRY_PAGE,),
        (Dimension.REGION,),
        (Property("plan"),),
        (Dimension.PAGE, Dimension.HOSTNAME),
        (Dimension.PAGE, Dimension.SOURCE),
        (Dimension.NAME, Dimension.COUNTRY, Property("plan")),
    ]
)
CONDITIONS = st.one_of(
    st.builds(
        Condition,
        st.just(Dimension.PAGE),
        st.sampled_from(Operator),
        st.sampled_from([("/",), ("/pricing", None), ("/Pricing",), ("^/s", "x$")]),
        st.booleans(),
    ).filter(lambda each: each.case_sensitive or each.operator is not Operator.MATCHES),
    st.builds(
        Condition,
        st.sampled_from([Dimension.SOURCE, Dimension.ENTRY_PAGE, Dimension.COUNTRY]),
        st.just(Operator.IS),
        st.sampled_from([("Google",), (None,), ("/", "DE"), ()]),
    ),
    st.builds(Condition, st.just(Property("plan")), st.just(Operator.IS), st.just(("pro",))),
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(HasDone, inner),
        st.builds(lambda parts: AllOf(tuple(parts)), st.lists(inner, max_size=3)),
        st.builds(lambda parts: AnyOf(tuple(parts)), st.lists(inner, max_size=3)),
    ),
    max_leaves=4,
)
# Half hours; a date ahead of UTC's all day long; clocks that change within the period.
ZONES = [
    "UTC",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Kiritimati",
    "Pacific/Apia",
    "Europe/London",
    "Africa/Cairo",
]
# Of the days round the end of March 2024, when clocks change, a few visitors at all hours.
ROUND_THE_CLOCK = st.builds(
    lambda event, day, minute: event._replace(
        timestamp=MARCH_30_US + (day * 1440 + minute) * 60_000_000
    ),
    EVENTS,
    st.integers(0, 9),
    st.integers(0, 1439),
)
CUTS = st.sampled_from(
    [
        slices(buckets(WIDE, None)),
        slices(buckets(WIDE, Interval.DAY)),
        slices(buckets(Period.of_days(date(2024, 5, 1), date(2024, 5, 2), UTC), Interval.HOUR)),
        slices(
            buckets(
                Period.of_days(date(2024, 4, 30), date(2024, 5, 2), ZoneInfo("Asia/Kathmandu")),
                Interval.DAY,
            )
        ),
        slices(buckets(Period.of_days(date(2024, 5, 2), date(2024, 5, 2), UTC), Interval.MONTH)),
    ]
)


@settings(max_examples=14, deadline=None)
@given(
    phases=st.tuples(*[st.lists(EVENTS, max_size=12)] * 4),
    sum_up=st.booleans(),
    by=GROUPS,
    keep=st.none() | FILTERS,
    pieces=CUTS,
    at_once=st.sampled_from([3, 500_000]),
    held_bytes=st.sampled_from([0, 400, running_sums.HELD_BYTES]),
    levels=st.tuples(*[st.sampled_from(Level)] * 4),
)
def test_every_tier_says_what_plain_python_says(
    phases: tuple[list[Event], ...],
    sum_up: bool,
    by: tuple[By, ...],
    keep: Filter | None,
    pieces: list[Slice],
    at_once: int,
    held_bytes: int,
    levels: tuple[Level, ...],
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(answers, "_COUNTED_AT_ONCE", at_once),
        mock.patch.object(answers, "_ROLLED_AT_ONCE", at_once),
        mock.patch.object(running_sums, "HELD_BYTES", held_bytes),
        mock.patch.object(running_sums, "_FEW_ROWS", at_once if held_bytes else 0),
    ):
        room = Room(Path(folder))
        try:
            room.flush(phases[0])
            room.settle(sum_up=sum_up)
            _agree(room, by, keep, pieces, levels[0])
            _agree(room, by, keep, pieces, levels[1])  # from what is kept now, if it is enough
            room.flush(phases[1])
            _agree(room, by, keep, pieces, levels[2])
            room.settle(sum_up=sum_up)
            room.flush(phases[2])
            room.hold(phases[3])
            _agree(room, by, keep, pieces, levels[3])
        finally:
            room.close()


def _agree(
    room: Room,
    by: tuple[By, ...],
    keep: Filter | None,
    pieces: list[Slice],
    level: Level = Level.ENGAGEMENT,
) -> None:
    names = {each.value for each in (*quantities(level), *MONEY)}
    expected = {
        group: {name: number for name, number in numbers.items() if name in names}
        for group, numbers in oracle_answers.sums(room.events, SITE, by, keep, pieces).items()
    }
    assert room.sums(pieces, by, keep, None, level) == expected


@settings(max_examples=8, deadline=None)
@given(
    events=st.lists(ROUND_THE_CLOCK, min_size=1, max_size=25),
    zone=st.sampled_from(ZONES),
    other=st.sampled_from(ZONES),
    interval=st.sampled_from([None, Interval.DAY, Interval.WEEK, Interval.MONTH]),
)
def test_days_of_the_sites_zone_come_from_rollups_and_those_of_another_are_as_right(
    events: list[Event], zone: str, other: str, interval: Interval | None
) -> None:
    wide = {
        each: slices(
            buckets(Period.of_days(date(2024, 3, 29), date(2024, 4, 9), ZoneInfo(each)), interval)
        )
        for each in (zone, other)
    }
    with tempfile.TemporaryDirectory() as folder:
        room = Room(Path(folder))
        try:
            room.flush(events)
            room.settle(sum_up=True, zone=zone)
            expected = oracle_answers.sums(room.events, SITE, (), None, wide[zone])
            assert room.kept(wide[zone]) == expected
            _agree(room, (), None, wide[other])
            _agree(room, (Dimension.PAGE,), None, wide[zone])
        finally:
            room.close()


@pytest.mark.parametrize("by", [(), (Dimension.ENTRY_PAGE,), (Dimension.SOURCE, Dimension.REGION)])
@pytest.mark.parametrize("keep", [None, Not(Condition(Dimension.COUNTRY, Operator.IS, ("FR",)))])
def test_whole_visits_say_what_their_events_say_and_events_of_none_are_counted_beside_them(
    by: tuple[By, ...], keep: Filter | None, room: Room
) -> None:
    minute_us = 60_000_000
    seen = [
        make_event(visitor_id=n % 3 or None, timestamp=NOON_US + n * 7 * minute_us)
        for n in range(20)
    ]
    seen.append(seen[1]._replace(event_type="engagement", timestamp=NOON_US))  # before any visit
    places = ("DE", "FR", None)
    room.flush(
        [
            event._replace(
                country_code=places[n % 3], pathname=f"/{n % 4}", referrer_source=f"{n % 2}"
            )
            for n, event in enumerate(seen)
        ]
    )
    room.settle(sum_up=False)
    assert Grouping(SITE, by, keep, level=Level.VISITS).is_of_visits
    _agree(room, by, keep, slices(buckets(WIDE, Interval.DAY)), Level.VISITS)


def test_a_visit_that_only_reports_engagement_in_a_slice_did_not_enter_in_it(room: Room) -> None:
    hour_us = 3_600_000_000
    report = make_event(
        event_type="engagement", event_name="engagement", timestamp=NOON_US + hour_us
    )
    room.hold([make_event(country_code="DE"), report._replace(country_code="DE")])
    period = Period.of_days(utc_date(NOON_US), utc_date(NOON_US), UTC)
    pieces = slices(buckets(period, Interval.HOUR))
    found = room.sums(pieces, (Dimension.COUNTRY,))
    assert {group[0]: numbers["entries"] for group, numbers in found.items()} == {12: 1, 13: 0}
    _agree(room, (Dimension.COUNTRY,), None, pieces)


@pytest.mark.parametrize("settled", [True, False])
def test_reports_are_given_the_events_of_a_period_and_the_visits_of_its_days(
    settled: bool, room: Room
) -> None:
    minute_us = 60_000_000
    events = [make_event(visitor_id=n, timestamp=NOON_US + n * minute_us) for n in range(5)]
    room.flush(events[:3])
    if settled:
        room.settle(sum_up=False)
    room.hold(events[3:])
    first = slices(buckets(Period.of_days(utc_date(NOON_US), utc_date(NOON_US), UTC), None))[0]
    piece = Slice(first.date, NOON_US + minute_us, NOON_US + 4 * minute_us, 0)

    def look(session: Session) -> tuple[list[Any], list[Any]]:
        with room.answers.relations(session, SITE, [piece]) as found:
            told = session.rows(Sql(f"SELECT visitor_id, visit FROM ({found.events}) ORDER BY 1"))
            return told, session.rows(Sql(f"SELECT count(*) FROM ({found.visits})"))

    assert room.engine.submit(look).result(30) == ([(1, 1), (2, 1), (3, 1)], [(5,)])
    nothing = Slice("2020-01-01", 0, 1, 0)

    def look_at_nothing(session: Session) -> list[Any]:
        with room.answers.relations(session, SITE, [nothing]) as found:
            return session.rows(Sql(f"SELECT count(*) FROM ({found.events})"))

    assert room.engine.submit(look_at_nothing).result(30) == [(0,)]
