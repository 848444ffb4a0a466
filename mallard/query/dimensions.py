"""What numbers are grouped by: the names of Plausible's Stats API v2, and a few of our own.

An event dimension is a property of each event; a visit dimension is one of the visit, and all
events of a visit share it. An event that belongs to no visit has its own columns for the latter,
and neither entry nor exit.

A value is text, or null where it is not known. A dimension that needs several columns to tell its
values apart (Chrome 12 is not Firefox 12) has a JSON array of them as text, such as
`["DE","Hesse","Frankfurt"]`, with null in the place of what is not known: `value->>0` reads it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from mallard.query.sql import Sql, literal

Scope = Literal["event", "visit"]


class Dimension(Enum):
    """A dimension; `Dimension("visit:source")` finds one by its name in the API.

    scope: whether `sql` reads the columns of an event or of a visit (`sessions.SESSION_SCHEMA`).
    sql: its value, a VARCHAR.
    """

    scope: Scope
    sql: Sql

    # One value, '', that all have. Of the visit, so that it has its numbers.
    TOTAL = "total", "visit", "''"

    PAGE = "event:page", "event", "pathname"
    HOSTNAME = "event:hostname", "event", "hostname"
    NAME = "event:name", "event", "event_name"
    # The hour of the UTC day, 00 to 23.
    HOUR = "time:hour", "event", "strftime(timestamp, '%H')"

    ENTRY_PAGE = "visit:entry_page", "visit", "entry_page"
    EXIT_PAGE = "visit:exit_page", "visit", "exit_page"
    ENTRY_HOSTNAME = "visit:entry_page_hostname", "visit", "entry_hostname"
    EXIT_HOSTNAME = "visit:exit_page_hostname", "visit", "exit_hostname"
    SOURCE = "visit:source", "visit", "referrer_source"
    CHANNEL = "visit:channel", "visit", "channel"
    REFERRER = "visit:referrer", "visit", "referrer"
    UTM_SOURCE = "visit:utm_source", "visit", "utm_source"
    UTM_MEDIUM = "visit:utm_medium", "visit", "utm_medium"
    UTM_CAMPAIGN = "visit:utm_campaign", "visit", "utm_campaign"
    UTM_CONTENT = "visit:utm_content", "visit", "utm_content"
    UTM_TERM = "visit:utm_term", "visit", "utm_term"
    DEVICE = "visit:device", "visit", "device_type"
    BROWSER = "visit:browser", "visit", "browser"
    BROWSER_VERSION = "visit:browser_version", "visit", "json_array(browser, browser_version)"
    OS = "visit:os", "visit", "os"
    OS_VERSION = "visit:os_version", "visit", "json_array(os, os_version)"
    COUNTRY = "visit:country", "visit", "country_code"
    REGION = "visit:region", "visit", "json_array(country_code, region)"
    CITY = "visit:city", "visit", "json_array(country_code, region, city)"
    LANGUAGE = "visit:language", "visit", "language"
    # The classes that Plausible had while it knew widths, in CSS pixels.
    SCREEN = (
        "visit:screen",
        "visit",
        "CASE WHEN screen_width < 576 THEN 'Mobile' WHEN screen_width < 992 THEN 'Tablet' "
        "WHEN screen_width < 1440 THEN 'Laptop' WHEN screen_width IS NOT NULL THEN 'Desktop' END",
    )

    def __new__(cls, name: str, scope: Scope, sql: str) -> Dimension:
        """Make a member whose value is its name in the API."""
        member = object.__new__(cls)
        member._value_ = name
        member.scope = scope
        member.sql = Sql(f"({sql})::VARCHAR")
        return member

    @property
    def column(self) -> Sql:
        """The column that holds its value where rows have those of several dimensions."""
        return Sql(f"by_{self.name.lower()}")

    @property
    def is_compound(self) -> bool:
        """Whether its values are JSON arrays of several columns'."""
        return "json_array" in self.sql

    @staticmethod
    def last_of(value: str) -> str | None:
        """Return the last of a compound value: the city, the version."""
        last: str | None = json.loads(value)[-1]
        return last

    @property
    def filtered(self) -> Sql:
        """What filters compare: its own column, where telling values apart takes several."""
        return _FILTERED.get(self.value, self.sql)


# Chrome 12 and Firefox 12 are both found by `visit:browser_version` is 12, as in Plausible.
_FILTERED = {
    "visit:browser_version": Sql("browser_version"),
    "visit:os_version": Sql("os_version"),
    "visit:region": Sql("region"),
    "visit:city": Sql("city"),
}


@dataclass(frozen=True, slots=True)
class Property:
    """A property of events by its key, as text: `event:props:plan` in the API."""

    key: str

    @property
    def value(self) -> str:
        """Its name in the API."""
        return f"event:props:{self.key}"

    @property
    def scope(self) -> Scope:
        """It is of each event."""
        return "event"

    @property
    def sql(self) -> Sql:
        """Its value, a VARCHAR; null where there is none."""
        # A JSON pointer (RFC 6901): in a JSON path "*" means any key, even in quotes.
        pointer = "/" + self.key.replace("~", "~0").replace("/", "~1")
        return Sql(f"json_extract_string(props, {literal(pointer)})")

    @property
    def filtered(self) -> Sql:
        """What filters compare."""
        return self.sql

    @property
    def column(self) -> Sql:
        """The column that holds its value where rows have those of several dimensions."""
        return Sql(f"by_property_{self.key.encode().hex()}")


@dataclass(frozen=True, slots=True)
class TimeSlice:
    """The start of the slice of a day an event is in, from a column of that name."""

    value = "time"
    scope: Scope = "event"
    sql = Sql("slice_us")
    filtered = Sql("slice_us")
    column = Sql("by_slice")


By = Dimension | Property | TimeSlice

EVENT_DIMENSIONS = tuple(each for each in Dimension if each.scope == "event")
VISIT_DIMENSIONS = tuple(each for each in Dimension if each.scope == "visit")
