"""Statistics over HTTP: `/api/v2/query`, as Plausible's Stats API has it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol, TypeVar
from zoneinfo import ZoneInfo

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mallard.accounts import checks
from mallard.accounts.access import Principal, Scope
from mallard.accounts.directory import Directory
from mallard.clock import Clock, to_datetime
from mallard.errors import InvalidInput, MallardError
from mallard.query.answers import Answers
from mallard.query.engine import Engine, Session
from mallard.query.plausible.answering import answer
from mallard.query.plausible.filtering import Context
from mallard.query.plausible.reading import read_query
from mallard.site import Site
from mallard.web.auth import Guard
from mallard.web.body import BodyReader
from mallard.web.leaving import gone_of, while_there
from mallard.web.problems import describe_as_plausible, problem, status_of

BODY_BYTES_MAX = 64 * 1024

T = TypeVar("T")


class Answering(Protocol):
    """What reports need of a `server.Server`."""

    clock: Clock
    engine: Engine
    answers: Answers


@dataclass(frozen=True, slots=True)
class Caller:
    """Who may ask about a site.

    owner: in whose turn they wait. version: of what is said of it. gone: set when they have left.
    """

    site: Site
    owner: str
    context: Context
    version: Hashable
    gone: asyncio.Event | None = None

    @property
    def site_id(self) -> str:
        """The site's name."""
        return self.site.site_id


class Reports:
    """Answers questions about a site's events, for those who may ask."""

    def __init__(self, server: Answering, guard: Guard, bodies: BodyReader) -> None:
        self._server = server
        self._guard = guard
        self._bodies = bodies

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route("/api/v2/query", self.query, methods=["POST"])]

    async def query(self, request: Request) -> Response:
        """Answer a query of Plausible's Stats API v2."""
        try:
            return JSONResponse(await self._answer(request))
        except MallardError as error:
            return plausible_problem(error)

    async def _answer(self, request: Request) -> dict[str, Any]:
        document = await self._bodies.document(request, BODY_BYTES_MAX)
        if not isinstance(document, dict):
            raise InvalidInput("The query is no JSON object.", rule="an object")
        return await self.ask(request, document)

    async def ask(
        self, request: Request, document: dict[str, Any], *, every_interval: bool = False
    ) -> dict[str, Any]:
        """Answer a query's document for who sent the request; raises what may be wrong with it."""
        caller = await self.look(request, document.get("site_id"))
        return await self.answer(caller, document, every_interval=every_interval)

    async def answer(
        self, caller: Caller, document: dict[str, Any], *, every_interval: bool = False
    ) -> dict[str, Any]:
        """Answer a query's document for a caller; raises what may be wrong with it.

        every_interval: of a query by time alone, a row for each interval, without events too.
        """
        document = {**document, "site_id": caller.site_id}
        asked = read_query(document, caller.context)
        asked = dataclasses.replace(asked, every_interval=every_interval)
        key = orjson.dumps(document, option=orjson.OPT_SORT_KEYS), asked.period, every_interval
        return await self.run(
            caller,
            lambda session, answers: answer(session, answers, asked, caller.context.goals),
            key,
        )

    async def look(self, request: Request, site_id: object, scope: Scope = Scope.STATS) -> Caller:
        """Return who asks about a site. Raises what says that they may not, or about which one."""
        principal, directory = await self._guard.look(request)
        if not isinstance(site_id, str):
            raise InvalidInput("The query names no site.", field="site_id", rule="a site's name")
        site_id = checks.site_id(site_id)
        principal.require(scope, site_id)
        # Not on the event loop: it may have to look through what came in since the last question.
        first_day = await asyncio.to_thread(self._server.answers.first_date, site_id)
        context = self._context(directory, site_id, first_day)
        owner = owner_of(principal, request)
        version = site_id, directory.version
        return Caller(directory.site(site_id), owner, context, version, gone_of(request))

    async def run(self, caller: Caller, work: Callable[[Session, Answers], T], key: Hashable) -> T:
        """Return what work answers in the caller's turn, as long as the caller is there.

        key: all of the question but its site.
        """
        answers = self._server.answers
        asked = self._server.engine.run(
            lambda session: work(session, answers),
            owner=caller.owner,
            key=(key, caller.version),
            version=answers.version(),
        )
        return await while_there(caller.gone, asked)

    def _context(self, directory: Directory, site_id: str, first_day: date | None) -> Context:
        return Context(
            ZoneInfo(directory.site(site_id).timezone),
            to_datetime(self._server.clock.now_us()),
            first_day,
            directory.goals_of(site_id),
            directory.segments_of(site_id),
        )


def plausible_problem(error: MallardError) -> Response:
    """Return the response to an error that clients of Plausible read; our own failures pass on."""
    if status_of(error) == 500:
        raise error
    status, headers, body = problem(error, describe_as_plausible)
    return Response(body, status, {name.decode(): value.decode() for name, value in headers})


def owner_of(principal: Principal, request: Request) -> str:
    """Return in whose turn a question waits: the key's, or the address's on an open server."""
    if principal.key_id is not None:
        return f"key {principal.key_id}"
    return request.client.host if request.client else ""
