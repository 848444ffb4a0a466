"""Reads who sent a request from its headers.

Invariant: nothing here keeps a sender; what is remembered are browsers, which many people share:
their agent, hints and language, and no address.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from starlette.types import Scope

from mallard.ingest.address import AddressReader, Headers
from mallard.ingest.sender import ClientHints, Sender
from mallard.ingest.user_agent import AGENT_LENGTH_MAX, HINT_LENGTH_MAX

LANGUAGE_LENGTH_MAX = 35  # RFC 5646, section 4.4.1: room for every registered tag
ORIGIN_LENGTH_MAX = 300  # a scheme, a host of 253 characters and a port
ACCEPTED_LENGTH_MAX = 64  # of Accept-Language; its first tag is what counts

_LANGUAGE = re.compile(r"[a-z]{1,8}(-[a-z0-9]{1,8})*")
# The first is what browsers send today, the others what they and mail programs sent before.
_PREFETCH_HEADERS = (b"sec-purpose", b"purpose", b"x-purpose", b"x-moz")
_PREFETCH_WORDS = (b"prefetch", b"prerender", b"preview")
_make_sender = Sender._make


class SenderReader:
    """Tells who sent a request."""

    def __init__(self, addresses: AddressReader) -> None:
        self._addresses = addresses

    def read(self, scope: Scope, headers: dict[bytes, bytes]) -> Sender:
        """Return the sender. headers: those of the scope, by lower-case name, the last of each."""
        client = scope.get("client")
        return self.of(client[0] if client else None, scope["headers"], headers)

    def of(self, peer: str | None, sent: Headers, headers: dict[bytes, bytes]) -> Sender:
        """Return the sender. peer: the socket's address. sent: all headers; headers: as in `read`.

        peer is None where the socket has no address.
        """
        get = headers.get
        origin = get(b"origin")
        agent = get(b"user-agent", b"")[:AGENT_LENGTH_MAX]
        accepted = get(b"accept-language", b"")[:ACCEPTED_LENGTH_MAX]
        brands = get(b"sec-ch-ua")
        if brands is None:
            browser = _browser(agent, accepted)
        else:
            browser = _browser(
                agent,
                accepted,
                brands[:HINT_LENGTH_MAX],
                get(b"sec-ch-ua-mobile", b"")[:HINT_LENGTH_MAX],
                get(b"sec-ch-ua-platform", b"")[:HINT_LENGTH_MAX],
                get(b"sec-ch-ua-platform-version", b"")[:HINT_LENGTH_MAX],
            )
        # By position, as each request makes one: calling the class takes twice as long.
        return _make_sender(
            (
                self._addresses.read(peer, sent, headers),
                browser.user_agent,
                None if origin is None else origin[:ORIGIN_LENGTH_MAX].decode("latin-1"),
                browser.client_hints,
                browser.language,
                get(b"sec-gpc") == b"1" or get(b"dnt") == b"1",
                _is_prefetch(headers),
            )
        )


class _Browser(NamedTuple):
    """The part of a sender that many share."""

    user_agent: str
    client_hints: ClientHints | None
    language: str | None


# One text for all senders with the same browser also spares whoever looks it up later its hash.
@lru_cache(maxsize=4096)  # under 16 MB when each is hostile; 1 kB is usual
def _browser(agent: bytes, accepted: bytes, *hints: bytes) -> _Browser:
    """Return what these headers, cut to their lengths, say; hints in the order of ClientHints."""
    told = [value.decode("latin-1") if value else None for value in hints]
    return _Browser(
        agent.decode("latin-1"), ClientHints(*told) if told else None, language(accepted)
    )


def language(accepted: bytes) -> str | None:
    """Return the first tag of an Accept-Language, in lower case; None for none, or for any."""
    tag = accepted.partition(b",")[0].partition(b";")[0].strip().lower().decode("latin-1")
    return tag if len(tag) <= LANGUAGE_LENGTH_MAX and _LANGUAGE.fullmatch(tag) else None


def _is_prefetch(headers: dict[bytes, bytes]) -> bool:
    for name in _PREFETCH_HEADERS:
        if name in headers:
            value = headers[name].lower()
            return any(word in value for word in _PREFETCH_WORDS)
    return False
