"""Who is there now: what visitors did in the last minutes.

Someone is there who did anything, or looked at a page, within CURRENT_MINUTES. They are where their
last pageview was. As visitors are of one UTC day, who is there across midnight is there twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from mallard.query.answers import Answers
from mallard.query.dimensions import By, Dimension
from mallard.query.engine import Session
from mallard.query.filters import Filter
from mallard.query.period import Period, micros
from mallard.query.reports.chosen import ORDER, Choice, Chosen, chosen, valued
from mallard.query.sessions import visits
from mallard.query.sql import Sql

CURRENT_MINUTES = 5
MINUTES = 30
_MINUTE_US = 60_000_000
_TOLD = (Dimension.PAGE, Dimension.SOURCE, Dimension.COUNTRY)
_PAGES = " FILTER (event_type = 'page')"


@dataclass(frozen=True, slots=True)
class RealtimeQuestion:
    """What is asked. now: aware. rows: the most values of each list."""

    site_id: str
    now: datetime
    zone: ZoneInfo
    keep: Filter | None = None
    rows: int = 10


@dataclass(frozen=True, slots=True)
class Minute:
    """A whole minute, or what has passed of it: who was there in it, and what they looked at."""

    start: datetime
    visitors: int
    pageviews: int


@dataclass(frozen=True, slots=True)
class Realtime:
    """Current visitors; the last MINUTES minutes, all of them, oldest first; and top lists.

    A list has pairs of a value, None where there is none, and how many current visitors have it.
    """

    visitors: int
    minutes: list[Minute]
    pages: list[tuple[str | None, int]]
    sources: list[tuple[str | None, int]]
    countries: list[tuple[str | None, int]]


def realtime(session: Session, answers: Answers, question: RealtimeQuestion) -> Realtime:
    """Answer from the days that the last minutes are in, and nothing before."""
    this_minute = question.now.replace(second=0, microsecond=0)
    start = this_minute - timedelta(minutes=MINUTES - 1)
    # What is stamped a moment ahead, by another clock, is there too.
    end = this_minute + timedelta(minutes=1)
    period = Period(start, end, question.zone)
    choice = Choice(question.site_id, period, question.keep)
    since = micros(question.now - timedelta(minutes=CURRENT_MINUTES))
    with chosen(session, answers, choice) as found:
        counted = {row[0]: row[1:] for row in session.rows(_by_minute(found, micros(start)))}
        current = session.take(session.table(_current(found, since)))
        ((visitors,),) = session.rows(Sql(f"SELECT count(*) FROM {current}"))
        lists = [session.rows(_top(current, each, question.rows)) for each in _TOLD]
    minutes = [
        Minute(start + timedelta(minutes=number), *counted.get(number, (0, 0)))
        for number in range(MINUTES)
    ]
    return Realtime(visitors, minutes, *lists)


def _by_minute(found: Chosen, start_us: int) -> Sql:
    return Sql(f"""
        SELECT (epoch_us(timestamp) - {start_us}) // {_MINUTE_US} AS minute,
            count(DISTINCT (timestamp::DATE, visitor_id)) FILTER (visitor_id IS NOT NULL),
            count(*) FILTER (event_type = 'page')
        FROM ({found.events}) GROUP BY minute""")


def _current(found: Chosen, since_us: int) -> Sql:
    """A row for each current visitor: the last page they saw, and what their last visit tells."""
    current = Sql(f"""
        FROM ({found.events})
        WHERE epoch_us(timestamp) > {since_us} AND visitor_id IS NOT NULL""")
    # Of all the day's visits only theirs are made up.
    theirs = Sql(f"FROM ({found.days}) SEMI JOIN ({current}) USING (visitor_id)")
    last = ", ".join(
        f"arg_max_null({each.column}, {ORDER}){_PAGES if each is Dimension.PAGE else ''} "
        f"AS {each.column}"
        for each in _TOLD
    )
    return Sql(f"""
        SELECT date, visitor_id, {last}
        FROM ({valued(current, visits(theirs), _TOLD)}) GROUP BY date, visitor_id""")


def _top(current: Sql, by: By, rows: int) -> Sql:
    return Sql(f"""
        SELECT {by.column} AS value, count(*) AS visitors FROM {current}
        GROUP BY value ORDER BY visitors DESC, value NULLS LAST LIMIT {int(rows)}""")
