"""Who may do what: API keys, what each is for, and on which sites.

A key is 256 random bits behind a prefix that scanners for secrets can look for. Only its SHA-256
is kept: nobody can guess as many bits, so no slow hash is needed, and how long a look-up takes
tells a guesser something about the hash alone.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum

from mallard.errors import Forbidden

TOKEN_PREFIX = "mal_"  # noqa: S105  what every token begins with
_TOKEN = re.compile(r"mal_[0-9a-f]{64}")


class Scope(StrEnum):
    """What a key may be for."""

    STATS = "stats:read"  # reports
    SQL = "sql"  # SELECT over events and visits, one by one, with their visitor ids
    EXPORT = "export"  # events in bulk, without visitor ids
    ADMIN = "admin"  # all of it, visitor ids in exports, and changes


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who asks. sites: those they may ask about; None is every site.

    key_id: None on an open server, where nobody has to say who they are.
    """

    key_id: int | None
    name: str
    scopes: frozenset[Scope]
    sites: frozenset[str] | None = None

    def may(self, scope: Scope, site_id: str | None = None) -> bool:
        """Tell whether they may do this on a site, or, without one, on the whole server."""
        if scope not in self.scopes and Scope.ADMIN not in self.scopes:
            return False
        return self.sites is None or site_id in self.sites

    def require(self, scope: Scope, site_id: str | None = None) -> None:
        """Return if they may; else raise Forbidden.

        A site that is not among the key's gets the same answer whether or not it exists.
        """
        if self.may(scope, site_id):
            return
        if scope not in self.scopes and Scope.ADMIN not in self.scopes:
            raise Forbidden(
                "This needs a scope that the caller does not have.", rule=f"the scope {scope}"
            )
        if site_id is None:
            raise Forbidden("This needs a key for all sites.", rule="a key with sites *")
        raise Forbidden("This key is not for that site.", rule="a site of the key")


# On a server that only this machine reaches and that has no key yet. Changes always need a key.
EVERYBODY = Principal(None, "everybody", frozenset({Scope.STATS, Scope.SQL, Scope.EXPORT}))


def new_token() -> str:
    """Return a token that nobody has."""
    return TOKEN_PREFIX + secrets.token_hex(32)


def digest(token: str) -> bytes | None:
    """Return what is kept of a token, 32 bytes; None for what has not the form of one."""
    if not _TOKEN.fullmatch(token):
        return None
    return hashlib.sha256(token.encode()).digest()
