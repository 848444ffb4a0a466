"""Reports: `/api/v2/query` and `/api/stats`."""

from __future__ import annotations

from collections.abc import Iterable

from mallard.accounts.access import Scope
from mallard.query.named import numbers
from mallard.query.named.registry import REPORTS, Report
from mallard.query.plausible import names
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
from mallard.web.stats import path_of, scope_of

FAILED = (422, 504)
_BY_KEY = {each.key: each for each in REPORTS}


def area() -> Area:
    """Return the area."""
    interval = {"type": "string", "enum": [*numbers.INTERVALS]}
    series = query("interval", interval, description="Without it, one that fits the period.")
    paths = {
        "/api/v2/query": {"post": _plausible()},
        **_numbers("summary", "The numbers of a period", numbers.SUMMARY),
        **_numbers(
            "timeseries",
            "A row for each interval of a period",
            numbers.SERIES,
            {"time": text("The interval's start in the site's time zone.")},
            own=[series],
        ),
        **listed(
            "breakdown",
            "A row for each value of a dimension",
            numbers.BREAKDOWN,
            asking.short_dimensions(),
        ),
        **listed("goals", "The conversions of each goal", numbers.GOALS),
    }
    schemas = {**asking.schemas(), **_schemas()}
    return Area("statistics", "Reports of numbers.", paths, schemas, asking.parameters())


def report(
    key: str,
    summary: str,
    rows: Json,
    *,
    own: Iterable[Json] = (),
    argument: Json | None = None,
    errors: Iterable[int] = (),
) -> dict[str, Json]:
    """Return the path of a report.

    rows: the schema of its answer in JSON. own: parameters that others have not, or say otherwise.
    argument: the schema of what follows its name.
    """
    found = answer("The rows.", rows)
    found["content"]["text/csv"] = {"schema": text("The rows (RFC 4180).")}
    told = _BY_KEY[key]
    made = operation(
        key,
        summary,
        {200: found},
        scope=scope_of(told),
        parameters=_parameters(told, {each["name"]: each for each in own}, argument),
        # A name in several lines is no path.
        errors=(400, *FAILED, *errors, *((404,) if argument else ())),
    )
    return {path_of(told).replace(":path", ""): {"get": made}}


def _parameters(told: Report, own: dict[str, Json], argument: Json | None) -> list[Json]:
    found = [] if argument is None else [in_path(told.argument, argument)]
    return [*found, *(own.get(each) or shared(each) for each in told.parameters)]


def _plausible() -> Json:
    return operation(
        "query",
        "Plausible's Stats API v2",
        {200: answer("A row for each group, and what was asked.", ref("QueryAnswer"))},
        scope=Scope.STATS,
        body=body(ref("Query")),
        errors=FAILED,
        error="QueryError",
    )


def listed(
    key: str, summary: str, metrics: tuple[str, ...], argument: Json | None = None
) -> dict[str, Json]:
    """Return the path of a report with a row for each value of a dimension."""
    order = text("A metric, or the dimension; after `-` from large to small.")
    return _numbers(
        key,
        summary,
        metrics,
        {"value": text("The value, or Plausible's word for none.")},
        own=[query("order", order)],
        argument=argument,
        counted=True,
    )


def _numbers(
    key: str,
    summary: str,
    metrics: tuple[str, ...],
    columns: Json | None = None,
    *,
    own: Iterable[Json] = (),
    argument: Json | None = None,
    counted: bool = False,
) -> dict[str, Json]:
    """Return the path of a report of numbers. columns: of its rows, before the metrics."""
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
    own = (asking.metrics_parameter(metrics), *own)
    rows = fields(document, optional=["warnings"])
    return report(key, summary, rows, own=own, argument=argument)


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
