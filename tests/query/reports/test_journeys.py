from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path as FilePath
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.event import Event
from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.period import Period
from mallard.query.reports import journeys
from mallard.query.reports.chosen import Choice
from mallard.query.reports.daily import added
from mallard.query.reports.journeys import (
    PATHS_OF_DAY,
    Direction,
    Flow,
    FlowsQuestion,
    Path,
    PathsQuestion,
    flows,
    paths,
)
from mallard.query.reports.steps import read_step
from mallard.query.sql import Sql
from tests.factories import NOON_US, make_event
from tests.oracle import Stored, Visit
from tests.oracle_answers import fits
from tests.query.reports.laid import CHOICES, PERIODS, PHASES, One, again, asked, chosen, laid_out
from tests.query.reports.test_funnel import CONTEXT
from tests.query.test_answers import SITE, Room

DAY_US = 86_400_000_000

ANCHORS = st.sampled_from(["page:/", "page:/p**", "event:signup", "event:nothing"])
FLOWS = st.builds(
    lambda choice, of, direction, steps, limit: FlowsQuestion(
        choice, read_step(of, CONTEXT, "of").keep, direction, steps, limit
    ),
    CHOICES,
    ANCHORS,
    st.sampled_from(Direction),
    st.integers(1, 5),
    st.sampled_from([1, 100]),
)
PATHS = st.builds(
    PathsQuestion, CHOICES, st.integers(1, 5), st.sampled_from([1, 2, 100]), st.sampled_from([0, 1])
)


def place(event: Event) -> str:
    if event.event_name != "pageview":
        return f"event:{event.event_name}"
    return "page" if event.pathname is None else f"page:{event.pathname}"


def walks(stored: list[Stored], question: FlowsQuestion | PathsQuestion) -> Iterator[list[One]]:
    """Give the visits' chosen events, without those that stay at a place."""
    of_visits: dict[Visit, list[One]] = defaultdict(list)
    for one in chosen(stored, question.choice):
        if one.visit is not None and one.event.event_type != "engagement":
            of_visits[one.visit].append(one)
    for ones in of_visits.values():
        yield [
            one
            for number, one in enumerate(ones)
            if number == 0 or place(one.event) != place(ones[number - 1].event)
        ]


def flows_by_hand(stored: list[Stored], question: FlowsQuestion) -> list[Flow]:
    counted: dict[tuple[int, str, str | None], list[Visit]] = defaultdict(list)
    for walk in walks(stored, question):
        its = [n for n, one in enumerate(walk) if fits(question.of, one.event, one.visit)]
        if not its:
            continue
        ahead = question.direction is Direction.AFTER
        way = walk[its[0] :] if ahead else walk[: its[0] + 1][::-1]
        places: list[str | None] = [*(place(one.event) for one in way), None]
        for step, (near, far) in enumerate(itertools.pairwise(places), 1):
            if step <= question.steps and near is not None and walk[0].visit is not None:
                counted[step, near, far].append(walk[0].visit)
    of: dict[int, int] = defaultdict(int)
    for (step, _, _), visits in counted.items():
        of[step] += len(visits)
    found = [
        Flow(*key, len(visits), len({(v.date, v.visitor_id) for v in visits}), of[key[0]])
        for key, visits in counted.items()
    ]
    found.sort(key=lambda each: (each.step, -each.visits, each.near, each.far or "~"))
    return [
        each
        for step in range(1, 6)
        for each in [each for each in found if each.step == step][: question.limit]
    ]


@settings(max_examples=7, deadline=None)
@given(
    phases=PHASES,
    asked_flows=st.lists(FLOWS, min_size=3, max_size=3),
    asked_paths=st.lists(PATHS, min_size=2, max_size=2),
    shifted=PERIODS,
)
def test_journeys_are_what_plain_python_says(
    phases: tuple[list[Event], ...],
    asked_flows: list[FlowsQuestion],
    asked_paths: list[PathsQuestion],
    shifted: Period,
) -> None:
    with laid_out(phases) as room:
        for question in again(asked_flows, shifted):
            assert asked(room, flows, question) == flows_by_hand(room.events, question)
        for each in again(asked_paths, shifted):
            counted: dict[tuple[str, ...], list[Visit]] = defaultdict(list)
            for walk in walks(room.events, each):
                if walk[0].visit is not None:
                    counted[tuple(place(one.event) for one in walk[: each.steps])].append(
                        walk[0].visit
                    )
            of = sum(map(len, counted.values()))
            every = [
                Path(path, len(visits), len({(v.date, v.visitor_id) for v in visits}), of)
                for path, visits in counted.items()
            ]
            every.sort(key=lambda path: (-path.visits, path.places))
            # Few of a day, so that others are hidden.
            for most in (1, 3, PATHS_OF_DAY):
                report = partial(paths, most=most)
                assert asked(room, report, each) == every[each.offset :][: each.limit]


