"""Reports that look at single events and visits: `web/insights.py`."""

from __future__ import annotations

from collections.abc import Iterable

from mallard.accounts.access import Scope
from mallard.query.reports.funnel import STEPS_MAX, Within
from mallard.query.reports.journeys import STEPS_MAX as JOURNEY_STEPS_MAX
from mallard.query.reports.journeys import Direction
from mallard.query.reports.retention import Person
from mallard.query.reports.steps import RULE as STEPS
from mallard.web.insight import PAGED, SHARED
from mallard.web.insights import COHORTS
from mallard.web.openapi import asking
from mallard.web.openapi.asking import CHANGE
from mallard.web.openapi.operations import Area, answer, operation, query, shared
from mallard.web.openapi.schemas import (
    Json,
    fields,
    items,
    number,
    or_null,
    text,
    whole,
    word,
)

ERRORS = (400, 422, 504)
COUNT = whole(minimum=0)
PERCENT = or_null(number("Percent.", minimum=0, maximum=100))
LOCAL = text("In the site's time zone.", format="date-time")
# What rows have where `compare` asks for it: by the name of a number.
COMPARED: Json = {
    "compared": {"type": "object", "additionalProperties": or_null(number())},
    "change": {"type": "object", "additionalProperties": or_null(number(CHANGE))},
}


def area() -> Area:
    """Return the area."""
    paths = {
        "/api/stats/realtime": _realtime(),
        "/api/stats/funnel": _funnel(),
        "/api/stats/journeys": _journeys(),
        "/api/stats/retention": _retention(),
    }
    return Area("insights", "Reports of single events and visits.", paths)


def _realtime() -> Json:
    top = query("limit", whole(minimum=1, maximum=1_000, default=10))
    values = items(fields({"value": text(), "visitors": COUNT}))
    minute = {"time": LOCAL, "visitors": COUNT, "pageviews": COUNT}
    return report(
        "realtime",
        "Who is there now",
        [shared("site_id"), shared("filters"), top, shared("format")],
        fields(minute),
        {"visitors": COUNT, "pages": values, "sources": values, "countries": values},
    )


def _funnel() -> Json:
    steps = text(f"2 to {STEPS_MAX} with commas between: {STEPS}.", minLength=1)
    window = text("From the first step to the last.", pattern="^[1-9][0-9]{0,6}[smhd]$")
    within = word([each.value for each in Within], "What takes the steps.", default="visit")
    row = {
        "value": text("Of the dimension `by`, at the first step."),
        "step": whole(minimum=1),
        "label": text(),
        "visitors": COUNT,
        "users": COUNT,
        "visits": COUNT,
        "conversion_rate": PERCENT,
        "step_conversion_rate": PERCENT,
        "drop_off": or_null(COUNT),
        **COMPARED,
    }
    return report(
        "funnel",
        "How many took steps in their order",
        [
            *map(shared, (*PAGED, "compare")),
            query("steps", steps, required=True),
            query("window", window),
            query("within", within),
            query("by", asking.short_dimensions(goals=False, times=False)),
        ],
        fields(row, optional=("value", "visitors", "users", "visits", *COMPARED)),
        {"within": within, "window": or_null(window)},
    )


def _journeys() -> Json:
    step = text(f"Where the ways begin or end: one of {STEPS}.", minLength=1)
    direction = word(Direction, "With `of`.", default=Direction.AFTER)
    steps = whole("How far.", minimum=1, maximum=JOURNEY_STEPS_MAX, default=3)
    counts = {"visits": COUNT, "visitors": COUNT, "share": PERCENT}
    path = fields({"path": items(text()), **counts})
    way = {"step": whole(minimum=1), "from": or_null(text()), "to": or_null(text()), **counts}
    return report(
        "journeys",
        "Where visits go from a place or come from; without one, the paths they begin with",
        [
            *map(shared, PAGED),
            query("of", step),
            query("direction", direction),
            query("steps", steps),
        ],
        {"anyOf": [path, fields(way)]},
        {"of": text(), "direction": direction},
        optional=("of", "direction"),
    )


def _retention() -> Json:
    interval = word(COHORTS, default="week")
    person = word(
        Person, "What names people; visitors are one for a day only.", default=Person.USER
    )
    row = {
        "cohort": text("Its first day.", format="date"),
        "people": or_null(COUNT),
        "retained": items(or_null(COUNT), "Of each interval since; null: not begun."),
        "rates": items(PERCENT),
    }
    return report(
        "retention",
        "How many of a cohort come back",
        [*map(shared, SHARED), query("interval", interval), query("person", person)],
        fields(row),
        {"person": person, "interval": interval, "note": text()},
        optional=["note"],
    )


def report(
    name: str,
    summary: str,
    parameters: list[Json],
    row: Json,
    more: Json,
    *,
    optional: Iterable[str] = (),
    scope: Scope = Scope.STATS,
) -> Json:
    """Return a report. row: the schema of its rows. more: what else its JSON has."""
    head = {"site_id": text(), "from": LOCAL, "to": LOCAL, **more}
    found = answer("The rows.", fields({**head, "rows": items(row)}, optional=optional))
    found["content"]["text/csv"] = {"schema": text("The rows (RFC 4180).")}
    told = {200: found}
    return {
        "get": operation(name, summary, told, scope=scope, parameters=parameters, errors=ERRORS)
    }
