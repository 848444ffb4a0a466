"""Visits one by one, and properties of events."""

from __future__ import annotations

from mallard.query.named.numbers import BREAKDOWN
from mallard.query.plausible.names import PROPERTY_LENGTH_MAX
from mallard.web.openapi.insights import COUNT, LOCAL, told
from mallard.web.openapi.operations import Area
from mallard.web.openapi.schemas import Json, fields, flag, items, number, or_null, ref, text
from mallard.web.openapi.statistics import listed, report

_TEXTS = (
    *("entry_page", "exit_page", "hostname", "source", "channel", "referrer", "utm_source"),
    *("utm_medium", "utm_campaign", "country", "region", "city", "device", "browser", "os"),
    "language",
)


def area() -> Area:
    """Return the area."""
    key = {"key": text(), "visitors": COUNT, "events": COUNT}
    keys = text(minLength=1, maxLength=PROPERTY_LENGTH_MAX)
    total = {"total_rows": COUNT}
    paths = {
        **told("sessions", "Visits, the newest first", [], ref("Visit"), total),
        **_session(),
        **told("props", "The keys of properties", [], fields(key), total),
        **listed("prop", "A row for each value of a property", BREAKDOWN, keys),
    }
    return Area("visits", "Visits one by one, and properties of events.", paths, _schemas())


def _session() -> dict[str, Json]:
    told = {"site_id": text(), "session": ref("Visit"), "total_rows": COUNT}
    told["rows"] = items(ref("VisitEvent"), "A page of its events, in order.")
    name = text("As `sessions` has it.", minLength=1)
    return report("session", "One visit and its events", fields(told), argument=name)


def _schemas() -> dict[str, Json]:
    seconds = or_null(number("Seconds.", minimum=0))
    visit = {
        "id": text(),
        "user_id": or_null(text()),
        "started_at": LOCAL,
        "ended_at": LOCAL,
        "duration": COUNT,
        "pageviews": COUNT,
        "events": COUNT,
        "bounce": flag(),
        **{name: or_null(text()) for name in _TEXTS},
        "engaged_seconds": seconds,
        "revenue": {"type": "object", "additionalProperties": number()},
    }
    event = {
        "time": LOCAL,
        "name": text(),
        "type": text(),
        "hostname": or_null(text()),
        "page": or_null(text()),
        "props": {"type": "object"},
        "revenue": or_null(number()),
        "currency": or_null(text()),
        "engaged_seconds": seconds,
        "scroll_depth": or_null(number(minimum=0, maximum=100)),
    }
    return {"Visit": fields(visit), "VisitEvent": fields(event)}
