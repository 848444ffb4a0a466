"""Visits one by one, newest first, and what happened in one of them.

What tells a visit from others tells of a person: who shows it must be allowed to see single visits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from mallard.errors import NotFound
from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.period import Period, micros
from mallard.query.reports.chosen import ORDER, Choice, chosen
from mallard.query.reports.given import made_once, of_choice
from mallard.query.sql import Sql

# Of a visit, in the order they are shown.
VISIT_COLUMNS = (
    *("date", "visitor_id", "visit", "user_id", "started_at", "ended_at", "duration_ms"),
    *("pageviews", "events", "bounce", "entry_page", "exit_page", "entry_hostname"),
    *("referrer", "referrer_source", "channel", "utm_source", "utm_medium", "utm_campaign"),
    *("country_code", "region", "city", "device_type", "browser", "os", "language"),
    *("engaged_ms", "revenue"),
)
EVENT_COLUMNS = (
    *("timestamp", "event_name", "event_type", "hostname", "pathname", "props"),
    *("revenue_amount", "revenue_currency", "engaged_ms", "scroll_depth"),
)
_VISIT = Sql(", ".join(VISIT_COLUMNS))
_EVENT = Sql(", ".join(EVENT_COLUMNS))
_KEY = "date, visitor_id, visit"
_ID = re.compile(r"(\d{4}-\d{2}-\d{2})-([0-9a-f]{16})-([1-9]\d{0,4})")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class VisitId:
    """What names a visit of a site: `2026-05-01-00c0ffee00c0ffee-1`."""

    date: date
    visitor_id: int
    visit: int

    @classmethod
    def read(cls, text: str) -> VisitId:
        """Return what a text names; raises NotFound where it can be no visit's."""
        found = _ID.fullmatch(text)
        try:
            day = date.fromisoformat(found[1]) if found else None
        except ValueError:
            day = None
        if found is None or day is None or not 1970 <= day.year < 9999 or int(found[3]) > 32_767:
            raise NotFound("There is no such visit.")
        visitor = int.from_bytes(bytes.fromhex(found[2]), "big", signed=True)
        return cls(day, visitor, int(found[3]))

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"{self.date}-{self.visitor_id & (2**64 - 1):016x}-{self.visit}"


@dataclass(frozen=True, slots=True)
class SessionsQuestion:
    """Which visits: those that began in the period and have an event that the filter holds for."""

    choice: Choice
    limit: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class VisitQuestion:
    """Which visit of a site, and which page of its events: a robot's may have millions."""

    site_id: str
    visit: VisitId
    limit: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Visit:
    """A visit, with VISIT_COLUMNS, events asked for, with EVENT_COLUMNS, and how many it has."""

    told: Row
    events: list[Row]
    total_rows: int


@dataclass(frozen=True, slots=True)
class Sessions:
    """The visits asked for, each with VISIT_COLUMNS, and how many there are in all."""

    rows: list[Row]
    total_rows: int


@made_once(of_choice)
def sessions(session: Session, answers: Answers, question: SessionsQuestion) -> Sessions:
    """Return a page of visits, the newest first."""
    start, end = (
        micros(each) for each in (question.choice.period.start, question.choice.period.end)
    )
    with chosen(session, answers, question.choice, cut=False) as found:
        fits = ""
        if question.choice.keep is not None:
            of_events = "SELECT DISTINCT timestamp::DATE AS date, visitor_id, visit"
            fits = f"SEMI JOIN ({of_events} FROM ({found.events})) fits USING ({_KEY})"
        visits = Sql(f"""
            FROM ({found.visits}) {fits}
            WHERE epoch_us(started_at) >= {start} AND epoch_us(started_at) < {end}""")
        rows = session.rows(
            Sql(f"""
            SELECT {_VISIT} {visits} ORDER BY started_at DESC, first_position DESC
            LIMIT {int(question.limit)} OFFSET {int(question.offset)}""")
        )
        ((total,),) = session.rows(Sql(f"SELECT count(*) {visits}"))
    return Sessions([dict(zip(VISIT_COLUMNS, row, strict=True)) for row in rows], total)


def visit(session: Session, answers: Answers, question: VisitQuestion) -> Visit:
    """Return a visit and a page of its events, in order; raises NotFound."""
    asked = question.visit
    day = Period.of_days(asked.date, asked.date, ZoneInfo("UTC"))
    own = Sql(f"visitor_id = {int(asked.visitor_id)} AND visit = {int(asked.visit)}")
    with chosen(session, answers, Choice(question.site_id, day)) as found:
        told = session.rows(Sql(f"SELECT {_VISIT} FROM ({found.visits}) WHERE {own}"))
        events = Sql(f"FROM ({found.events}) WHERE {own}")
        rows = session.rows(
            Sql(f"""
            SELECT {_EVENT} {events} ORDER BY {ORDER}
            LIMIT {int(question.limit)} OFFSET {int(question.offset)}""")
        )
        ((total,),) = session.rows(Sql(f"SELECT count(*) {events}"))
    if not told:
        raise NotFound("There is no such visit.")
    return Visit(
        dict(zip(VISIT_COLUMNS, told[0], strict=True)),
        [dict(zip(EVENT_COLUMNS, row, strict=True)) for row in rows],
        total,
    )
