"""`POST /api/sql`: one SELECT over the events and visits of the caller's sites."""

from __future__ import annotations

from typing import Protocol

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mallard.accounts import checks
from mallard.accounts.access import Principal, Scope
from mallard.clock import Clock
from mallard.errors import InvalidInput
from mallard.query.answers import Answers
from mallard.query.engine import Engine
from mallard.query.forms import Form
from mallard.query.permitted import SQL_LENGTH_MAX
from mallard.query.plausible.reading import read_as_of
from mallard.query.sandbox import Answer, Sandbox
from mallard.web.auth import Guard
from mallard.web.body import BodyReader
from mallard.web.leaving import gone_of, while_there
from mallard.web.reports import owner_of

# The SQL in UTF-8, and as JSON writes it.
BODY_BYTES_MAX = 6 * SQL_LENGTH_MAX
_FIELDS = ("sql", "format", "site_id", "as_of")


class Querying(Protocol):
    """What SQL needs of a `server.Server`."""

    clock: Clock
    engine: Engine
    answers: Answers
    sandbox: Sandbox


class SqlDoor:
    """Answers SQL of those who may ask."""

    def __init__(self, server: Querying, guard: Guard, bodies: BodyReader) -> None:
        self._server = server
        self._guard = guard
        self._bodies = bodies

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route("/api/sql", self.ask, methods=["POST"])]

    async def ask(self, request: Request) -> Response:
        """Answer `{"sql", "format", "site_id", "as_of"}` with rows in that format."""
        principal = await self._guard.principal(request)
        document = checks.known_fields(
            await self._bodies.document(request, BODY_BYTES_MAX), _FIELDS
        )
        sql = document.get("sql")
        if not isinstance(sql, str) or not sql.strip():
            raise InvalidInput("There is no SQL.", field="sql", rule="a SELECT")
        form = Form(checks.one_of(document, "format", [*Form], Form.JSON))
        sites = _sites(principal, document.get("site_id"))
        server = self._server
        as_of_us = read_as_of(document.get("as_of"), server.clock.now())
        asked = server.engine.run(
            lambda session: server.sandbox.ask(sql, form, sites, session.ends_with, as_of_us),
            owner=owner_of(principal, request),
            key=("sql", sql, form, sites, as_of_us),
            version=server.answers.version(),
        )
        return _response(await while_there(gone_of(request), asked), form)


def _sites(principal: Principal, site_id: object) -> frozenset[str] | None:
    """Return the sites that are asked about, which the caller may see; None is every one."""
    if site_id is not None:
        one = checks.site_id(site_id)
        principal.require(Scope.SQL, one)
        return frozenset({one})
    principal.require(Scope.SQL, min(principal.sites) if principal.sites else None)
    return principal.sites


def _response(answer: Answer, form: Form) -> Response:
    content = answer.content
    if form is Form.JSON:
        columns = orjson.dumps(answer.columns)
        content = b'{"columns":%b,"row_count":%d,"rows":%b}' % (columns, answer.rows, content)
    return Response(
        content,
        media_type=form.media_type,
        headers={"cache-control": "no-store", "x-content-type-options": "nosniff"},
    )
