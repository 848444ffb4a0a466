"""One HTTP connection, limited in what it may send and how long it may take.

uvicorn's protocol takes a request's head of any size, for any time, and any number of requests
sent ahead of their answers. Invariants here:
* A head that is larger than `HEAD_BYTES_MAX` or takes longer than `HEAD_SECONDS_MAX`, and a whole
  message beyond `MESSAGE_BYTES_MAX` or `MESSAGE_SECONDS_MAX`, chunk sizes and trailers included,
  ends the connection. The door a message is for has narrower limits of its own and answers first;
  what still comes then is dropped, up to `ANSWERED_BYTES_MAX`: most clients read when all is sent,
  and would be told of a lost connection instead of what was wrong.
* A trailer is not taken for a header.
* An offer to upgrade is ignored, as RFC 9110 (7.8) allows: Java's client makes one with each first
  request, and uvicorn would lose the body that comes with it.
* Who ends his side of the connection after a request still gets the answer, but to a question: work
  for it is stopped. `scope["state"]["gone"]` is an event, set when a client has ended its side.
Sizes are checked a read at a time, so up to one read (256 KiB) more is held; times every 5 s.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mallard.web.direct import DirectCycle

# The longest honest head is a pixel's: two URLs of 2,048 characters, percent-encoded.
HEAD_BYTES_MAX = 64 * 1024
HEAD_SECONDS_MAX = 10.0
# A batch may have 1 MiB; sent in tiny chunks it takes some times that.
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
ANSWERED_BYTES_MAX = 64 * 1024 * 1024
MESSAGE_SECONDS_MAX = 30.0
AHEAD_MAX = 128  # requests that wait for the answers to earlier ones; browsers send none ahead

# Of the same length, so that no other header has to change.
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_PROBLEMS = {
    400: {"error": "invalid_request", "detail": "This is no request in HTTP/1.1."},
    408: {"error": "request_timeout", "detail": "The request did not arrive in time."},
    431: {"error": "head_too_large", "detail": "The request's headers are too large."},
}


class _Nowhere(list[tuple[bytes, bytes]]):
    def append(self, item: tuple[bytes, bytes]) -> None:
        pass


_NOWHERE = _Nowhere()


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with limits, for an `app.Application`.

    `uvicorn.Config(http=Connection)` takes it.
    """

    _in_message = False  # what the parser has read last is a part of one
    _in_head = True
    _received_bytes = 0  # of the message that is under way; 0 between messages
    _since = 0.0  # when the message, or the connection, began
    _watch: asyncio.TimerHandle | None = None
    _gone: asyncio.Event | None = None
    _answered_at = 0.0  # when the last direct answer was given

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch the clock."""
        super().connection_made(transport)
        self._direct = DirectCycle(self)
        self._since = self.loop.time()
        self._watch = self.loop.call_later(HEAD_SECONDS_MAX, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()
        self._has_gone()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what was read, within the limits."""
        idle = self.cycle is None or self.cycle.response_complete
        # Who does not read his answers goes the long way, which waits until he does.
        if idle and not self._in_message and not self.flow.write_paused:
            request = self.app.direct.read(data)
            if request is not None:
                self.cycle = self._direct
                self._direct.start(*request)
                return
        if not self._received_bytes:
            self._since = self.loop.time()
        self._received_bytes += len(data)
        if self._in_head and b"pgrade" in data:
            data = _UPGRADE.sub(rb"\r\nX-grade:", data)
        super().data_received(data)
        if self._received_bytes > self._bytes_max():
            self._refuse(431)
        elif len(self.pipeline) > AHEAD_MAX:
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Go on for as long as a whole request waits for its answer, and not longer."""
        if not self._in_head or self.cycle is None or self.cycle.response_complete:
            return False
        self.cycle.keep_alive = False
        self._has_gone()
        return True

    def on_message_begin(self) -> None:
        """Take a new message."""
        self._in_message = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        if self._gone is None:
            self._gone = asyncio.Event()
        self.scope["state"]["gone"] = self._gone
        super().on_headers_complete()  # which refuses an URL of 64 KiB
        self._in_head = False
        self.headers = _NOWHERE  # for trailers: not in the scope, and not in memory

    def on_message_complete(self) -> None:
        """Be ready for the next request."""
        self._in_message = False
        self._in_head = True
        self._received_bytes = 0
        super().on_message_complete()
        if self.cycle.response_complete and self.timeout_keep_alive_task is None:
            # It was answered before it was all there, and the rest took the timer away.
            self._await_next(self.timeout_keep_alive)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, and close; behind an earlier request, once that is answered."""
        waiting = self.cycle is not None and not self.cycle.response_complete
        if waiting and (self._in_head or self.pipeline):
            self.cycle.keep_alive = False
            return
        # What is wrong in its body may have been answered already, or begun to be.
        if self._in_head or (waiting and not self.cycle.response_started):
            self._say(400)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        pass  # CONNECT is answered as any other method that no path takes

    def answered(self) -> None:
        """Go on after a direct answer as `on_response_complete` does after others.

        The timer that ends an idle connection stays as it is: one for each answer costs more than
        all that is parsed of a request.
        """
        if self.pipeline:
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        self._answered_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._await_next(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if nothing came for so long; else look again when it will be."""
        left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if not self.cycle.response_complete:
            left = self.timeout_keep_alive
        if left > 0 and not self.transport.is_closing():
            self._await_next(left)
        else:
            super().timeout_keep_alive_handler()

    def _bytes_max(self) -> int:
        if self._in_head:
            return HEAD_BYTES_MAX
        return ANSWERED_BYTES_MAX if self.cycle.response_complete else MESSAGE_BYTES_MAX

    def _has_gone(self) -> None:
        if self._gone is not None:
            self._gone.set()

    def _await_next(self, seconds: float) -> None:
        handler = self.timeout_keep_alive_handler
        self.timeout_keep_alive_task = self.loop.call_later(seconds, handler)

    def _look(self) -> None:
        """Refuse what is under way for too long; look again later."""
        self._watch = None
        if self.transport.is_closing():
            return
        waited = self.loop.time() - self._since
        if self._received_bytes or self.cycle is None:
            seconds_max = HEAD_SECONDS_MAX if self._in_head else MESSAGE_SECONDS_MAX
            if waited >= seconds_max:
                self._refuse(408)
                return
        self._watch = self.loop.call_later(HEAD_SECONDS_MAX / 2, self._look)

    def _refuse(self, status: int) -> None:
        """Close; answer first if a head has begun to arrive and no other answer is under way."""
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        if self._in_head and self._received_bytes and idle:
            self._say(status)
        self.transport.close()

    def _say(self, status: int) -> None:
        body = orjson.dumps(_PROBLEMS[status])
        self.transport.write(
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n".encode()
            + body
        )
