"""Reports that look at single events and visits."""

from __future__ import annotations

from collections.abc import Iterable

from mallard.query.named.insights import COHORTS
from mallard.query.reports.funnel import STEPS_MAX, Within
from mallard.query.reports.journeys import STEPS_MAX as JOURNEY_STEPS_MAX
from mallard.query.reports.journeys import Direction
from mallard.query.reports.retention import Person
from mallard.query.reports.steps import RULE as STEPS
from mallard.web.openapi import asking
from mallard.web.openapi.asking import CHANGE
from mallard.web.openapi.operations import Area, query
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
from mallard.web.openapi.statistics import report

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
    paths = {**_realtime(), **_funnel(), **_journeys(), **_retention()}
    return Area("insights", "Reports of single events and visits.", paths)


def _realtime() -> dict[str, Json]:
    top = query("limit", whole(minimum=1, maximum=1_000, default=10))
    values = items(fields({"value": text(), "visitors": COUNT}))
    minute = {"time": LOCAL, "visitors": COUNT, "pageviews": COUNT}
    return told(
        "realtime",
        "Who is there now",
        [top],
        fields(minute),
        {"visitors": COUNT, "pages": values, "sources": values, "countries": values},
    )


def _funnel() -> dict[str, Json]:
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
    return told(
        "funnel",
        "How many took steps in their order",
        [
            query("steps", steps, required=True),
            query("window", window),
            query("within", within),
            query("by", asking.short_dimensions(goals=False, times=False)),
        ],
        fields(row, optional=("value", "visitors", "users", "visits", *COMPARED)),
        {"within": within, "window": or_null(window)},
    )


def _journeys() -> dict[str, Json]:
    step = text(f"Where the ways begin or end: one of {STEPS}.", minLength=1)
    direction = word(Direction, "With `of`.", default=Direction.AFTER)
    steps = whole("How far.", minimum=1, maximum=JOURNEY_STEPS_MAX, default=3)
    counts = {"visits": COUNT, "visitors": COUNT, "share": PERCENT}
    path = fields({"path": items(text()), **counts})
    way = {"step": whole(minimum=1), "from": or_null(text()), "to": or_null(text()), **counts}
    return told(
        "journeys",
        "Where visits go from a place or come from; without one, the paths they begin with",
        [
            query("of", step),
            query("direction", direction),
            query("steps", steps),
        ],
        {"anyOf": [path, fields(way)]},
        {"of": text(), "direction": direction},
        optional=("of", "direction"),
    )


def _retention() -> dict[str, Json]:
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
    return told(
        "retention",
        "How many of a cohort come back",
        [query("interval", interval), query("person", person)],
        fields(row),
        {"person": person, "interval": interval, "note": text()},
        optional=["note"],
    )


def told(
    key: str,
    summary: str,
    own: Iterable[Json],
    row: Json,
    more: Json,
    *,
    optional: Iterable[str] = (),
) -> dict[str, Json]:
    """Return the path of a report.

    own: parameters that others have not, or say otherwise. row: the schema of its rows. more: what
    else its JSON has.
    """
    head = {"site_id": text(), "from": LOCAL, "to": LOCAL, **more}
    return report(key, summary, fields({**head, "rows": items(row)}, optional=optional), own=own)
