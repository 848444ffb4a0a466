"""Reports that look at single events and visits: `web/insights.py`."""

from __future__ import annotations

from mallard.accounts.access import Scope
from mallard.query.reports.funnel import STEPS_MAX, Within
from mallard.query.reports.steps import RULE as STEPS
from mallard.web.insight import PAGED
from mallard.web.openapi import asking
from mallard.web.openapi.operations import Area, answer, operation, query, shared
from mallard.web.openapi.schemas import Json, fields, items, number, or_null, text, whole, word

_ERRORS = (400, 422, 504)
_COUNT = whole(minimum=0)
_PERCENT = or_null(number("Percent.", minimum=0, maximum=100))
_LOCAL = text("In the site's time zone.", format="date-time")


def area() -> Area:
    """Return the area."""
    paths = {
        "/api/stats/realtime": _realtime(),
        "/api/stats/funnel": _funnel(),
    }
    return Area("insights", "Reports of single events and visits.", paths)


def _realtime() -> Json:
    top = query("limit", whole(minimum=1, maximum=1_000, default=10))
    values = items(fields({"value": text(), "visitors": _COUNT}))
    minute = {"time": _LOCAL, "visitors": _COUNT, "pageviews": _COUNT}
    return _report(
        "realtime",
        "Who is there now",
        [shared("site_id"), shared("filters"), top, shared("format")],
        minute,
        {"visitors": _COUNT, "pages": values, "sources": values, "countries": values},
    )


def _funnel() -> Json:
    steps = text(f"2 to {STEPS_MAX} with commas between: {STEPS}.", minLength=1)
    window = text("From the first step to the last.", pattern="^[1-9][0-9]{0,6}[smhd]$")
    within = word([each.value for each in Within], "What takes the steps.", default="visit")
    row = {
        "value": text("Of the dimension `by`, at the first step."),
        "step": whole(minimum=1),
        "label": text(),
        "visitors": _COUNT,
        "users": _COUNT,
        "visits": _COUNT,
        "conversion_rate": _PERCENT,
        "step_conversion_rate": _PERCENT,
        "drop_off": or_null(_COUNT),
    }
    return _report(
        "funnel",
        "How many took steps in their order",
        [
            *map(shared, PAGED),
            query("steps", steps, required=True),
            query("window", window),
            query("within", within),
            query("by", asking.short_dimensions(goals=False)),
        ],
        row,
        {"within": within, "window": or_null(window)},
        optional=("value", "visitors", "users", "visits"),
    )


def _report(
    name: str,
    summary: str,
    parameters: list[Json],
    row: Json,
    more: Json,
    optional: tuple[str, ...] = (),
) -> Json:
    """Return a report. row: the columns of its rows. more: what else its JSON has."""
    head = {"site_id": text(), "from": _LOCAL, "to": _LOCAL}
    rows = items(fields(row, optional=optional))
    found = answer("The rows.", fields({**head, **more, "rows": rows}))
    found["content"]["text/csv"] = {"schema": text("The rows (RFC 4180).")}
    return {
        "get": operation(
            name, summary, {200: found}, scope=Scope.STATS, parameters=parameters, errors=_ERRORS
        )
    }
