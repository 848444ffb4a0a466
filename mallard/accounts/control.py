"""The control tables within one transaction: what may be asked of them and changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeVar

from sqlalchemy import Connection, select, update

from mallard.accounts.directory import Directory
from mallard.accounts.goals import Goals
from mallard.accounts.keys import Keys
from mallard.accounts.segments import FilterCheck, Segments
from mallard.accounts.sites import Sites
from mallard.accounts.tables import CHANGE
from mallard.site import Goal, Segment

_Of = TypeVar("_Of", Goal, Segment)


class Control:
    """Sites, keys, goals and segments, as one transaction sees them."""

    def __init__(self, connection: Connection, now_us: int, check_filters: FilterCheck) -> None:
        self._connection = connection
        self.sites = Sites(connection, now_us)
        self.keys = Keys(connection, now_us)
        self.goals = Goals(connection)
        self.segments = Segments(connection, check_filters)

    def version(self) -> int:
        """Return the number that grows with every change."""
        return int(self._connection.execute(select(CHANGE.c.version)).scalar_one())

    def mark_change(self) -> None:
        """Have everybody who looks see that something changed."""
        self._connection.execute(update(CHANGE).values(version=CHANGE.c.version + 1))

    def directory(self) -> Directory:
        """Return all of it, for look-ups in memory."""
        return Directory(
            version=self.version(),
            sites={site.site_id: site for site in self.sites.all()},
            goals=_by_site(self.goals.all()),
            segments=_by_site(self.segments.all()),
            keys=self.keys.holders(),
            has_keys=self.keys.any_ever(),
        )


def _by_site(records: Iterable[_Of]) -> dict[str, tuple[_Of, ...]]:
    lists: dict[str, list[_Of]] = defaultdict(list)
    for record in records:
        lists[record.site_id].append(record)
    return {site_id: tuple(found) for site_id, found in lists.items()}
