from __future__ import annotations

import dataclasses
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.errors import NotFound
from mallard.event import Event
from mallard.query.period import micros
from mallard.query.reports.sessions import (
    VISIT_COLUMNS,
    SessionsQuestion,
    VisitId,
    VisitQuestion,
    sessions,
    visit,
)
from tests import oracle
from tests.factories import make_event
from tests.oracle import Stored, instant
from tests.oracle_answers import fits
from tests.query.reports.laid import CHOICES, PHASES, asked, laid_out
from tests.query.test_answers import SITE, Room

QUESTIONS = st.builds(SessionsQuestion, CHOICES, st.sampled_from([1, 3, 100]), st.integers(0, 3))


def by_hand(stored: list[Stored], question: SessionsQuestion) -> list[dict[str, object]]:
    choice = question.choice
    found = [
        each
        for each in oracle.visits([one for one in stored if one.event.site_id == SITE])
        if micros(choice.period.start) <= each.events[0].event.timestamp < micros(choice.period.end)
        and (choice.keep is None or any(fits(choice.keep, one.event, each) for one in each.events))
    ]
    found.sort(
        key=lambda each: (each.events[0].event.timestamp, each.events[0].position), reverse=True
    )
    rows = [each.row() for each in found]
    return [{name: row[name] for name in VISIT_COLUMNS} for row in rows]


@settings(max_examples=10, deadline=None)
@given(phases=PHASES, questions=st.lists(QUESTIONS, min_size=5, max_size=5))
def test_visits_are_listed_the_newest_first_a_page_at_a_time(
    phases: tuple[list[Event], ...], questions: list[SessionsQuestion]
) -> None:
    with laid_out(phases) as room:
        for question in questions:
            found = asked(room, sessions, question)
            every = by_hand(room.events, question)
            assert found.rows == every[question.offset : question.offset + question.limit]
            assert found.total_rows == len(every)
        every = by_hand(room.events, dataclasses.replace(questions[0], offset=0))
        for row in every[:2]:
            name = VisitId(row["date"], row["visitor_id"], row["visit"])  # type: ignore[arg-type]
            assert VisitId.read(str(name)) == name
            one = asked(room, visit, VisitQuestion(SITE, name, 100))
            assert one.told == row
            (mine,) = [
                each
                for each in oracle.visits(room.events)
                if (each.site_id, each.date, each.visitor_id, each.visit)
                == (SITE, name.date, name.visitor_id, name.visit)
            ]
            expected = [
                (instant(each.event.timestamp), each.event.pathname) for each in mine.events
            ]
            assert [(each["timestamp"], each["pathname"]) for each in one.events] == expected
            page = asked(room, visit, VisitQuestion(SITE, name, 1, 1))
            assert page == dataclasses.replace(one, events=one.events[1:2])
            assert page.total_rows == len(expected)


def test_a_visit_of_another_site_is_not_found(tmp_path: Path) -> None:
    room = Room(tmp_path)
    try:
        room.hold([make_event(site_id="other.example")])
        name = VisitId(date(2024, 5, 1), 1, 1)
        assert asked(room, visit, VisitQuestion("other.example", name, 1)).told["pageviews"] == 1
        with pytest.raises(NotFound):
            asked(room, visit, VisitQuestion(SITE, name, 1))
    finally:
        room.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024-05-01",
        "2024-05-01-0000000000000001-0",
        "2024-05-01-0000000000000001-32768",
        "2024-02-30-0000000000000001-1",
        "9999-12-31-0000000000000001-1",
        "0001-01-01-0000000000000001-1",
        "2024-05-01-000000000000000G-1",
        "2024-05-01-0000000000000001-1 OR 1=1",
        "\u0662024-05-01-0000000000000001-1",
    ],
)
def test_what_can_be_no_visits_name_is_not_found(text: str) -> None:
    with pytest.raises(NotFound):
        VisitId.read(text)
