"""Reads who sent a request from its headers.

Invariant: nothing here keeps a sender; what is remembered are languages and brands of browsers.
"""

from __future__ import annotations

import re
from functools import lru_cache

from starlette.types import Scope

from mallard.ingest.address import AddressReader
from mallard.ingest.sender import ClientHints, Sender
from mallard.ingest.user_agent import AGENT_LENGTH_MAX, HINT_LENGTH_MAX

LANGUAGE_LENGTH_MAX = 35  # RFC 5646, section 4.4.1: room for every registered tag
ORIGIN_LENGTH_MAX = 300  # a scheme, a host of 253 characters and a port

_LANGUAGE = re.compile(r"[a-z]{1,8}(-[a-z0-9]{1,8})*")
# The first is what browsers send today, the others what they and mail programs sent before.
_PREFETCH_HEADERS = (b"sec-purpose", b"purpose", b"x-purpose", b"x-moz")
_PREFETCH_WORDS = (b"prefetch", b"prerender", b"preview")
_NO_HEADER: dict[bytes, bytes] = {}


class SenderReader:
    """Tells who sent a request."""

    def __init__(self, addresses: AddressReader) -> None:
        self._addresses = addresses

    def read(self, scope: Scope, headers: dict[bytes, bytes]) -> Sender:
        """Return the sender. headers: those of the scope, by lower-case name, the last of each."""
        client = scope.get("client")
        get = headers.get
        origin = get(b"origin")
        return Sender(
            self._addresses.read(client[0] if client else None, scope["headers"]),
            get(b"user-agent", b"")[:AGENT_LENGTH_MAX].decode("latin-1"),
            None if origin is None else origin[:ORIGIN_LENGTH_MAX].decode("latin-1"),
            _client_hints(headers) if b"sec-ch-ua" in headers else None,
            language(get(b"accept-language", b"")[:64]),
            get(b"sec-gpc") == b"1" or get(b"dnt") == b"1",
            _is_prefetch(headers),
        )


@lru_cache(maxsize=1024)
def language(accepted: bytes) -> str | None:
    """Return the first tag of an Accept-Language, in lower case; None for none, or for any."""
    tag = accepted.partition(b",")[0].partition(b";")[0].strip().lower().decode("latin-1")
    return tag if len(tag) <= LANGUAGE_LENGTH_MAX and _LANGUAGE.fullmatch(tag) else None


def _client_hints(headers: dict[bytes, bytes]) -> ClientHints:
    get = headers.get
    return _hints(
        get(b"sec-ch-ua", b"")[:HINT_LENGTH_MAX],
        get(b"sec-ch-ua-mobile", b"")[:HINT_LENGTH_MAX],
        get(b"sec-ch-ua-platform", b"")[:HINT_LENGTH_MAX],
        get(b"sec-ch-ua-platform-version", b"")[:HINT_LENGTH_MAX],
    )


@lru_cache(maxsize=1024)  # at most 1 MB; browsers have few and tell everybody the same
def _hints(*values: bytes) -> ClientHints:
    return ClientHints(*(value.decode("latin-1") if value else None for value in values))


def _is_prefetch(headers: dict[bytes, bytes]) -> bool:
    for name in _PREFETCH_HEADERS:
        if name in headers:
            value = headers[name].lower()
            return any(word in value for word in _PREFETCH_WORDS)
    return False
