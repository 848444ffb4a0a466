"""`GET /api/export`: a site's events, visits or a report, whole, as they are made."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from mallard.accounts.access import Scope
from mallard.config import Config
from mallard.errors import Overloaded
from mallard.query.forms import Form
from mallard.query.named.asking import Asking
from mallard.query.named.parameters import word
from mallard.query.named.whole import FORMS, Whole
from mallard.query.pieces import Wanted, What
from mallard.query.sandbox import Query
from mallard.transfer.exporter import Exporter, parameters_of, read_wanted
from mallard.web.leaving import gone_of, while_there
from mallard.web.parameters import sent
from mallard.web.reports import Reports

OWN = ("what", "format", "visitors")  # parameters that all exports have


class Exporting(Protocol):
    """What exports need of a `server.Server`."""

    config: Config
    exporter: Exporter


class Exports:
    """Answers exports, a few at once."""

    def __init__(self, server: Exporting, reports: Reports) -> None:
        self._exporter = server.exporter
        self._most = server.config.query.exports
        self._reports = reports
        self._under_way = 0

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route("/api/export", self.export, methods=["GET"])]

    async def export(self, request: Request) -> Response:
        """Answer with rows as they come; a client that goes away ends the work."""
        wanted, form = await self._read(request)
        if request.method == "HEAD":
            return Response(headers=_headers(wanted, form), media_type=form.media_type)
        if self._under_way >= self._most:
            raise Overloaded("Other exports are under way; ask again later.", retry_after_seconds=5)
        self._under_way += 1
        try:
            under_way = self._exporter.start(wanted, form)
            return await _Streamed.begin(self, under_way, wanted, form, gone_of(request))
        except BaseException:
            self.done()
            raise

    def done(self) -> None:
        """Let another one begin."""
        self._under_way -= 1

    async def _read(self, request: Request) -> tuple[Wanted | Whole, Form]:
        first = request.query_params
        visitors = word(first, "visitors", ("true", "false"), "false") == "true"
        scope = Scope.ADMIN if visitors else Scope.EXPORT
        caller = await self._reports.look(request, first.get("site_id"), scope)
        what = first.get("what", What.EVENTS.value)
        given = sent(request, (*parameters_of(what), *OWN))
        form = Form(word(given, "format", FORMS, Form.CSV))
        own = {name: value for name, value in given.items() if name not in OWN}
        asking = Asking(caller.site, caller.context, own, default_period="all", with_ids=visitors)
        return read_wanted(what, asking), form


class _Streamed(StreamingResponse):
    """Sends what a query gives, and leaves nothing of it behind however it ends."""

    @classmethod
    async def begin(
        cls,
        exports: Exports,
        under_way: contextlib.AbstractContextManager[Query],
        wanted: Wanted | Whole,
        form: Form,
        gone: asyncio.Event | None,
    ) -> _Streamed:
        """Return a response whose first bytes are there; raises what keeps them from coming.

        gone: set when nobody waits for them any more.
        """
        stack = contextlib.ExitStack()
        query = await asyncio.to_thread(stack.enter_context, under_way)
        try:
            # Of a large report they take long.
            first = await while_there(gone, asyncio.to_thread(query.read))
            if not first:
                await asyncio.to_thread(query.finish)
        except BaseException:
            await asyncio.to_thread(stack.close)
            raise
        response = cls(
            _chunks(query, first),
            headers=_headers(wanted, form),
            media_type=form.media_type,
        )
        response._exports, response._stack = exports, stack
        return response

    _exports: Exports
    _stack: contextlib.ExitStack

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._exports.done()
            # Shielded: who goes away cancels what waits here, and not the end of the work.
            await asyncio.shield(asyncio.to_thread(self._stack.close))


async def _chunks(query: Query, first: bytes) -> AsyncIterator[bytes]:
    some = first
    while some:
        yield some
        some = await asyncio.to_thread(query.read)
    # What fails after the first bytes can only break the connection off, so that nobody takes
    # what came for all there is.
    await asyncio.to_thread(query.finish)


def _headers(wanted: Wanted | Whole, form: Form) -> dict[str, str]:
    return {
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "content-disposition": f'attachment; filename="{wanted.file_stem}.{form}"',
    }
