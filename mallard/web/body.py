"""Reads a request's body, bounded in bytes and in time, before and after decompression.

Invariants: no more than the limit and one message is ever held. What a client announces as too
large is refused before a byte of it is read. A decompressor is never asked for more than the
limit and one byte, so a bomb costs no more than a full body.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

from starlette.requests import Request
from starlette.types import Message, Receive

from mallard.errors import InvalidInput, PayloadTooLarge, SlowRequest, UnsupportedEncoding
from mallard.ingest.json_reader import read_json

BODY_SECONDS_MAX = 10.0  # for all of it; a phone on a bad line sends an event in one or two

_WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": 0}


class BodyReader:
    """Reads bodies, and gives up on those that take too long.

    One timer looks after all of them: a timer for each costs more than all the rest of the reading,
    which for nearly every event is over at once.
    """

    def __init__(self, seconds_max: float = BODY_SECONDS_MAX) -> None:
        self._seconds_max = seconds_max
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None  # on which the timer runs, if it does

    async def document(self, request: Request, bytes_max: int) -> Any:
        """Return the JSON value of a request's body.

        Raises what `read` raises, and InvalidInput for what is no JSON.
        """
        body = await self.read(dict(request.scope["headers"]), request.receive, bytes_max)
        if body is None:
            raise InvalidInput("The body did not arrive.")
        return read_json(body)

    async def read(
        self, headers: dict[bytes, bytes], receive: Receive, bytes_max: int
    ) -> bytes | None:
        """Return the body, decompressed; None if the client has gone.

        Raises PayloadTooLarge, SlowRequest, UnsupportedEncoding, and InvalidInput for a body
        that is not what its Content-Encoding says.
        """
        length = headers.get(b"content-length", b"")
        if length.isdigit() and (len(length) > 18 or int(length) > bytes_max):
            raise _too_large(bytes_max)
        encoding = _encoding(headers) if b"content-encoding" in headers else None
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._deadlines[task] = loop.time() + self._seconds_max
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(self._seconds_max / 10, self._end_late_ones, loop)
        try:
            message = await receive()
            if message.get("more_body", False):
                message = await _rest(message, receive, bytes_max)
        except asyncio.CancelledError:
            if task not in self._late or task.uncancel() > 0:
                raise
            raise SlowRequest(
                "The body did not arrive in time.", rule=f"within {self._seconds_max:g} seconds"
            ) from None
        finally:
            self._late.discard(task)
            del self._deadlines[task]
        if message["type"] == "http.disconnect":
            return None
        body: bytes = message.get("body", b"")
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        return body if encoding is None else inflate(body, encoding, bytes_max)

    def _end_late_ones(self, loop: asyncio.AbstractEventLoop) -> None:
        # Whoever has a deadline is waiting in `read` now: this runs between the steps of tasks.
        now = loop.time()
        for task, deadline in self._deadlines.items():
            if deadline <= now and task not in self._late:
                self._late.add(task)
                task.cancel()
        if self._deadlines:
            loop.call_later(self._seconds_max / 10, self._end_late_ones, loop)
        else:
            self._loop = None


def _encoding(headers: dict[bytes, bytes]) -> bytes | None:
    """Return the Content-Encoding, None for none. Raises UnsupportedEncoding."""
    encoding = headers[b"content-encoding"].strip().lower()
    if encoding in (b"", b"identity"):
        return None
    if encoding not in _WINDOW_BITS:
        raise UnsupportedEncoding(
            "The Content-Encoding of the body is one that this server does not read.",
            field="Content-Encoding",
            rule="gzip, deflate, or none",
        )
    return encoding


async def _rest(message: Message, receive: Receive, bytes_max: int) -> Message:
    """Return a message with all of the body, or its first bytes if it is too large."""
    pieces = bytearray(message.get("body", b""))
    while message.get("more_body", False) and len(pieces) <= bytes_max:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message
        pieces += message.get("body", b"")
    return {"type": "http.request", "body": bytes(pieces)}


def inflate(body: bytes, encoding: bytes, bytes_max: int) -> bytes:
    """Return a gzip or deflate body as it was; with deflate, also without the zlib header.

    Source: RFC 9110, section 8.4.1; browsers of old sent deflate bare, and so do some libraries.
    """
    window_bits = _WINDOW_BITS[encoding]
    if not window_bits:
        is_zlib = len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
        window_bits = zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS
    inflater = zlib.decompressobj(window_bits)
    try:
        text = inflater.decompress(body, bytes_max + 1)
    except zlib.error:
        text, complete = b"", False
    else:
        if len(text) > bytes_max:
            raise _too_large(bytes_max)
        complete = inflater.eof and not inflater.unused_data
    if not complete:
        raise InvalidInput(
            "The body is not what its Content-Encoding says.",
            field="Content-Encoding",
            rule="one whole gzip or deflate stream",
        )
    return text


def _too_large(bytes_max: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        "The body is too large.", rule=f"at most {bytes_max} bytes, also after decompression"
    )
