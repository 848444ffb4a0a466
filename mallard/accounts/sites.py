"""Sites that people have added: one table and one way to change it, whatever a site stands for."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from mallard.accounts import checks
from mallard.accounts.tables import GOAL, SEGMENT, SITE
from mallard.clock import to_datetime
from mallard.errors import Conflict, NotFound
from mallard.site import Site, SiteKind

FIELDS = ("kind", "timezone", "currency")


class Sites:
    """The sites, within one transaction."""

    def __init__(self, connection: Connection, now_us: int) -> None:
        self._connection = connection
        self._now_us = now_us

    def all(self) -> list[Site]:
        """Return every site that was added, by name."""
        return [_site(row) for row in self._connection.execute(select(SITE).order_by("site_id"))]

    def get(self, site_id: str) -> Site:
        """Return a site; of one that nobody has added, the defaults."""
        site_id = checks.site_id(site_id)
        row = self._connection.execute(select(SITE).where(SITE.c.site_id == site_id)).first()
        return Site(site_id) if row is None else _site(row)

    def add(self, site_id: str, fields: object) -> Site:
        """Add a site. fields: any of `FIELDS`. Raises Conflict where it is there already."""
        site_id = checks.site_id(site_id)
        if self.get(site_id).created_at is not None:
            raise Conflict("The site is there already.", field="site_id")
        return self.set(site_id, fields)

    def set(self, site_id: str, fields: object) -> Site:
        """Change those of `FIELDS` that are given, and add the site where nobody has."""
        site_id = checks.site_id(site_id)
        document = checks.known_fields(fields, FIELDS)
        old = self.get(site_id)
        values: dict[str, Any] = {
            "kind": checks.one_of(document, "kind", [*SiteKind], old.kind),
            "timezone": checks.zone(document, "timezone", old.timezone),
            "currency": checks.currency(document, "currency", old.currency),
        }
        if old.created_at is None:
            values |= {"site_id": site_id, "created_at": self._now_us}
            self._connection.execute(insert(SITE).values(values))
        else:
            self._connection.execute(update(SITE).where(SITE.c.site_id == site_id).values(values))
        return self.get(site_id)

    def remove(self, site_id: str) -> None:
        """Forget what was said of a site, its goals and segments too; its events stay.

        Raises NotFound for a site that nobody has added.
        """
        site_id = checks.site_id(site_id)
        gone = self._connection.execute(delete(SITE).where(SITE.c.site_id == site_id))
        if not gone.rowcount:
            raise NotFound("No such site was added.")
        for table in (GOAL, SEGMENT):
            self._connection.execute(delete(table).where(table.c.site_id == site_id))


def _site(row: Row[Any]) -> Site:
    return Site(
        row.site_id, SiteKind(row.kind), row.timezone, row.currency, to_datetime(row.created_at)
    )
