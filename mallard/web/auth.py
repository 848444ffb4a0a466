"""Who asks: from a request to a principal.

A server is open, so that nobody has to say who they are to read, as long as nobody but this machine
can reach it: it listens on loopback, no key was ever made, no proxy is configured, and the request
neither came through one nor is for another name than this machine's, nor from somebody else's web
page. (Such a page could make its own name mean 127.0.0.1, or have its visitor's browser ask here.)
"""

from __future__ import annotations

import contextlib
import ipaddress

from starlette.requests import Request

from mallard.accounts.access import EVERYBODY, Principal
from mallard.accounts.accounts import Accounts
from mallard.accounts.directory import Directory
from mallard.config import Config
from mallard.errors import Unauthenticated

# What proxies say of those they ask for.
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
# Sec-Fetch-Site of what a browser asks for by itself or for a page of ours (W3C Fetch Metadata).
_OWN_PAGES = ("none", "same-origin")


class Guard:
    """Finds out who asks."""

    def __init__(self, accounts: Accounts, config: Config) -> None:
        self._accounts = accounts
        self._may_be_open = _is_loopback(config.server.host) and not config.proxy.trusted

    async def principal(self, request: Request) -> Principal:
        """Return who asks. Raises Unauthenticated when nobody says so, or with a wrong key."""
        return (await self.look(request))[0]

    async def look(self, request: Request) -> tuple[Principal, Directory]:
        """Return who asks, and what was known when they did."""
        directory = await self._accounts.directory()
        token = _token(request)
        if token is None:
            if self._may_be_open and not directory.has_keys and _is_local(request):
                return EVERYBODY, directory
            raise Unauthenticated(
                "This needs an API key.", rule="a header Authorization: Bearer mal_..."
            )
        principal = directory.authenticate(token)
        self._accounts.note_use(principal)
        return principal, directory


def _token(request: Request) -> str | None:
    """Return the token of an Authorization header (RFC 6750); None where there is none."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _is_local(request: Request) -> bool:
    if any(name in request.headers for name in _FORWARDED):
        return False
    if request.headers.get("sec-fetch-site", "none") not in _OWN_PAGES:
        return False
    host = request.headers.get("host", "")
    name, colon, port = host.rpartition(":")
    return _is_loopback(name if colon and port.isdigit() else host)


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    return host.lower() == "localhost"
