"""`/api/stats/...`: the same answers for curl and spreadsheets, as JSON or CSV.

A report here is a query of `/api/v2/query` in other words, and its rows are objects.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mallard.errors import InvalidInput
from mallard.query.forms import FORMULA_STARTS
from mallard.query.plausible import names
from mallard.query.plausible.compact import full_name, read_compact
from mallard.web.parameters import check_names, date_range, is_csv, number
from mallard.web.reports import Reports

SUMMARY = (
    *("visitors", "visits", "pageviews", "events"),
    *("views_per_visit", "bounce_rate", "visit_duration"),
)
SERIES = ("visitors", "visits", "pageviews", "events")
BREAKDOWN = ("visitors", "visits", "pageviews", "bounce_rate", "visit_duration")
OF_PAGES = ("visitors", "pageviews", "bounce_rate", "time_on_page", "scroll_depth", "exit_rate")
GOALS = ("visitors", "events", "conversion_rate", "total_revenue")
ROWS = 100
COUNTS = names.COUNTS
COMPARISONS = ("previous_period", "previous_year")
_SHARED = ("site_id", "period", "from", "to", "filters", "metrics", "compare", "as_of", "format")
_PAGED = (*_SHARED, "limit", "offset", "order")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A report's parameters. The document is a query of Stats API v2."""

    document: dict[str, Any]
    metrics: tuple[str, ...]
    as_csv: bool


class Stats:
    """Answers reports by their parameters."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/api/stats/summary", self.summary),
            Route("/api/stats/timeseries", self.timeseries),
            Route("/api/stats/breakdown/{dimension:path}", self.breakdown),
            Route("/api/stats/goals", self.goals),
        ]

    async def summary(self, request: Request) -> Response:
        """Answer with the numbers of a period."""
        asked = _read(request, _SHARED, SUMMARY)
        found = await self._reports.ask(request, asked.document)
        (row,) = _rows(found, asked, ())
        return _answer(asked, found, [row], {})

    async def timeseries(self, request: Request) -> Response:
        """Answer with a row for each interval of a period, those without events too."""
        asked = _read(request, (*_SHARED, "interval"), SERIES)
        interval = request.query_params.get("interval")
        time = "time" if interval is None else f"time:{interval}"
        if time not in names.TIMES:
            raise InvalidInput(
                f"interval {interval!r} is unknown.",
                field="interval",
                rule="one of hour, day, week, month",
            )
        asked.document["dimensions"] = [time]
        found = await self._reports.ask(request, asked.document, every_interval=True)
        return _answer(asked, found, _rows(found, asked, ("time",)), {})

    async def breakdown(self, request: Request) -> Response:
        """Answer with a row for each value of a dimension."""
        name = full_name(request.path_params["dimension"])
        metrics = OF_PAGES if name == "event:page" else BREAKDOWN
        return await self.listed(request, name, metrics)

    async def goals(self, request: Request) -> Response:
        """Answer with the conversions of each of the site's goals."""
        return await self.listed(request, names.GOAL, GOALS)

    async def listed(self, request: Request, name: str, metrics: tuple[str, ...]) -> Response:
        """Answer with a row for each value of a dimension of Stats API v2."""
        asked = _read(request, _PAGED, metrics)
        asked.document.update(dimensions=[name], include=_include(asked, total_rows=True))
        asked.document["pagination"] = _pagination(request.query_params)
        if order := request.query_params.get("order"):
            column = order.removeprefix("-")
            column = name if column == "value" else full_name(column)
            asked.document["order_by"] = [[column, "desc" if order.startswith("-") else "asc"]]
        found = await self._reports.ask(request, asked.document)
        rows = _rows(found, asked, ("value",))
        return _answer(asked, found, rows, {"total_rows": found["meta"]["total_rows"]})


def _read(request: Request, known: tuple[str, ...], metrics: tuple[str, ...]) -> _Asked:
    """Return what the parameters say; raises InvalidInput for those that say nothing here."""
    given = request.query_params
    check_names(given, known)
    if "metrics" in given:
        metrics = tuple(given["metrics"].split(","))
    document = {
        "site_id": given.get("site_id"),
        "metrics": list(metrics),
        "date_range": date_range(given),
        "filters": read_compact(given.get("filters", "")),
        "include": comparison(given),
        "as_of": given.get("as_of"),
    }
    return _Asked(document, metrics, is_csv(given))


def comparison(given: QueryParams) -> dict[str, Any]:
    """Return what `compare` says, as `include` of Stats API v2."""
    compare = given.get("compare")
    if compare is None:
        return {}
    if compare in COMPARISONS:
        mode = "year_over_year" if compare == "previous_year" else compare
        return {"comparisons": {"mode": mode}}
    first, _, last = compare.partition("..")
    if not last:
        raise InvalidInput(
            f"compare {compare!r} is unknown.",
            field="compare",
            rule="previous_period, previous_year or <date>..<date>",
        )
    return {"comparisons": {"mode": "custom", "date_range": [first, last]}}


def _pagination(given: QueryParams) -> dict[str, int]:
    return {"limit": number(given, "limit", ROWS), "offset": number(given, "offset", 0)}


def _include(asked: _Asked, **more: bool) -> dict[str, Any]:
    return {**asked.document["include"], **more}


def _rows(found: Mapping[str, Any], asked: _Asked, columns: tuple[str, ...]) -> list[Row]:
    rows = []
    for result in found["results"]:
        row = dict(zip(columns, result["dimensions"], strict=True))
        row |= dict(zip(asked.metrics, result["metrics"], strict=True))
        if other := result.get("comparison"):
            row["compared"] = dict(zip(asked.metrics, other["metrics"], strict=True))
            row["change"] = dict(zip(asked.metrics, other["change"], strict=True))
        rows.append(row)
    return rows


def _answer(asked: _Asked, found: Mapping[str, Any], rows: list[Row], more: Row) -> Response:
    if asked.as_csv:
        return csv_response(rows)
    start, end = found["query"]["date_range"]
    warnings = found["meta"].get("metric_warnings")
    document = {"site_id": asked.document["site_id"], "from": start, "to": end, **more}
    if warnings:
        document["warnings"] = warnings
    return JSONResponse({**document, "rows": rows})


def csv_response(rows: list[Row]) -> Response:
    """Return rows as CSV (RFC 4180); what is within a row has dots in its column's name."""
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(flat)
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8")


def _flat(row: Row) -> Row:
    flat: Row = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": each for key, each in _flat(value).items()}
        else:
            flat[name] = _harmless(value)
    return flat


def _harmless(value: object) -> object:
    # A spreadsheet would run it as a formula: what visitors send must not.
    is_formula = isinstance(value, str) and value.startswith(tuple(FORMULA_STARTS))
    return f"'{value}" if is_formula else value
