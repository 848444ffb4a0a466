"""Random events laid out as a store has them: settled days, open ones and a tail."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from mallard.event import Event
from mallard.query.answers import Answers
from mallard.query.dimensions import Dimension
from mallard.query.engine import Session
from mallard.query.filters import Condition, Filter, HasDone, Not, Operator
from mallard.query.period import Period, micros
from mallard.query.reports.chosen import Choice
from tests import oracle
from tests.oracle import Stored, Visit
from tests.oracle_answers import fits
from tests.query.test_answers import EVENTS, SITE, Room

Q = TypeVar("Q")
T = TypeVar("T")

PHASES = st.tuples(*[st.lists(EVENTS, max_size=14)] * 4)
# Around the midnight of `strategies.VISITED_AT`; local days that begin at 18:15 UTC; a part of one.
PERIODS = st.sampled_from(
    [
        Period.of_days(date(2024, 4, 30), date(2024, 5, 3), ZoneInfo("UTC")),
        Period.of_days(date(2024, 5, 2), date(2024, 5, 2), ZoneInfo("UTC")),
        Period.of_days(date(2024, 5, 1), date(2024, 5, 1), ZoneInfo("Asia/Kathmandu")),
        Period.of_days(date(2024, 5, 1), date(2024, 5, 2), ZoneInfo("America/New_York")),
        Period.of_days(date(2024, 5, 2), date(2024, 5, 3), ZoneInfo("Asia/Kathmandu")),
    ]
)
FILTERS: st.SearchStrategy[Filter | None] = st.sampled_from(
    [
        None,
        None,
        Condition(Dimension.SOURCE, Operator.IS, ("Google", None)),
        Not(Condition(Dimension.PAGE, Operator.IS, ("/pricing",))),
        HasDone(Condition(Dimension.NAME, Operator.IS, ("signup",))),
    ]
)
CHOICES = st.builds(Choice, st.just(SITE), PERIODS, FILTERS)


@contextmanager
def laid_out(phases: Sequence[Sequence[Event]]) -> Iterator[Room]:
    """Settle some events, store some in days that then are open again, and hold the last."""
    with tempfile.TemporaryDirectory() as folder:
        room = Room(Path(folder))
        try:
            room.flush(phases[0])
            room.flush(phases[1])
            room.settle(sum_up=False)
            room.flush(phases[2])
            room.hold(phases[3])
            yield room
        finally:
            room.close()


def asked(room: Room, report: Callable[[Session, Answers, Q], T], question: Q) -> T:
    """Return what a report answers."""
    return room.engine.submit(lambda session: report(session, room.answers, question)).result(60)


def again(questions: Sequence[Q], shifted: Period) -> Iterator[Q]:
    """Yield questions, and each for a second period too, of which some days are known by then."""
    for each in questions:
        yield each
        yield replace(each, choice=replace(each.choice, period=shifted))  # type: ignore[type-var, attr-defined]


@dataclass(frozen=True)
class One:
    """A chosen event, in its place, with the visit it belongs to."""

    stored: Stored
    visit: Visit | None

    @property
    def event(self) -> Event:
        return self.stored.event


def chosen(stored: Sequence[Stored], choice: Choice) -> list[One]:
    """Return what `Choice` says, in plain Python, by (timestamp, position)."""
    of_site = [one for one in stored if one.event.site_id == choice.site_id]
    visit_of = {one.position: visit for visit in oracle.visits(of_site) for one in visit.events}
    start, end = micros(choice.period.start), micros(choice.period.end)
    found = []
    for one in sorted(of_site, key=lambda each: (each.event.timestamp, each.position)):
        visit = visit_of.get(one.position)
        holds = choice.keep is None or fits(choice.keep, one.event, visit)
        if start <= one.event.timestamp < end and holds:
            found.append(One(one, visit))
    return found
