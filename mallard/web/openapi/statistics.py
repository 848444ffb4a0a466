"""Reports: `/api/v2/query` and `/api/stats`."""

from __future__ import annotations

from mallard.accounts.access import Scope
from mallard.query.plausible import names
from mallard.web import stats
from mallard.web.openapi import asking
from mallard.web.openapi.operations import Area, answer, body, in_path, operation, query, shared
from mallard.web.openapi.schemas import (
    Json,
    all_optional,
    fields,
    items,
    number,
    or_null,
    ref,
    text,
    whole,
)

_FAILED = (422, 504)
_SHARED = ("site_id", "period", "from", "to", "filters", "compare", "as_of", "format")


def area() -> Area:
    """Return the area."""
    paths = {
        "/api/v2/query": {"post": _plausible()},
        "/api/stats/summary": _report("summary", "The numbers of a period", stats.SUMMARY),
        "/api/stats/timeseries": _report(
            "timeseries",
            "A row for each interval of a period",
            stats.SERIES,
            {"time": text("The interval's start in the site's time zone.")},
            parameters=[
                query(
                    "interval",
                    {"type": "string", "enum": _intervals()},
                    description="Without it, one that fits the period.",
                )
            ],
        ),
        "/api/stats/breakdown/{dimension}": listed(
            "breakdown",
            "A row for each value of a dimension",
            stats.BREAKDOWN,
            parameters=[in_path("dimension", asking.short_dimensions())],
            errors=(404,),  # a name in several lines is no path
        ),
        "/api/stats/goals": listed("goals", "The conversions of each goal", stats.GOALS),
    }
    schemas = {**asking.schemas(), **_schemas()}
    return Area("statistics", "Reports of numbers.", paths, schemas, asking.parameters())


def _intervals() -> list[str]:
    return [name.partition(":")[2] for name in names.TIMES if ":" in name]


def _plausible() -> Json:
    return operation(
        "query",
        "Plausible's Stats API v2",
        {200: answer("A row for each group, and what was asked.", ref("QueryAnswer"))},
        scope=Scope.STATS,
        body=body(ref("Query")),
        errors=_FAILED,
        error="QueryError",
    )


def listed(
    name: str,
    summary: str,
    metrics: tuple[str, ...],
    parameters: list[Json] | None = None,
    errors: tuple[int, ...] = (),
) -> Json:
    """Return a report with a row for each value of a dimension."""
    order = text("A metric, or the dimension; after `-` from large to small.")
    paged = [shared("limit"), shared("offset"), query("order", order)]
    return _report(
        name,
        summary,
        metrics,
        {"value": text("The value, or Plausible's word for none.")},
        parameters=[*(parameters or ()), *paged],
        counted=True,
        errors=errors,
    )


def _report(
    name: str,
    summary: str,
    metrics: tuple[str, ...],
    columns: Json | None = None,
    *,
    parameters: list[Json] | None = None,
    counted: bool = False,
    errors: tuple[int, ...] = (),
) -> Json:
    """Return a report of `/api/stats`. columns: of its rows, before the metrics."""
    columns = columns or {}
    known = {each: asking.metric(each) for each in names.METRICS}
    compared = {"compared": ref("Metrics"), "change": ref("Changes")}
    each = fields({**columns, **known, **compared}, optional={**known, **compared})
    document = {
        "site_id": text(),
        "from": text("The period's first second.", format="date-time"),
        "to": text("Its last second.", format="date-time"),
        **({"total_rows": whole("Of all pages.", minimum=0)} if counted else {}),
        "warnings": ref("Warnings"),
        "rows": items(each),
    }
    found = answer("The rows.", fields(document, optional=["warnings"]))
    found["content"]["text/csv"] = {"schema": text("The rows (RFC 4180).")}
    return {
        "get": operation(
            name,
            summary,
            {200: found},
            scope=Scope.STATS,
            parameters=[
                *(shared(each) for each in _SHARED),
                asking.metrics_parameter(metrics),
                *(parameters or ()),
            ],
            errors=(400, *errors, *_FAILED),
        )
    }


def _schemas() -> dict[str, Json]:
    value = {"anyOf": [{"type": "number"}, {"type": "null"}, ref("Money")]}
    percent = or_null(number(asking.CHANGE))
    compared = {
        "dimensions": items(text()),
        "metrics": items(value),
        "change": items(percent),
    }
    result = {
        "dimensions": items(text(), "In the order of the query."),
        "metrics": items(value, "In the order of the query."),
        "comparison": fields(compared),
    }
    meta = {
        "time_labels": items(text(), "Every interval of the period."),
        "total_rows": whole(minimum=0),
        "imports_included": {"const": False},
        "imports_skip_reason": text(),
        "metric_warnings": ref("Warnings"),
    }
    asked = {
        **{name: {} for name in ("site_id", "metrics", "filters", "dimensions", "include")},
        "date_range": items(text(format="date-time"), minItems=2, maxItems=2),
        "order_by": items(items(text())),
        "pagination": fields({"offset": whole(), "limit": whole()}),
    }
    known = {each: asking.metric(each) for each in names.METRICS}
    return {
        "QueryAnswer": fields(
            {
                "results": items(fields(result, optional=["comparison"])),
                "meta": all_optional(meta),
                "query": fields(asked, description="What was asked, with what was not said."),
            }
        ),
        "Metrics": all_optional({name: or_null(each) for name, each in known.items()}),
        "Changes": all_optional(dict.fromkeys(known, percent)),
    }
