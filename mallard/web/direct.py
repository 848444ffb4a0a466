"""An event answered straight from its connection: no ASGI cycle, no task, no future.

A POST of one event is nearly all of the traffic, and it is small: what uvicorn and asyncio do
around it costs more than the event itself. The door is the same, `collect.Collector`; only what
carries the request to it and the answer back is shorter.

Invariants: a request comes here only if one read has all of it and nothing more, and nothing about
it is out of the ordinary; else it goes the way of all others. The same parser decides what a
request is. Answers keep the order of their requests: until this one is answered, the connection's
later ones wait in uvicorn's queue.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from mallard.web.problems import HeaderList

if TYPE_CHECKING:
    from mallard.web.connection import Connection

Respond = Callable[[int, HeaderList, bytes], None]
Fields = dict[bytes, bytes]
# Takes the peer's address, the headers by lower-case name, the body, and how to answer; never
# raises. See `collect.Collector.event_at_once`.
DirectDoor = Callable[[str | None, Fields, bytes, Respond], None]

# What is larger may be an event all the same, but a rare one.
REQUEST_BYTES_MAX = 64 * 1024
HEAD_BYTES_MAX = 8 * 1024
HEADERS_MAX = 64
# The names of a request's headers, which clients of one kind have in common. Under 8 MB when all
# are hostile: HEAD_BYTES_MAX twice, and the objects.
NAMES_CACHED = 256
# Headers that make a request one for the ASGI door. Where "connection" says anything but
# "keep-alive", it does too.
_SPECIAL = frozenset(
    {
        b"content-encoding",
        b"expect",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
        b"x-debug-request",
    }
)


class _NoEvent:
    """Stands where a cycle has the event that wakes its task up: here is none to wake."""

    def set(self) -> None:
        pass


class _Sink(NamedTuple):
    """What the parser tells of a request: its headers, and straight into a dictionary."""

    on_header: Callable[[bytes, bytes], object]


class DirectRequests:
    """Takes requests apart for every connection of a server."""

    def __init__(self, doors: Mapping[bytes, DirectDoor]) -> None:
        """doors: by the path of a request line."""
        self._doors = {b"POST " + path + b" HTTP/1.1": door for path, door in doors.items()}
        self._line_bytes_max = max(map(len, self._doors), default=0) + 2
        self._sent: Fields = {}
        self._parser = self._new_parser()
        self._head: tuple[tuple[object, ...], bytes] | None = None

    def read(self, data: bytes) -> tuple[DirectDoor, Fields, bytes] | None:
        """Return the door, headers and body of a request that may be answered here, else None.

        data: what was read of a connection between two messages.
        """
        line = data.find(b"\r\n", 0, self._line_bytes_max)
        door = self._doors.get(data[:line])
        if door is None or len(data) > REQUEST_BYTES_MAX:
            return None
        # The last, which is the sooner found. Where it is not the head's, the length of the body is
        # another than it should be, or there are lines that are no headers.
        end = data.rfind(b"\r\n\r\n", line, HEAD_BYTES_MAX)
        count = data.count(b"\n", line, end)
        if end < 0 or count > HEADERS_MAX:
            return None
        body = data[end + 4 :]
        fields = self._fields(data, count, len(body))
        self._sent.clear()  # an address in a header lives no longer than its request
        if fields is None:
            # Who knows where in a message, or behind which mistake, it stands now.
            self._parser = self._new_parser()
            return None
        return door, fields, body

    def _new_parser(self) -> HttpRequestParser:
        # Not __setitem__, which takes half as long again. No name is there twice: see _fields.
        return HttpRequestParser(_Sink(self._sent.setdefault))

    def _fields(self, data: bytes, count: int, body_bytes: int) -> Fields | None:
        """Return the headers by lower-case name, if all is as it mostly is."""
        sent = self._sent
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            return None
        names = _lower(tuple(sent))
        if names is None or len(names) != count:  # a name more than once, in any spelling
            return None
        fields = dict(zip(names, sent.values()))  # noqa: B905 - as many; saying so takes time
        length = fields.get(b"content-length", b"")
        if not length.isdigit() or len(length) > 6 or int(length) != body_bytes:
            return None
        if b"connection" in fields and fields[b"connection"].lower() != b"keep-alive":
            return None
        return fields

    def head(
        self, status: int, headers: HeaderList, defaults: HeaderList, keep_alive: bool
    ) -> bytes:
        """Return the head of an answer. defaults: uvicorn's, a new list with each new date."""
        made_of = (status, headers, defaults, keep_alive)
        if self._head is None or made_of != self._head[0]:  # most are like the one before
            self._head = (made_of, _head(*made_of))
        return self._head[1]


@lru_cache(NAMES_CACHED)
def _lower(names: Collection[bytes]) -> tuple[bytes, ...] | None:
    """Return names of headers in lower case; None if two are the same or one is special."""
    lower = tuple(name.lower() for name in names)
    return lower if len({*lower}) == len(lower) and _SPECIAL.isdisjoint(lower) else None


class DirectCycle(RequestResponseCycle):
    """Stands where uvicorn has the request under way, as far as its protocol looks at that.

    It takes nothing of its base class but the type. A connection has one for all its requests.
    """

    message_event = _NoEvent()  # type: ignore[assignment]

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = True

    def start(self, door: DirectDoor, fields: Fields, body: bytes) -> None:
        """Hand the whole request to its door."""
        self.response_complete = False
        client = self._connection.client
        door(client[0] if client else None, fields, body, self.respond)

    def respond(self, status: int, headers: HeaderList, body: bytes) -> None:
        """Write the answer, unless the client has gone, and let the connection go on."""
        self.response_complete = True
        connection = self._connection
        transport = connection.transport
        if self.disconnected or transport.is_closing():
            return
        defaults, keep_alive = connection.server_state.default_headers, self.keep_alive
        head = connection.app.direct.head(status, headers, defaults, keep_alive)
        transport.write(head + body if body else head)
        if not keep_alive:
            transport.close()
        connection.answered()


def _head(status: int, headers: HeaderList, defaults: HeaderList, keep_alive: bool) -> bytes:
    lines = [STATUS_LINE[status]]
    for name, value in (*defaults, *headers):
        lines += (name, b": ", value, b"\r\n")
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)
