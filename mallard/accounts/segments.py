"""A site's segments: filters under a name, to be used as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, Row, delete, insert, select, true, update

from mallard.accounts import checks
from mallard.accounts.goals import Goals
from mallard.accounts.tables import SEGMENT
from mallard.errors import Conflict, NotFound
from mallard.site import Goal, Segment

FIELDS = ("name", "filters")
FILTERS_BYTES_MAX = 16 * 1024

# Raises InvalidInput for filters that mean nothing on a site with these goals.
FilterCheck = Callable[[list[Any], Sequence[Goal]], object]


class Segments:
    """The segments of all sites, within one transaction. A name is its site's only."""

    def __init__(self, connection: Connection, check_filters: FilterCheck) -> None:
        self._connection = connection
        self._check_filters = check_filters

    def all(self) -> list[Segment]:
        """Return the segments of every site, by name."""
        return self._found(true())

    def of(self, site_id: str) -> list[Segment]:
        """Return a site's segments by name."""
        return self._found(SEGMENT.c.site_id == checks.site_id(site_id))

    def add(self, site_id: str, fields: object) -> Segment:
        """Add a segment. fields: `name` and `filters`. Raises Conflict where the name is taken."""
        site_id = checks.site_id(site_id)
        values = {**self._read(site_id, fields), "site_id": site_id}
        self._refuse_taken(values, None)
        (segment_id,) = self._connection.execute(
            insert(SEGMENT).values(values).returning(SEGMENT.c.segment_id)
        ).one()
        return self._get(site_id, segment_id)

    def replace(self, site_id: str, segment_id: int, fields: object) -> Segment:
        """Make a segment what the fields say, as in `add`. Raises NotFound and Conflict."""
        site_id = self._get(site_id, segment_id).site_id
        values = {**self._read(site_id, fields), "site_id": site_id}
        self._refuse_taken(values, segment_id)
        self._connection.execute(
            update(SEGMENT).where(SEGMENT.c.segment_id == segment_id).values(values)
        )
        return self._get(site_id, segment_id)

    def remove(self, site_id: str, segment_id: int) -> None:
        """Remove a segment. Raises NotFound."""
        self._get(site_id, segment_id)
        self._connection.execute(delete(SEGMENT).where(SEGMENT.c.segment_id == segment_id))

    def _read(self, site_id: str, fields: object) -> dict[str, Any]:
        document = checks.known_fields(fields, FIELDS)
        name, filters = checks.text(document, "name"), document.get("filters")
        rule = 'a list of filters, such as [["is", "visit:country", ["DE"]]]'
        if not isinstance(filters, list) or not filters:
            checks.refuse("filters", "is no list of filters", rule)
        try:
            text = orjson.dumps(filters)
        except TypeError:  # half of a surrogate pair, a number beyond 64 bits
            checks.refuse("filters", "holds what no JSON text can", rule)
        if len(text) > FILTERS_BYTES_MAX:
            checks.refuse("filters", "is too long", f"at most {FILTERS_BYTES_MAX} bytes")
        if b"\\u0000" in text:  # which PostgreSQL's JSON cannot hold
            checks.refuse("filters", "holds a NUL character", "text without U+0000")
        self._check_filters(filters, Goals(self._connection).of(site_id))
        return {"name": name, "filters": filters}

    def _get(self, site_id: str, segment_id: int) -> Segment:
        of_site = SEGMENT.c.site_id == checks.site_id(site_id)
        found = self._found(of_site & (SEGMENT.c.segment_id == segment_id))
        if not found:
            raise NotFound("The site has no such segment.")
        return found[0]

    def _found(self, where: Any) -> list[Segment]:
        statement = select(SEGMENT).where(where).order_by("site_id", "name")
        return [_segment(row) for row in self._connection.execute(statement)]

    def _refuse_taken(self, values: dict[str, Any], segment_id: int | None) -> None:
        for segment in self.of(values["site_id"]):
            if segment.name == values["name"] and segment.segment_id != segment_id:
                raise Conflict(
                    "The site has a segment of that name.", field="name", rule="another name"
                )


def _segment(row: Row[Any]) -> Segment:
    return Segment(row.segment_id, row.site_id, row.name, row.filters)
