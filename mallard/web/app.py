"""The web application: which path is answered by whom, and what every answer has in common.

Invariants: event paths are looked up before anything else. Whatever goes wrong, a caller sees one
JSON shape and no traceback, and the log gets no address, User-Agent or query string: of an
exception it gets the type and the places in the code, not the text, which may quote the input.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from mallard.accounts.accounts import Accounts
from mallard.config import Config, TrackerConfig
from mallard.errors import ConfigError, MallardError
from mallard.ingest.address import AddressReader
from mallard.ingest.pipeline import Pipeline
from mallard.web import pages, welcome
from mallard.web.admin import Admin
from mallard.web.auth import Guard
from mallard.web.body import BodyReader
from mallard.web.collect import Collector, Handler
from mallard.web.direct import DirectDoor, DirectRequests
from mallard.web.exports import Exporting, Exports
from mallard.web.openapi import route as openapi
from mallard.web.probes import Probes, Watched
from mallard.web.problems import describe, log_failure, problem
from mallard.web.reports import Answering, Reports
from mallard.web.sql import Querying, SqlDoor
from mallard.web.stats import Stats
from mallard.web.stats_v1 import StatsV1

_PAGE_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
_CODES = {404: "not_found", 405: "method_not_allowed"}


class Serving(Watched, Answering, Querying, Exporting, Protocol):
    """What the application needs of a `server.Server`."""

    config: Config
    pipeline: Pipeline
    accounts: Accounts

    def start(self) -> None:
        """Recover and begin to accept events; blocks."""

    def stop(self) -> None:
        """Settle, flush and let the data folder go; blocks."""


def create_app(server: Serving) -> Application:
    """Return the ASGI application; its lifespan starts and stops the server.

    Raises ConfigError for proxy settings that mean nothing, for paths of the tracker that are the
    paths of something else, and for a tracker that is not built.
    """
    bodies = BodyReader()
    collector = Collector(
        server.pipeline, AddressReader(server.config.proxy), server.telemetry, bodies
    )
    guard = Guard(server.accounts, server.config)
    doors: dict[str, Handler] = {}
    direct: dict[bytes, DirectDoor] = {}
    for path in server.config.tracker.event_paths:
        doors[path] = collector.event
        direct[path.encode()] = collector.event_at_once
        doors[f"{path}/batch"] = collector.batch
    tracker = server.config.tracker
    reports = Reports(server, guard, bodies)
    routes = [
        *Probes(server).routes(),
        *pages.routes(tracker),
        *welcome.routes(tracker),
        *Admin(server.accounts, guard, bodies).routes(),
        *reports.routes(),
        *Stats(reports).routes(),
        *StatsV1(reports).routes(),
        *SqlDoor(server, guard, bodies).routes(),
        *Exports(server, reports).routes(),
        *openapi.routes(tracker),
    ]
    _check_paths(tracker, doors, [route.path for route in routes])
    return Application(doors, direct, _pages(server, routes))


def _check_paths(tracker: TrackerConfig, doors: Iterable[str], routes: Sequence[str]) -> None:
    """Raise ConfigError for a path that would hide another one, or be hidden by it."""
    for path in doors:
        if path in routes:
            raise ConfigError(
                f"tracker.event_paths: {path} is the path of something else.",
                field="tracker.event_paths",
            )
    for path in pages.script_routes(tracker):
        if routes.count(path) > 1:
            raise ConfigError(
                f"tracker.script_paths: {path} is there twice, or the path of something else.",
                field="tracker.script_paths",
            )


class Application:
    """Dispatches events to their doors and everything else to Starlette."""

    def __init__(
        self, doors: dict[str, Handler], direct: dict[bytes, DirectDoor], rest: Starlette
    ) -> None:
        """direct: by the path of a request line, for `connection.Connection`."""
        self._doors = doors
        self.direct = DirectRequests(direct)
        self._rest = rest

    @property
    def paths(self) -> list[str]:
        """Every path that is answered, as its route is written."""
        rest = [route.path for route in self._rest.routes if isinstance(route, Route)]
        return [*self._doors, *rest]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope: a request, or the lifespan."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        handler = self._doors.get(scope["path"])
        try:
            if handler is not None:
                await handler(scope, receive, send)
            else:
                await self._rest(scope, receive, _with_page_headers(send))
        except Exception as error:  # noqa: BLE001  the top of a request
            log_failure(error)
            if handler is not None:
                await _fail(send)


def _pages(server: Serving, routes: list[Route]) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(server.start)
        try:
            yield
        finally:
            await asyncio.to_thread(server.stop)

    return Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            HTTPException: _http_problem,
            MallardError: _mallard_problem,
            Exception: _unknown_problem,
        },
    )


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "http_error")
    detail = {
        404: "There is nothing at this path.",
        405: "This path does not take that method.",
    }.get(error.status_code, error.detail)
    return JSONResponse({"error": code, "detail": detail}, error.status_code, error.headers)


async def _mallard_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, MallardError)
    status, headers, body = problem(error)
    if status == 500:
        log_failure(error)
    names = {name.decode(): value.decode() for name, value in headers}
    return Response(body, status, names)


async def _unknown_problem(request: Request, error: Exception) -> Response:
    # Starlette raises it again after this answer, and `Application` logs it.
    return JSONResponse(describe(MallardError("")), 500)


async def _fail(send: Send) -> None:
    """Answer 500 where a door failed before it answered; no door can fail in between."""
    status, headers, body = problem(MallardError(""))
    allow = (b"access-control-allow-origin", b"*")
    await send({"type": "http.response.start", "status": status, "headers": [*headers, allow]})
    await send({"type": "http.response.body", "body": body})


def _with_page_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _PAGE_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
