"""Reports about money: `web/money.py`."""

from __future__ import annotations

from mallard.query.reports.attribution import DIMENSIONS
from mallard.web.insight import PAGED, SHARED
from mallard.web.money import ACROSS, INTERVALS, MODELS
from mallard.web.openapi import asking
from mallard.web.openapi.insights import COMPARED, COUNT, report
from mallard.web.openapi.operations import Area, query, shared
from mallard.web.openapi.schemas import Json, fields, number, or_null, text, word


def area() -> Area:
    """Return the area."""
    paths = {"/api/stats/revenue": _revenue(), "/api/stats/attribution": _attribution()}
    return Area("money", "What came in, a currency each, and to what it is owed.", paths)


def _revenue() -> Json:
    row = {
        "time": text("The interval's start."),
        "value": text("Of the dimension `by`, or the goal."),
        "currency": text("ISO 4217."),
        "total": number(),
        "average": or_null(number()),
        "events": COUNT,
        **COMPARED,
    }
    return report(
        "revenue",
        "What came in, of all, by a dimension or over time",
        [
            *map(shared, (*PAGED, "compare")),
            query("by", asking.short_dimensions(times=False)),
            query("interval", word(INTERVALS, "Instead of `by`.")),
        ],
        fields(row, optional=("time", "value", *COMPARED)),
        {"total_rows": COUNT},
    )


def _attribution() -> Json:
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
    return report(
        "attribution",
        "To which sources or campaigns the conversions of a goal are owed",
        [
            *map(shared, SHARED),
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
