"""`/api/v1/stats/...`: Plausible's Stats API v1, for clients that have not moved on.

A report here is a query of `/api/v2/query` in other words: `query/plausible/version_1.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mallard.errors import MallardError
from mallard.query.named.parameters import number
from mallard.query.plausible import version_1
from mallard.query.reports.realtime import RealtimeQuestion, realtime
from mallard.web.parameters import sent
from mallard.web.reports import Caller, Reports, plausible_problem

Json = dict[str, Any]


class StatsV1:
    """Answers reports by their parameters."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/api/v1/stats/realtime/visitors", _told(self.visitors)),
            Route("/api/v1/stats/aggregate", _told(self.aggregate)),
            Route("/api/v1/stats/timeseries", _told(self.timeseries)),
            Route("/api/v1/stats/breakdown", _told(self.breakdown)),
        ]

    async def visitors(self, request: Request) -> int:
        """Return how many visitors are there now."""
        caller = await self._caller(request, ("site_id",))
        now = caller.context.now.replace(microsecond=0)
        question = RealtimeQuestion(caller.site_id, now, caller.context.zone)
        found = await self._reports.run(
            caller,
            lambda session, answers: realtime(session, answers, question),
            ("realtime", question),
        )
        return found.visitors

    async def aggregate(self, request: Request) -> Json:
        """Return the numbers of a period."""
        caller = await self._caller(request, version_1.AGGREGATE)
        document = version_1.aggregate(request.query_params, _today(caller))
        found = await self._reports.answer(caller, document)
        return {"results": version_1.aggregated(document, found)}

    async def timeseries(self, request: Request) -> Json:
        """Return a row for each interval of a period."""
        caller = await self._caller(request, version_1.TIMESERIES)
        document = version_1.timeseries(request.query_params, _today(caller))
        found = await self._reports.answer(caller, document, every_interval=True)
        return {"results": version_1.series(document, found)}

    async def breakdown(self, request: Request) -> Json:
        """Return a row for each value of a property."""
        caller = await self._caller(request, version_1.BREAKDOWN)
        given = request.query_params
        limit = number(given, "limit", version_1.LIMIT, 1, version_1.LIMIT_MAX)
        page = number(given, "page", 1, 1)
        document = version_1.breakdown(given, _today(caller), limit, page)
        found = await self._reports.answer(caller, document)
        return {"results": version_1.broken_down(document, found)}

    async def _caller(self, request: Request, known: Sequence[str]) -> Caller:
        caller = await self._reports.look(request, request.query_params.get("site_id"))
        sent(request, known)
        return caller


def _told(report: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of a report: its answer as JSON, and errors as Plausible has them."""

    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(await report(request))
        except MallardError as error:
            return plausible_problem(error)

    return endpoint


def _today(caller: Caller) -> date:
    return caller.context.now.astimezone(caller.context.zone).date()
