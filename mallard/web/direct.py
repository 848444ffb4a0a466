"""An event answered straight from its connection: no ASGI cycle, no task, no future.

A POST of one event is nearly all of the traffic, and it is small: what uvicorn and asyncio do
around it costs more than the event itself. The door is the same, `collect.Collector`; only what
carries the request to it and the answer back is shorter.

Invariants: a request comes here only if it is there as a whole and nothing about it is
out of the ordinary; else it goes the way of all others. Answers keep the order of their requests:
until this one is answered, the connection's later ones wait in uvicorn's queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from mallard.web.problems import HeaderList

if TYPE_CHECKING:
    from mallard.web.connection import Connection

Respond = Callable[[int, HeaderList, bytes], None]
# Takes the peer's address, the headers as they came and by name, the body, and how to answer; never
# raises. See `collect.Collector.event_at_once`.
DirectDoor = Callable[[str | None, HeaderList, dict[bytes, bytes], bytes, Respond], None]

# Headers that make a request one for the ASGI door.
_SPECIAL = frozenset({b"transfer-encoding", b"content-encoding", b"expect", b"x-debug-request"})


class _NoEvent:
    """Stands where a cycle has the event that wakes its task up: here is none to wake."""

    def set(self) -> None:
        pass


class DirectCycle(RequestResponseCycle):
    """Stands where uvicorn has the request under way, as far as its protocol looks at that.

    It takes nothing of its base class but the type.
    """

    message_event = _NoEvent()  # type: ignore[assignment]

    def __init__(
        self,
        connection: Connection,
        door: DirectDoor,
        headers: HeaderList,
        fields: dict[bytes, bytes],
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self._door = door
        self._headers = headers
        self._fields = fields
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.response_complete = False

    def start(self) -> None:
        """Hand the whole request to its door."""
        client = self._connection.client
        peer = client[0] if client else None
        self._door(peer, self._headers, self._fields, bytes(self.body), self.respond)

    def respond(self, status: int, headers: HeaderList, body: bytes) -> None:
        """Write the answer, unless the client has gone, and let the connection go on."""
        self.response_complete = True
        connection = self._connection
        if self.disconnected or connection.transport.is_closing():
            return
        # Most answers are like the one before. The list with the date is a new one each second.
        made_of = (status, headers, connection.server_state.default_headers, self.keep_alive)
        if connection.last_head is None or made_of != connection.last_head[0]:
            connection.last_head = (made_of, _head(*made_of))
        connection.transport.write(connection.last_head[1] + body)
        if not self.keep_alive:
            connection.transport.close()
        connection.on_response_complete()


def _head(status: int, headers: HeaderList, defaults: HeaderList, keep_alive: bool) -> bytes:
    lines = [STATUS_LINE[status]]
    for name, value in (*defaults, *headers):
        lines += (name, b": ", value, b"\r\n")
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def direct_headers(headers: HeaderList, bytes_max: int) -> dict[bytes, bytes] | None:
    """Return the headers by name if a request with them may be answered here, else None."""
    fields = dict(headers)
    length = fields.get(b"content-length", b"")
    # All of it has to be there already, so what is longer than a read is none of ours.
    if not length.isdigit() or len(length) > 6 or int(length) > bytes_max:
        return None
    return fields if _SPECIAL.isdisjoint(fields) else None
