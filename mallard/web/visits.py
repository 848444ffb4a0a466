"""`/api/stats/sessions` and `/api/stats/props`: visits one by one, and properties of events.

A single visit tells of a person more than any sum. So the list needs the scope `sql`, which allows
to look at single visits, as does one visit's page.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mallard.accounts.access import Scope
from mallard.query.plausible import names
from mallard.query.reports.props import Keys, PropsQuestion, props
from mallard.query.reports.sessions import (
    Sessions,
    SessionsQuestion,
    VisitId,
    VisitQuestion,
    sessions,
    visit,
)
from mallard.web.insight import PAGED, read, respond, run
from mallard.web.parameters import ROWS_MAX, check_names, is_csv, number
from mallard.web.reports import Caller, Reports
from mallard.web.stats import BREAKDOWN, ROWS, Row, Stats, csv_response

OF_ONE = ("site_id", "limit", "offset", "format")  # visit


class Visits:
    """Answers reports about single visits, and about properties, by their parameters."""

    def __init__(self, reports: Reports, stats: Stats) -> None:
        """stats: what answers for the values of a property."""
        self._reports = reports
        self._stats = stats

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/api/stats/sessions", self.sessions),
            Route("/api/stats/sessions/{id}", self.session),
            Route("/api/stats/props", self.props),
            Route("/api/stats/props/{key:path}", self.values),
        ]

    async def sessions(self, request: Request) -> Response:
        """Answer with visits, the newest first."""
        asked = await read(self._reports, request, PAGED, Scope.SQL)
        question = SessionsQuestion(asked.choice, *asked.page())
        found: Sessions = await run(self._reports, asked, sessions, question)
        rows = [_visit_row(asked.caller, row) for row in found.rows]
        return respond(asked, rows, total_rows=found.total_rows)

    async def session(self, request: Request) -> Response:
        """Answer with one visit and a row for each of its events."""
        given = request.query_params
        check_names(given, OF_ONE)
        caller = await self._reports.look(request, given.get("site_id"), Scope.SQL)
        as_csv = is_csv(given)
        visit_id = VisitId.read(request.path_params["id"])
        limit = number(given, "limit", ROWS, 1, ROWS_MAX)
        question = VisitQuestion(caller.site_id, visit_id, limit, number(given, "offset", 0))
        found = await self._reports.run(
            caller, lambda session, answers: visit(session, answers, question), ("visit", question)
        )
        rows = [_event_row(caller, row) for row in found.events]
        if as_csv:
            return csv_response(rows)
        told = _visit_row(caller, found.told)
        document = {"site_id": caller.site_id, "session": told, "total_rows": found.total_rows}
        return JSONResponse({**document, "rows": rows})

    async def props(self, request: Request) -> Response:
        """Answer with the keys of properties."""
        asked = await read(self._reports, request, PAGED)
        found: Keys = await run(
            self._reports, asked, props, PropsQuestion(asked.choice, *asked.page())
        )
        rows = [
            {"key": each.key, "visitors": each.visitors, "events": each.events}
            for each in found.rows
        ]
        return respond(asked, rows, total_rows=found.total_rows)

    async def values(self, request: Request) -> Response:
        """Answer with a row for each value of a property."""
        name = names.PROPERTY_PREFIX + request.path_params["key"]
        return await self._stats.listed(request, name, BREAKDOWN)


def _visit_row(caller: Caller, row: Row) -> Row:
    revenue: dict[str, Any] = row["revenue"] or {}
    return {
        "id": str(VisitId(row["date"], row["visitor_id"], row["visit"])),
        "user_id": row["user_id"],
        "started_at": _local(caller, row["started_at"]),
        "ended_at": _local(caller, row["ended_at"]),
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


def _event_row(caller: Caller, row: Row) -> Row:
    amount = row["revenue_amount"]
    return {
        "time": _local(caller, row["timestamp"], "milliseconds"),
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


def _local(caller: Caller, instant: datetime, to: str = "seconds") -> str:
    """Return one of DuckDB's instants in the site's time zone."""
    return instant.replace(tzinfo=UTC).astimezone(caller.context.zone).isoformat(timespec=to)
