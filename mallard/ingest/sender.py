"""Who sent a request, as far as the request itself says.

Invariant: a sender lives no longer than its request. Nothing stores, logs or caches one, for it
holds the address.
"""

from __future__ import annotations

from typing import NamedTuple


class ClientHints(NamedTuple):
    """User-Agent client hints as raw header values; None for a header that was not sent.

    Source: W3C/WICG User-Agent Client Hints, structured fields (RFC 8941): brands is a list such
    as '"Chromium";v="124", "Brave";v="124"', mobile "?0" or "?1", the others quoted strings.
    A NamedTuple because each event looks its browser up by them, and a dataclass hashes slowly.
    """

    brands: str | None = None  # Sec-CH-UA
    mobile: str | None = None  # Sec-CH-UA-Mobile
    platform: str | None = None  # Sec-CH-UA-Platform
    platform_version: str | None = None  # Sec-CH-UA-Platform-Version


class Sender(NamedTuple):
    """Where a request came from, and what it says of its browser and its person's wishes.

    address: the visitor's IP, without a port; None where it is not known. user_agent: "" if none.
    language: first tag of Accept-Language, lower case, at most 35 characters. privacy_signal:
    Sec-GPC or DNT was 1. prefetch: the browser says that nobody has looked at the page yet.
    A NamedTuple because each request makes one: a frozen dataclass takes three times as long.
    """

    address: str | None
    user_agent: str
    origin: str | None = None
    client_hints: ClientHints | None = None
    language: str | None = None
    privacy_signal: bool = False
    prefetch: bool = False
