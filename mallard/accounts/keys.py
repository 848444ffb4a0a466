"""API keys: made, listed, revoked. A token is shown once, when its key is made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from mallard.accounts import access, checks
from mallard.accounts.access import Principal, Scope
from mallard.accounts.tables import KEY
from mallard.clock import to_datetime
from mallard.errors import NotFound

FIELDS = ("name", "scopes", "sites")
SITES_MAX = 1_000  # of one key


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key, but for its hash. sites: None is every site.

    last_used_on: the UTC date, no finer, so that it says little of who uses it.
    """

    key_id: int
    name: str
    scopes: tuple[Scope, ...]
    sites: tuple[str, ...] | None
    created_at: datetime
    last_used_on: date | None
    revoked_at: datetime | None


class Keys:
    """The API keys, within one transaction."""

    def __init__(self, connection: Connection, now_us: int) -> None:
        self._connection = connection
        self._now_us = now_us

    def all(self) -> list[ApiKey]:
        """Return every key, the revoked ones too, the oldest first."""
        return [_key(row) for row in self._connection.execute(select(KEY).order_by("key_id"))]

    def holders(self) -> dict[bytes, Principal]:
        """Return who holds the keys that are not revoked, by the hash of the token."""
        rows = self._connection.execute(select(KEY).where(KEY.c.revoked_at.is_(None)))
        return {bytes(row.digest): _principal(_key(row)) for row in rows}

    def any_ever(self) -> bool:
        """Tell whether there ever was a key."""
        return self._connection.execute(select(KEY.c.key_id).limit(1)).first() is not None

    def create(self, fields: object) -> tuple[ApiKey, str]:
        """Make a key, and return its token, which is kept nowhere.

        fields: `name`; `scopes`, a list; `sites`, "*" or a list.
        """
        document = checks.known_fields(fields, FIELDS)
        token = access.new_token()
        values = {
            "name": checks.text(document, "name"),
            "scopes": _scopes(document.get("scopes", [])),
            "sites": _sites(document.get("sites", [])),
            "digest": access.digest(token),
            "created_at": self._now_us,
        }
        (key_id,) = self._connection.execute(
            insert(KEY).values(values).returning(KEY.c.key_id)
        ).one()
        return self._get(key_id), token

    def revoke(self, key_id: int) -> ApiKey:
        """Make a key worthless for ever; one that is already stays so. Raises NotFound."""
        if self._get(key_id).revoked_at is None:
            self._connection.execute(
                update(KEY).where(KEY.c.key_id == key_id).values(revoked_at=self._now_us)
            )
        return self._get(key_id)

    def note_use(self, key_id: int, day: date) -> None:
        """Take note that a key was used on a UTC date."""
        self._connection.execute(update(KEY).where(KEY.c.key_id == key_id).values(last_used_on=day))

    def _get(self, key_id: int) -> ApiKey:
        row = self._connection.execute(select(KEY).where(KEY.c.key_id == key_id)).first()
        if row is None:
            raise NotFound("There is no such key.")
        return _key(row)


def _scopes(value: object) -> list[str]:
    rule = f"a list of {', '.join(Scope)}"
    if not isinstance(value, list) or not value:
        checks.refuse("scopes", "is no list of what the key is for", rule)
    known = [*Scope]
    for each in value:
        if each not in known:
            checks.refuse("scopes", "has what is no scope", rule)
    return [scope for scope in known if scope in value]


def _sites(value: object) -> list[str] | None:
    rule = 'a list of sites, or "*" for every site'
    if value == "*":
        return None
    if not isinstance(value, list) or not value or len(value) > SITES_MAX:
        checks.refuse("sites", f"is no list of 1 to {SITES_MAX} sites", rule)
    return sorted({checks.site_id(each, "sites") for each in value})


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        row.key_id,
        row.name,
        tuple(map(Scope, row.scopes)),
        None if row.sites is None else tuple(row.sites),
        to_datetime(row.created_at),
        row.last_used_on,
        None if row.revoked_at is None else to_datetime(row.revoked_at),
    )


def _principal(key: ApiKey) -> Principal:
    sites = None if key.sites is None else frozenset(key.sites)
    return Principal(key.key_id, key.name, frozenset(key.scopes), sites)
