"""The panels of a dashboard, as questions to Mallard and as plain SQL over parts of level 1.

The plain SQL is what someone would write who has the events, each with its visit, and nothing
else: distinct visitors are counted, and visits are grouped, each time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from mallard.cli.benchmark.answers_store import SITE
from mallard.query.dimensions import By, Dimension, Property
from mallard.query.filters import Filter
from mallard.query.period import Interval, Period
from mallard.query.reports.table import ROWS_MAX, Metric, Question
from mallard.query.sql import Sql

SUMMARY = (
    *(Metric.VISITORS, Metric.VISITS, Metric.PAGEVIEWS, Metric.EVENTS),
    *(Metric.VIEWS_PER_VISIT, Metric.BOUNCE_RATE, Metric.VISIT_DURATION),
)
LISTED = (Metric.VISITORS, Metric.PAGEVIEWS)
OF_EVENTS = (Dimension.PAGE, Dimension.NAME)
OF_VISITS = (
    *(Dimension.SOURCE, Dimension.CHANNEL, Dimension.UTM_CAMPAIGN, Dimension.ENTRY_PAGE),
    *(Dimension.COUNTRY, Dimension.CITY, Dimension.BROWSER, Dimension.OS, Dimension.DEVICE),
)
PROPERTY = Property("plan")
ROWS = 10
UTC = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of a screen. plain: the SQL that says the same over a view `events`."""

    name: str
    question: Question
    plain: Sql

    def with_more_rows(self, more: int) -> Panel:
        """Return a panel of the same numbers that may have so many rows more."""
        limit = (self.question.limit or ROWS_MAX) + more
        return replace(self, question=replace(self.question, limit=limit))

    @property
    def document(self) -> dict[str, Any]:
        """The same as a query of Stats API v2, for a server; without filters."""
        asked = self.question
        dimensions = [str(each.value) for each in asked.by]
        if asked.interval:
            dimensions = [f"time:{asked.interval.value}"]
        return {
            "site_id": asked.site_id,
            "metrics": [each.value for each in asked.metrics],
            "date_range": [asked.period.first_day.isoformat(), asked.period.last_day.isoformat()],
            "dimensions": dimensions,
            "pagination": {"limit": 10_000 if asked.interval else ROWS},
        }


_VISITS = """
    SELECT timestamp::DATE AS date, visitor_id, visit,
        count(*) FILTER (event_type = 'page') AS pageviews,
        count(*) FILTER (interactive AND event_type NOT IN ('page', 'engagement')) AS deeds,
        max(timestamp) - min(timestamp) AS lasted{}
    FROM events WHERE visit IS NOT NULL GROUP BY ALL
"""
_IS_PAGE = "event_type = 'page'"
_IS_COUNTED = "event_type <> 'engagement'"


def summary(first: date, last: date, zone: ZoneInfo = UTC) -> Panel:
    """Return the numbers at the top of a screen, of whole local days."""
    plain = Sql(f"""
        SELECT (SELECT count(DISTINCT visitor_id) FROM events WHERE {_IS_COUNTED}) AS visitors,
            count(*) AS visits, (SELECT count(*) FROM events WHERE {_IS_PAGE}) AS pageviews,
            (SELECT count(*) FROM events WHERE {_IS_COUNTED}) AS events,
            avg(pageviews), avg((pageviews = 1 AND deeds = 0)::INT), avg(epoch_ms(lasted))
        FROM ({_VISITS.format("")})""")
    return Panel("summary", _question(first, last, zone, SUMMARY), plain)


def series(first: date, last: date, zone: ZoneInfo = UTC) -> Panel:
    """Return the curve of a screen, a point a day."""
    plain = Sql(f"""
        SELECT timestamp::DATE AS day, count(DISTINCT visitor_id) FILTER ({_IS_COUNTED}),
            count(*) FILTER ({_IS_PAGE})
        FROM events GROUP BY day ORDER BY day""")
    asked = _question(first, last, zone, LISTED, interval=Interval.DAY)
    return Panel("series by day", asked, plain)


def breakdown(
    by: By,
    first: date,
    last: date,
    zone: ZoneInfo = UTC,
    keep: Filter | None = None,
) -> Panel:
    """Return the most visited values of a dimension. The plain SQL knows no filter."""
    asked = _question(
        first, last, zone, LISTED, by=(by,), keep=keep, order=(("visitors", True),), limit=ROWS
    )
    if by in OF_VISITS:
        assert isinstance(by, Dimension)
        visits = _VISITS.format(f", arg_min_null({by.sql}, timestamp) AS value")
        if by is Dimension.ENTRY_PAGE:
            visits = _VISITS.format(f", arg_min(pathname, timestamp) FILTER ({_IS_PAGE}) AS value")
        plain = Sql(f"""
            SELECT value, count(DISTINCT visitor_id) AS visitors, sum(pageviews)
            FROM ({visits}) GROUP BY value ORDER BY visitors DESC, value LIMIT {ROWS}""")
    else:
        plain = Sql(f"""
            SELECT {by.sql} AS value, count(DISTINCT visitor_id) AS visitors,
                count(*) FILTER ({_IS_PAGE})
            FROM events WHERE {_IS_COUNTED}
            GROUP BY value ORDER BY visitors DESC, value LIMIT {ROWS}""")
    return Panel(str(by.value), asked, plain)


def dashboard(first: date, last: date, zone: ZoneInfo = UTC) -> list[Panel]:
    """Return every panel of one screen."""
    return [
        summary(first, last, zone),
        series(first, last, zone),
        *(breakdown(by, first, last, zone) for by in (*OF_EVENTS, *OF_VISITS)),
    ]


def _question(
    first: date, last: date, zone: ZoneInfo, metrics: tuple[Metric, ...], **more: Any
) -> Question:
    return Question(SITE, Period.of_days(first, last, zone), metrics, **more)
