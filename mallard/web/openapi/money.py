"""Reports about money."""

from __future__ import annotations

from mallard.query.named.money import ACROSS, INTERVALS, MODELS
from mallard.query.reports.attribution import DIMENSIONS
from mallard.web.openapi import asking
from mallard.web.openapi.insights import COMPARED, COUNT, told
from mallard.web.openapi.operations import Area, query
from mallard.web.openapi.schemas import Json, fields, number, or_null, text, word


def area() -> Area:
    """Return the area."""
    paths = {**_revenue(), **_attribution()}
    return Area("money", "What came in, a currency each, and to what it is owed.", paths)


def _revenue() -> dict[str, Json]:
    row = {
        "time": text("The interval's start."),
        "value": text("Of the dimension `by`, or the goal."),
        "currency": text("ISO 4217."),
        "total": number(),
        "average": or_null(number()),
        "events": COUNT,
        **COMPARED,
    }
    return told(
        "revenue",
        "What came in, of all, by a dimension or over time",
        [
            query("by", asking.short_dimensions(times=False)),
            query("interval", word(INTERVALS, "Instead of `by`.")),
        ],
        fields(row, optional=("time", "value", *COMPARED)),
        {"total_rows": COUNT},
    )


def _attribution() -> dict[str, Json]:
    by = [each.value for each in DIMENSIONS]
    short = [each.partition(":")[2] for each in by]
    model = word(MODELS, "Which visits it is owed to.", default="last")
    within = word(ACROSS, "Whose visits: one's UTC day, or all of a user.", default="visitor")
    row = {
        "value": text(),
        "conversions": number(minimum=0),
        "visitors": COUNT,
        "users": COUNT,
        "revenue": {
            "type": "object",
            "description": "By currency.",
            "additionalProperties": number(),
        },
    }
    return told(
        "attribution",
        "To which sources or campaigns the conversions of a goal are owed",
        [
            query("goal", text("The name of a goal.", minLength=1), required=True),
            query("by", word([*short, *by], default="source")),
            query("model", model),
            query("within", within),
        ],
        fields(row, optional=("visitors", "users")),
        {
            "goal": text(),
            "model": model,
            "within": within,
            "conversions": COUNT,
            "without_touch": COUNT,
        },
    )
