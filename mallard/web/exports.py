"""`GET /api/export`: a site's events, visits or a report, whole, as they are made."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
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
from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.forms import Form
from mallard.query.named.parameters import Given, word
from mallard.query.period import Period
from mallard.query.pieces import Wanted, What
from mallard.query.plausible.ranges import read_range
from mallard.query.sandbox import Query
from mallard.transfer.exporter import Exporter
from mallard.transfer.reports import Report, dimension_of, write_report
from mallard.web.parameters import sent
from mallard.web.reports import Caller, Reports

FORMS = (Form.CSV, Form.NDJSON, Form.PARQUET)
# In a file's name, or in a header; a dimension of properties may hold any character.
_UNFIT = re.compile("[^A-Za-z0-9._-]")
_PARAMETERS = ("site_id", "from", "to", "format", "what", "visitors")


class Exporting(Protocol):
    """What exports need of a `server.Server`."""

    config: Config
    exporter: Exporter


class Exports:
    """Answers exports, a few at once."""

    def __init__(self, server: Exporting, reports: Reports) -> None:
        self._exporter = server.exporter
        self._most = server.config.query.exports
        self._rows_max = server.config.query.sql_rows_max
        self._reports = reports
        self._under_way = 0

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route("/api/export", self.export, methods=["GET"])]

    async def export(self, request: Request) -> Response:
        """Answer with rows as they come; a client that goes away ends the work."""
        given = sent(request, _PARAMETERS)
        visitors = word(given, "visitors", ("true", "false"), "false") == "true"
        scope = Scope.ADMIN if visitors else Scope.EXPORT
        caller = await self._reports.look(request, given.get("site_id"), scope)
        form = Form(word(given, "format", FORMS, Form.CSV))
        what = given.get("what", What.EVENTS.value)
        if what not in [*What]:
            return await self._report(caller, given, what, form)
        wanted = Wanted(caller.site_id, What(what), _period(given, caller), visitors)
        if request.method == "HEAD":
            return Response(headers=_headers(wanted.file_stem, form), media_type=form.media_type)
        if self._under_way >= self._most:
            raise Overloaded("Other exports are under way; ask again later.", retry_after_seconds=5)
        self._under_way += 1
        try:
            under_way = self._exporter.start(wanted, form)
            return await _Streamed.begin(self, under_way, wanted, form)
        except BaseException:
            self.done()
            raise

    def done(self) -> None:
        """Let another one begin."""
        self._under_way -= 1

    async def _report(self, caller: Caller, given: Given, what: str, form: Form) -> Response:
        wanted = Report(caller.site_id, dimension_of(what), _date_range(given))

        def written(session: Session, answers: Answers) -> bytes:
            sink = io.BytesIO()
            context, most = caller.context, self._rows_max
            write_report(session, answers, context, wanted, form, sink, most)
            return sink.getvalue()

        key = ("export", wanted.dimension, str(wanted.date_range), form)
        content = await self._reports.run(caller, written, key)
        stem = f"{caller.site_id}_{what}"
        return Response(content, headers=_headers(stem, form), media_type=form.media_type)


class _Streamed(StreamingResponse):
    """Sends what a query gives, and leaves nothing of it behind however it ends."""

    @classmethod
    async def begin(
        cls,
        exports: Exports,
        under_way: contextlib.AbstractContextManager[Query],
        wanted: Wanted,
        form: Form,
    ) -> _Streamed:
        """Return a response whose first bytes are there; raises what keeps them from coming."""
        stack = contextlib.ExitStack()
        query = await asyncio.to_thread(stack.enter_context, under_way)
        try:
            first = await asyncio.to_thread(query.read)
            if not first:
                await asyncio.to_thread(query.finish)
        except BaseException:
            await asyncio.to_thread(stack.close)
            raise
        response = cls(
            _chunks(query, first),
            headers=_headers(wanted.file_stem, form),
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


def _date_range(given: Given) -> object:
    if "from" in given or "to" in given:
        return [given.get("from"), given.get("to")]
    return "all"


def _period(given: Given, caller: Caller) -> Period | None:
    wanted = _date_range(given)
    if wanted == "all":
        return None
    context = caller.context
    return read_range(wanted, context.zone, context.now, context.first_day)


def _headers(stem: str, form: Form) -> dict[str, str]:
    stem = _UNFIT.sub("_", stem)
    return {
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "content-disposition": f'attachment; filename="{stem}.{form}"',
    }