def visits_of(day: int, **numbers: int) -> list[Event]:
    """Return visits of one page each, so many to each page."""
    pages = [page for page, number in numbers.items() for _ in range(number)]
    return [
        make_event(pathname=f"/{page}", timestamp=NOON_US + day * DAY_US, visitor_id=n)
        for n, page in enumerate(pages)
    ]


@pytest.mark.parametrize(
    ("limit", "meant_max", "looks"),
    [
        (1, 2, ["common", "some"]),  # by what is hidden it may be /a or /c
        (1, 1, ["common", "every"]),  # too many to look for by name
        (2, 2, ["common", "some"]),
        (3, 2, ["common", "every"]),  # it may be one that is common on no day
    ],
)
def test_paths_are_looked_for_again_while_a_hidden_visit_may_matter(
    limit: int,
    meant_max: int,
    looks: list[str],
    tmp_path: FilePath,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []

    def spied(session: Session, answers: Answers, choice: Choice, sql: Sql, *rest: Any) -> Sql:
        kinds = {"hidden": "common", "IN (('page:": "some"}
        made.append(next((kinds[each] for each in kinds if each in sql), "every"))
        return added(session, answers, choice, sql, *rest)

    monkeypatch.setattr(journeys, "added", spied)
    monkeypatch.setattr(journeys, "MEANT_MAX", meant_max)
    room = Room(tmp_path)
    try:
        room.flush(visits_of(0, a=5, b=1))
        room.flush(visits_of(1, c=5, a=2, d=2))
        room.settle(sum_up=False)
        choice = Choice(SITE, Period.of_days(date(2024, 5, 1), date(2024, 5, 2), ZoneInfo("UTC")))
        report = partial(paths, most=1)
        found = asked(room, report, PathsQuestion(choice, 2, limit))
        every = [("/a", 7), ("/c", 5), ("/d", 2), ("/b", 1)]
        assert found == [Path((f"page:{page}",), n, n, 15) for page, n in every[:limit]]
        assert made == looks
    finally:
        room.close()


def test_paths_that_are_common_on_every_day_are_looked_for_once(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(tmp_path)
    try:
        room.flush(visits_of(0, a=9, b=1, c=1))
        room.flush(visits_of(1, a=9, d=1, e=1))
        room.settle(sum_up=False)
        monkeypatch.setattr(journeys, "_those", None)
        choice = Choice(SITE, Period.of_days(date(2024, 5, 1), date(2024, 5, 2), ZoneInfo("UTC")))
        found = asked(room, partial(paths, most=1), PathsQuestion(choice, 1, 1))
        assert found == [Path(("page:/a",), 18, 18, 22)]
    finally:
        room.close()


@pytest.mark.parametrize(("limit", "looks"), [(1, 1), (2, 1), (3, 2)])
def test_of_several_days_the_paths_that_are_common_in_all_are_kept(
    limit: int, looks: int, tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    spied = mock.Mock(side_effect=added)
    monkeypatch.setattr(journeys, "added", spied)
    room = Room(tmp_path)
    try:
        for day, numbers in enumerate(({"a": 5}, {"b": 3}, {"c": 2})):
            room.flush(visits_of(day, **numbers))
        room.settle(sum_up=False)
        choice = Choice(SITE, Period.of_days(date(2024, 5, 1), date(2024, 5, 4), ZoneInfo("UTC")))
        question = PathsQuestion(choice, 1, limit)
        report = partial(paths, most=1)  # of a day, and two of several

        def expected(*found: tuple[str, int]) -> list[Path]:
            of = sum(visits for _, visits in found)
            return [Path((f"page:/{page}",), n, n, of) for page, n in found][:limit]

        assert asked(room, report, question) == expected(("a", 5), ("b", 3), ("c", 2))
        assert spied.call_count == looks
        # With what is new of one that is common in few days it is more than another.
        room.hold(visits_of(3, c=3))
        assert asked(room, report, question) == expected(("a", 5), ("c", 5), ("b", 3))
    finally:
        room.close()
