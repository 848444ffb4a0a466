"""The doors for events: POST, the batch, and the GET pixel.

Invariants: `Access-Control-Allow-Origin: *` on every answer, errors too. A refusal is counted here,
once, by its code. A pixel is always an image with 200, but where `d` or `u` is missing or empty.
These are bare ASGI functions, dispatched before Starlette's routes: through its request, router and
middleware an event costs about twice as much.

`X-Debug-Request: true` answers 200 with what would happen and why, and stores nothing. A dropped
event is answered as 003 prints, with `x-plausible-dropped: 1` beside it and the reason in
`x-mallard-dropped`. A HEAD on the pixel gets its headers and stores nothing: whoever asks only for
headers has not seen the image.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from mallard.errors import MallardError, MissingInput
from mallard.ingest.address import AddressReader
from mallard.ingest.payload import RawEvent, batch_from_json, from_json, from_query
from mallard.ingest.pipeline import Outcome, Pipeline
from mallard.telemetry import Telemetry
from mallard.web.body import BodyReader
from mallard.web.direct import Respond
from mallard.web.problems import (
    HeaderList,
    describe,
    json_headers,
    log_failure,
    problem,
    status_of,
)
from mallard.web.senders import SenderReader

EVENT_BYTES_MAX = 64 * 1024  # 003
BATCH_BYTES_MAX = 1024 * 1024

# A transparent GIF89a of one pixel: header, screen with two colours, their table, a graphic
# control extension that makes the first one transparent, the image, the end.
PIXEL = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff"
    b"!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
assert len(PIXEL) == 43  # as 003 prints

_ALLOW_ORIGIN: HeaderList = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"x-plausible-dropped, x-mallard-dropped, retry-after"),
]
_EMPTY: HeaderList = [(b"content-length", b"0"), *_ALLOW_ORIGIN]
_PIXEL_HEADERS: HeaderList = [
    (b"content-type", b"image/gif"),
    (b"content-length", b"43"),
    (b"cache-control", b"no-store, no-cache, must-revalidate, private"),
    # So that pages with Cross-Origin-Embedder-Policy may show it.
    (b"cross-origin-resource-policy", b"cross-origin"),
    *_ALLOW_ORIGIN,
]
_ALLOWED_HEADERS = b"content-type, content-encoding, x-debug-request"
_PREFLIGHT_SECONDS = b"86400"  # browsers cap it: Chromium at two hours, Firefox at a day

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class Collector:
    """Answers the event paths."""

    def __init__(
        self,
        pipeline: Pipeline,
        addresses: AddressReader,
        telemetry: Telemetry,
        bodies: BodyReader,
    ) -> None:
        self._pipeline = pipeline
        self._senders = SenderReader(addresses)
        self._telemetry = telemetry
        self._bodies = bodies

    async def event(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request for an event path."""
        method = scope["method"]
        if method == "POST":
            await self._post(scope, receive, send)
        elif method == "GET":
            await self._pixel(scope, send)
        elif method == "HEAD":
            await _respond(send, 200, _PIXEL_HEADERS, b"")
        elif method == "OPTIONS":
            await _preflight(scope, send, b"POST, GET, HEAD, OPTIONS")
        else:
            await _not_allowed(send, b"POST, GET, HEAD, OPTIONS")

    async def batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request for a batch path: a JSON array of events, all stored or none."""
        method = scope["method"]
        if method == "POST":
            await self._batch(scope, receive, send)
        elif method == "OPTIONS":
            await _preflight(scope, send, b"POST, OPTIONS")
        else:
            await _not_allowed(send, b"POST, OPTIONS")

    def event_at_once(
        self,
        peer: str | None,
        fields: dict[bytes, bytes],
        body: bytes,
        respond: Respond,
    ) -> None:
        """Answer a POST that is there as a whole; never raises. See `direct`.

        peer: the socket's address. fields: the headers by their names in lower case, one of each.
        respond: takes status, headers and body of the answer, now or later.
        """

        def settle(result: Outcome | Exception) -> None:
            if isinstance(result, Exception):
                respond(*self._refusal(result))
            else:
                respond(202, _taken(result), b"")

        try:
            raw = from_json(body)
            sender = self._senders.of(peer, fields.items(), fields)
            self._pipeline.submit((raw,), sender, "post", settle)
        except Exception as error:  # noqa: BLE001 - the top of a request
            respond(*self._refusal(error))

    def _refusal(self, error: Exception) -> tuple[int, HeaderList, bytes]:
        """Count a refusal, and return status, headers and body of its answer."""
        if not isinstance(error, MallardError):
            log_failure(error)
            error = MallardError("")
        self._telemetry.refused[error.code] += 1
        status, answer, body = problem(error)
        return status, [*answer, *_ALLOW_ORIGIN], body

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        try:
            body = await self._bodies.read(headers, receive, EVENT_BYTES_MAX)
            if body is None:
                return
            raw = from_json(body)
            sender = self._senders.read(scope, headers)
            if b"x-debug-request" in headers and _is_debug(headers):
                await _respond_json(send, self._pipeline.explain(raw, sender, "post"))
                return
            outcome = await self._pipeline.accept((raw,), sender, "post")
        except MallardError as error:
            await self._refuse(send, error, headers)
            return
        await _respond(send, 202, _taken(outcome), b"")

    async def _batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        try:
            # What it costs to read a batch that is refused would keep the writing up still more.
            await self._pipeline.await_room()
            body = await self._bodies.read(headers, receive, BATCH_BYTES_MAX)
            if body is None:
                return
            await self._pipeline.await_room(again=True)
            # Nobody comes in between from here to where the room is taken.
            sender = self._senders.read(scope, headers)
            if _is_debug(headers):
                raws = batch_from_json(body)
                explained = [self._pipeline.explain(raw, sender, "batch") for raw in raws]
                await _respond_json(send, explained)
                return
            outcome = await self._pipeline.accept_batch(body, sender)
        except MallardError as error:
            await self._refuse(send, error, headers)
            return
        await _respond(send, 202, _taken(outcome), b"")

    async def _pixel(self, scope: Scope, send: Send) -> None:
        headers = dict(scope["headers"])
        debug = _is_debug(headers)
        try:
            raw: RawEvent = from_query(scope["query_string"])
            sender = self._senders.read(scope, headers)
            if debug:
                await _respond_json(send, self._pipeline.explain(raw, sender, "pixel"))
                return
            outcome = await self._pipeline.accept((raw,), sender, "pixel")
        except MallardError as error:
            if debug:
                await self._refuse(send, error, headers)
                return
            self._telemetry.refused[error.code] += 1
            if isinstance(error, MissingInput):
                # 003 prints 400 here, where the POST answers 422.
                _, answer, body = problem(error)
                await _respond(send, 400, [*answer, *_ALLOW_ORIGIN], body)
                return
            refused = (b"x-mallard-dropped", error.code.encode())
            await _respond(send, 200, [*_PIXEL_HEADERS, refused], PIXEL)
            return
        await _respond(send, 200, [*_PIXEL_HEADERS, *_dropped(outcome)], PIXEL)

    async def _refuse(self, send: Send, error: MallardError, headers: dict[bytes, bytes]) -> None:
        """Answer a refusal, or tell a debugging client of it."""
        if _is_debug(headers):
            status = status_of(error)
            await _respond_json(send, {"verdict": "refused", "status": status, **describe(error)})
            return
        await _respond(send, *self._refusal(error))


def _is_debug(headers: dict[bytes, bytes]) -> bool:
    return headers.get(b"x-debug-request", b"").strip().lower() in (b"true", b"1")


def _taken(outcome: Outcome) -> HeaderList:
    """Return the headers of a 202: mostly the very same list, which `direct` knows again."""
    return [*_EMPTY, *_dropped(outcome)] if outcome.dropped else _EMPTY


def _dropped(outcome: Outcome) -> HeaderList:
    """Return the headers that say that an event was not stored, and why; in a batch, any."""
    if not outcome.dropped:
        return []
    reasons = ", ".join(outcome.dropped).encode()
    return [(b"x-plausible-dropped", b"1"), (b"x-mallard-dropped", reasons)]


async def _preflight(scope: Scope, send: Send, methods: bytes) -> None:
    """Answer a CORS preflight (WHATWG Fetch, "CORS-preflight fetch").

    It is "*", as 003 prints. But a beacon of type application/json is asked for with credentials,
    and then "*" does not count: a browser (they alone send Sec-Fetch-Mode) that asks for a content
    type is answered with its Origin. Nothing here reads a cookie.
    """
    headers = dict(scope["headers"])
    answer: HeaderList = [
        (b"access-control-allow-methods", methods),
        (b"access-control-allow-headers", _ALLOWED_HEADERS),
        (b"access-control-max-age", _PREFLIGHT_SECONDS),
        (b"vary", b"origin, access-control-request-headers, sec-fetch-mode"),
    ]
    asked = headers.get(b"access-control-request-headers", b"").lower()
    if b"content-type" in asked and b"origin" in headers and b"sec-fetch-mode" in headers:
        answer.append((b"access-control-allow-origin", headers[b"origin"]))
        answer.append((b"access-control-allow-credentials", b"true"))
    else:
        answer.append((b"access-control-allow-origin", b"*"))
    if headers.get(b"access-control-request-private-network") == b"true":
        answer.append((b"access-control-allow-private-network", b"true"))
    await _respond(send, 204, answer, b"")


async def _not_allowed(send: Send, methods: bytes) -> None:
    body = orjson.dumps(
        {"error": "method_not_allowed", "detail": "This path does not take that method."}
    )
    headers = [*json_headers(len(body)), (b"allow", methods), *_ALLOW_ORIGIN]
    await _respond(send, 405, headers, body)


async def _respond_json(send: Send, value: Any) -> None:
    body = orjson.dumps(value)
    await _respond(send, 200, [*json_headers(len(body)), *_ALLOW_ORIGIN], body)


async def _respond(send: Send, status: int, headers: HeaderList, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
