"""Plausible's Stats API v1: `web/stats_v1.py`."""

from __future__ import annotations

from mallard.accounts.access import Scope
from mallard.query.plausible import names, version_1
from mallard.web.openapi import asking
from mallard.web.openapi.operations import Area, answer, operation, query, shared
from mallard.web.openapi.schemas import (
    Json,
    all_optional,
    fields,
    items,
    number,
    or_null,
    text,
    whole,
    word,
)


def area() -> Area:
    """Return the area."""
    known = {name: asking.metric(name) for name in names.METRICS}
    change = or_null(number(asking.CHANGE))
    numbers = {
        name: fields({"value": each, "change": change}, optional=["change"])
        for name, each in known.items()
    }
    of_day = fields({"date": text(), **known}, optional=known)
    # Under its short name each has the property, whose name may be anybody's.
    of_value = {"type": "object", "additionalProperties": {"anyOf": [text(), *_values()]}}
    paths = {
        "/api/v1/stats/realtime/visitors": _get("visitors", "Who is there now", whole(minimum=0)),
        "/api/v1/stats/aggregate": _get(
            "aggregate", "The numbers of a period", _results(all_optional(numbers))
        ),
        "/api/v1/stats/timeseries": _get(
            "timeseries", "A row for each interval", _results(items(of_day))
        ),
        "/api/v1/stats/breakdown": _get(
            "breakdown", "A row for each value of a property", _results(items(of_value))
        ),
    }
    return Area("version_1", "Plausible's Stats API v1.", paths)


def _values() -> list[Json]:
    return [asking.metric(name) for name in ("visitors", "bounce_rate", "total_revenue")]


def _results(found: Json) -> Json:
    return fields({"results": found})


_TAKEN = {
    "visitors": ("site_id",),
    "aggregate": version_1.AGGREGATE,
    "timeseries": version_1.TIMESERIES,
    "breakdown": version_1.BREAKDOWN,
}


def _get(name: str, summary: str, found: Json) -> Json:
    known = _parameters()
    return {
        "get": operation(
            f"v1_{name}",
            summary,
            {200: answer("What there is.", found)},
            scope=Scope.STATS,
            parameters=[known[each] for each in _TAKEN[name]],
            errors=(400, 422, 504),
            error="QueryError",
        )
    }


def _parameters() -> dict[str, Json]:
    by = {**asking.dimension(), "description": "What a row is for."}
    given = [
        query("period", word(version_1.PERIODS, default="30d")),
        query("date", text("The last day of the period, or of `custom` both, with `,` between.")),
        query("filters", text("Conditions with `;` between, such as `visit:country==DE|FR`.")),
        query("compare", word(["previous_period"])),
        query("with_imported", word(["true", "false"])),
        query("interval", word([*version_1.INTERVALS, "date"])),
        query("property", by, required=True),
        query("limit", whole(minimum=1, maximum=version_1.LIMIT_MAX, default=version_1.LIMIT)),
        query("page", whole(minimum=1, default=1)),
        asking.metrics_parameter(("visitors",)),
    ]
    return {"site_id": shared("site_id"), **{each["name"]: each for each in given}}
