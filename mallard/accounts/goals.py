"""A site's goals: what counts there as a conversion."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, true, update

from mallard.accounts import checks
from mallard.accounts.checks import Document
from mallard.accounts.tables import GOAL
from mallard.errors import Conflict, InvalidInput, NotFound
from mallard.site import Goal

FIELDS = ("display_name", "page", "event_name", "props", "currency")
PAGE_LENGTH_MAX = 2_048
PROPS_MAX = 30
PROP_NAME_LENGTH_MAX = 300
PROP_LENGTH_MAX = 2_000
# Marks how long a page was looked at; nobody does it on purpose.
_NO_GOALS = ("engagement",)


class Goals:
    """The goals of all sites, within one transaction. A goal's display name is its site's only."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> list[Goal]:
        """Return the goals of every site, by display name."""
        return self._found(true())

    def of(self, site_id: str) -> list[Goal]:
        """Return a site's goals by display name."""
        return self._found(GOAL.c.site_id == checks.site_id(site_id))

    def add(self, site_id: str, fields: object) -> Goal:
        """Add a goal; raises Conflict where the site has one of that display name.

        fields: `page` (a pattern) or `event_name`; `display_name`, if it shall be another than
        what these say; `props`, an object of texts that an event must have; `currency`.
        """
        site_id = checks.site_id(site_id)
        values = {**_read(fields), "site_id": site_id}
        self._refuse_taken(values, None)
        (goal_id,) = self._connection.execute(
            insert(GOAL).values(values).returning(GOAL.c.goal_id)
        ).one()
        return self._get(site_id, goal_id)

    def replace(self, site_id: str, goal_id: int, fields: object) -> Goal:
        """Make a goal what the fields say, as in `add`. Raises NotFound and Conflict."""
        site_id = self._get(site_id, goal_id).site_id
        values = {**_read(fields), "site_id": site_id}
        self._refuse_taken(values, goal_id)
        self._connection.execute(update(GOAL).where(GOAL.c.goal_id == goal_id).values(values))
        return self._get(site_id, goal_id)

    def remove(self, site_id: str, goal_id: int) -> None:
        """Remove a goal. Raises NotFound."""
        self._get(site_id, goal_id)
        self._connection.execute(delete(GOAL).where(GOAL.c.goal_id == goal_id))

    def _get(self, site_id: str, goal_id: int) -> Goal:
        of_site = GOAL.c.site_id == checks.site_id(site_id)
        found = self._found(of_site & (GOAL.c.goal_id == goal_id))
        if not found:
            raise NotFound("The site has no such goal.")
        return found[0]

    def _found(self, where: Any) -> list[Goal]:
        statement = select(GOAL).where(where).order_by("site_id", "display_name")
        return [_goal(row) for row in self._connection.execute(statement)]

    def _refuse_taken(self, values: dict[str, Any], goal_id: int | None) -> None:
        name = values["display_name"]
        for goal in self.of(values["site_id"]):
            if goal.display_name == name and goal.goal_id != goal_id:
                raise Conflict(
                    "The site has a goal of that display name.",
                    field="display_name",
                    rule="another display_name",
                )


def _read(fields: object) -> dict[str, Any]:
    document = checks.known_fields(fields, FIELDS)
    page = checks.optional_text(document, "page", PAGE_LENGTH_MAX)
    event_name = checks.optional_text(document, "event_name")
    if (page is None) == (event_name is None):
        raise InvalidInput(
            "A goal is either of a page or of an event.",
            field="page" if event_name else "event_name",
            rule="one of page and event_name",
        )
    if page is not None and not page.startswith("/"):
        checks.refuse("page", "is no pathname", 'what starts with "/", such as /blog/**')
    if event_name in _NO_GOALS:
        checks.refuse("event_name", "is an event that nobody does on purpose", "another event")
    currency = checks.currency(document, "currency")
    if currency is not None and event_name is None:
        checks.refuse("currency", "belongs to an event", "no currency on a goal of a page")
    return {
        "page": page,
        "event_name": event_name,
        "display_name": checks.optional_text(document, "display_name")
        or (event_name or f"Visit {page}")[: checks.NAME_LENGTH_MAX],
        "props": _props(document),
        "currency": currency,
    }


def _props(document: Document) -> dict[str, str]:
    props = document.get("props")
    if props is None:
        return {}
    if not isinstance(props, dict) or len(props) > PROPS_MAX:
        checks.refuse("props", "is no object of texts", f"at most {PROPS_MAX} names and texts")
    for name, value in props.items():
        checks.fit_text(name, "props", PROP_NAME_LENGTH_MAX)
        checks.fit_text(value, "props", PROP_LENGTH_MAX)
    return dict(props)  # as they were sent: spaces at an end are part of a property


def _goal(row: Row[Any]) -> Goal:
    return Goal(
        row.goal_id,
        row.site_id,
        row.display_name,
        row.page,
        row.event_name,
        tuple(sorted(row.props.items())),
        row.currency,
    )
