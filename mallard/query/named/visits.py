"""Visits one by one, one visit's events, and the keys of properties."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from mallard.errors import InvalidInput
from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.named.asking import PAGED, PAGES, Asked, Asking, Found, Page
from mallard.query.named.columns import Column, Kind, Row, columns
from mallard.query.named.parameters import ROWS_MAX
from mallard.query.period import Period, midnight
from mallard.query.reports import sessions as single
from mallard.query.reports.chosen import Choice
from mallard.query.reports.props import PropsQuestion
from mallard.query.reports.props import props as ask_props
from mallard.query.reports.sessions import SessionsQuestion, VisitId, VisitQuestion

OF_SESSIONS = PAGED
OF_SESSION = ("site_id", *PAGES, "format")
OF_PROPS = PAGED

_DAY = timedelta(days=1)
_WHO = ("id", "user_id")  # the one names the visitor
_VISIT = (
    *columns(Kind.TEXT, *_WHO),
    *columns(Kind.INSTANT, "started_at", "ended_at"),
    *columns(Kind.WHOLE, "duration", "pageviews", "events"),
    *columns(Kind.FLAG, "bounce"),
    *columns(Kind.TEXT, "entry_page", "exit_page", "hostname", "source", "channel", "referrer"),
    *columns(Kind.TEXT, "utm_source", "utm_medium", "utm_campaign", "country", "region", "city"),
    *columns(Kind.TEXT, "device", "browser", "os", "language"),
    *columns(Kind.NUMBER, "engaged_seconds"),
    *columns(Kind.AMOUNTS, "revenue"),
)
_EVENT = (
    *columns(Kind.INSTANT, "time"),
    *columns(Kind.TEXT, "name", "type", "hostname", "page"),
    *columns(Kind.OBJECT, "props"),
    *columns(Kind.AMOUNT, "revenue"),
    *columns(Kind.TEXT, "currency"),
    *columns(Kind.NUMBER, "engaged_seconds", "scroll_depth"),
)


def sessions(asking: Asking) -> Asked:
    """Visits, the newest first."""
    choice = asking.choice()

    def of(choice: Choice) -> Asked:
        def answered(session: Session, answers: Answers, page: Page) -> Found:
            question = SessionsQuestion(choice, page.limit, page.offset)
            found = single.sessions(session, answers, question)
            rows = [_visit_row(asking, row) for row in found.rows]
            return Found(rows, {"total_rows": found.total_rows}, len(rows))

        told = [each for each in _VISIT if asking.with_ids or each.name not in _WHO]
        return Asked(choice.period, tuple(told), answered, asking.page(), ROWS_MAX)

    def parts() -> Iterator[Asked]:
        for period in _days(asking, choice.period):
            yield of(replace(choice, period=period))

    # To put a year's visits in order for each page of them would take a year's visits each time.
    return replace(of(choice), parts=parts)


def _days(asking: Asking, period: Period) -> Iterator[Period]:
    """Yield the days of a period, the last first; those that nothing is of as one."""
    context = asking.context
    zone = context.zone
    today = context.now.astimezone(zone).date()
    last = min(period.last_day, today)
    first = max(period.first_day, (context.first_day or today) - _DAY)
    cuts = {period.start, period.end}
    day = first
    while day <= last + _DAY:
        at = midnight(day, zone).astimezone(UTC)
        if period.start < at < period.end:
            cuts.add(at)
        day += _DAY
    ordered = sorted((cut.astimezone(UTC) for cut in cuts), reverse=True)
    for end, start in pairwise(ordered):
        yield Period(start, end, zone)


def session(asking: Asking) -> Asked:
    """One visit and a row for each of its events, in order."""
    if not asking.with_ids:
        raise InvalidInput(
            "What names a visit names its visitor.",
            field="visitors",
            rule="true, which is for an admin",
        )
    visit_id = VisitId.read(asking.argument)
    question = VisitQuestion(asking.site.site_id, visit_id, ROWS_MAX)

    def answered(session: Session, answers: Answers, page: Page) -> Found:
        asked = replace(question, limit=page.limit, offset=page.offset)
        found = single.visit(session, answers, asked)
        rows = [_event_row(asking, row) for row in found.events]
        head = {"session": _visit_row(asking, found.told), "total_rows": found.total_rows}
        return Found(rows, head, len(rows), bare=True)

    day = Period.of_days(visit_id.date, visit_id.date, ZoneInfo("UTC"))
    return Asked(day, _EVENT, answered, asking.page(), ROWS_MAX)


def props(asking: Asking) -> Asked:
    """The keys of properties, those of most events first."""
    choice = asking.choice()

    def answered(session: Session, answers: Answers, page: Page) -> Found:
        found = ask_props(session, answers, PropsQuestion(choice, page.limit, page.offset))
        rows = [
            {"key": each.key, "visitors": each.visitors, "events": each.events}
            for each in found.rows
        ]
        return Found(rows, {"total_rows": found.total_rows}, len(rows))

    told = (Column("key", Kind.TEXT), *columns(Kind.WHOLE, "visitors", "events"))
    return Asked(choice.period, told, answered, asking.page(), ROWS_MAX)


def _visit_row(asking: Asking, row: Row) -> Row:
    revenue: dict[str, Any] = row["revenue"] or {}
    return {
        "id": str(VisitId(row["date"], row["visitor_id"], row["visit"])),
        "user_id": row["user_id"],
        "started_at": _local(asking, row["started_at"]),
        "ended_at": _local(asking, row["ended_at"]),
        "duration": round(row["duration_ms"] / 1000),
        "pageviews": row["pageviews"],
        "events": row["events"],
        "bounce": row["bounce"],
        "entry_page": row["entry_page"],
        "exit_page": row["exit_page"],
        "hostname": row["entry_hostname"],
        "source": row["referrer_source"],
        "channel": row["channel"],
        **{name: row[name] for name in ("referrer", "utm_source", "utm_medium", "utm_campaign")},
        "country": row["country_code"],
        **{name: row[name] for name in ("region", "city")},
        "device": row["device_type"],
        **{name: row[name] for name in ("browser", "os", "language")},
        "engaged_seconds": None if row["engaged_ms"] is None else row["engaged_ms"] / 1000,
        "revenue": {currency: float(amount) for currency, amount in revenue.items()},
    }


def _event_row(asking: Asking, row: Row) -> Row:
    amount = row["revenue_amount"]
    return {
        "time": _local(asking, row["timestamp"], "milliseconds"),
        "name": row["event_name"],
        "type": row["event_type"],
        "hostname": row["hostname"],
        "page": row["pathname"],
        "props": orjson.loads(row["props"]) if row["props"] else {},
        "revenue": None if amount is None else float(amount),
        "currency": row["revenue_currency"],
        "engaged_seconds": None if row["engaged_ms"] is None else row["engaged_ms"] / 1000,
        "scroll_depth": row["scroll_depth"],
    }


def _local(asking: Asking, instant: datetime, to: str = "seconds") -> str:
    """Return one of DuckDB's instants in the site's time zone."""
    return asking.local(instant.replace(tzinfo=UTC), to)
