"""Visits one by one, and properties of events: `web/visits.py`."""

from __future__ import annotations

from mallard.accounts.access import Scope
from mallard.query.plausible.names import PROPERTY_LENGTH_MAX
from mallard.web import stats
from mallard.web.insight import PAGED
from mallard.web.openapi.insights import COUNT, ERRORS, LOCAL, report
from mallard.web.openapi.operations import Area, answer, in_path, operation, shared
from mallard.web.openapi.schemas import Json, fields, flag, items, number, or_null, ref, text
from mallard.web.openapi.statistics import listed
from mallard.web.visits import OF_ONE

_TEXTS = (
    *("entry_page", "exit_page", "hostname", "source", "channel", "referrer", "utm_source"),
    *("utm_medium", "utm_campaign", "country", "region", "city", "device", "browser", "os"),
    "language",
)


def area() -> Area:
    """Return the area."""
    key = {"key": text(), "visitors": COUNT, "events": COUNT}
    keys = in_path("key", text(minLength=1, maxLength=PROPERTY_LENGTH_MAX))
    paths = {
        "/api/stats/sessions": report(
            "sessions",
            "Visits, the newest first",
            [*map(shared, PAGED)],
            ref("Visit"),
            {"total_rows": COUNT},
            scope=Scope.SQL,
        ),
        "/api/stats/sessions/{id}": {"get": _session()},
        "/api/stats/props": report(
            "props",
            "The keys of properties",
            [*map(shared, PAGED)],
            fields(key),
            {"total_rows": COUNT},
        ),
        "/api/stats/props/{key}": listed(
            "prop", "A row for each value of a property", stats.BREAKDOWN, [keys], errors=(404,)
        ),
    }
    return Area("visits", "Visits one by one, and properties of events.", paths, _schemas())


def _session() -> Json:
    told = {"site_id": text(), "session": ref("Visit"), "total_rows": COUNT}
    told["rows"] = items(ref("VisitEvent"))
    found = answer("The visit and a page of its events, in order.", fields(told))
    found["content"]["text/csv"] = {"schema": text("The events (RFC 4180).")}
    return operation(
        "session",
        "One visit and its events",
        {200: found},
        scope=Scope.SQL,
        parameters=[
            in_path("id", text("As `sessions` has it.", minLength=1)),
            *map(shared, OF_ONE),
        ],
        errors=(*ERRORS, 404),
    )


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
