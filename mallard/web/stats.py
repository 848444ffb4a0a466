"""`/api/stats/...`: every report of `query/named`, for curl and spreadsheets, as JSON or CSV."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mallard.accounts.access import Scope
from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.forms import Form
from mallard.query.named.asking import Asked, Asking, Found
from mallard.query.named.parameters import word
from mallard.query.named.registry import REPORTS, Report
from mallard.query.named.whole import csv_text
from mallard.web.parameters import sent
from mallard.web.reports import Caller, Reports

FORMATS = ("json", "csv")


class Stats:
    """Answers reports by their parameters."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def routes(self) -> list[Route]:
        """Return the routes: one for each report."""
        return [Route(path_of(report), self._told(report)) for report in REPORTS]

    def _told(self, report: Report) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint of a report."""

        async def endpoint(request: Request) -> Response:
            return await self._answer(report, request)

        return endpoint

    async def _answer(self, report: Report, request: Request) -> Response:
        given = sent(request, report.parameters)
        caller = await self._reports.look(request, given.get("site_id"), scope_of(report))
        argument = request.path_params.get(report.argument, "")
        asking = Asking(caller.site, caller.context, given, argument)
        as_csv = word(given, "format", FORMATS, "json") == "csv"
        asked = report.read(asking)

        def work(session: Session, answers: Answers) -> Found:
            return asked.answer(session, answers, asked.page)

        found = await self._reports.run(caller, work, _key(report, asking, asked))
        if as_csv:
            return _csv(asked, found)
        return JSONResponse(_document(caller, asking, asked, found))


def path_of(report: Report) -> str:
    """Return a report's path, as a route has it."""
    path = f"/api/stats/{report.name}"
    return f"{path}/{{{report.argument}:path}}" if report.argument else path


def scope_of(report: Report) -> Scope:
    """Return what a key must be for that asks for a page of a report."""
    return Scope.SQL if report.of_visits else Scope.STATS


def _key(report: Report, asking: Asking, asked: Asked) -> tuple[object, ...]:
    """Name a question but for its site: the same, asked at the same time, is answered once."""
    given = tuple(sorted((*each,) for each in asking.given.items() if each[0] != "format"))
    return report.name, asking.argument, given, asked.period


def _document(caller: Caller, asking: Asking, asked: Asked, found: Found) -> Mapping[str, object]:
    start, end = asking.bounds(asked.period)
    period = {} if found.bare else {"from": start, "to": end}
    return {"site_id": caller.site_id, **period, **found.head, "rows": found.rows}


def _csv(asked: Asked, found: Found) -> Response:
    """Return rows as CSV (RFC 4180)."""
    text = csv_text(found.rows, asked.columns)
    return Response(text, media_type=Form.CSV.media_type)
