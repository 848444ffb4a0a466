"""Reports that are queries of `/api/v2/query` in other words, and whose rows are objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mallard.errors import InvalidInput
from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.named.asking import PAGES, SHARED, Asked, Asking, Found, Page
from mallard.query.named.columns import Column, Kind, Row, columns, within
from mallard.query.named.parameters import comparison
from mallard.query.period import Interval
from mallard.query.plausible import names
from mallard.query.plausible.answering import answer
from mallard.query.plausible.compact import full_name, read_compact
from mallard.query.plausible.reading import LIMIT_MAX, Query, read_query

SUMMARY = (
    *("visitors", "visits", "pageviews", "events"),
    *("views_per_visit", "bounce_rate", "visit_duration"),
)
SERIES = ("visitors", "visits", "pageviews", "events")
BREAKDOWN = ("visitors", "visits", "pageviews", "bounce_rate", "visit_duration")
OF_PAGES = ("visitors", "pageviews", "bounce_rate", "time_on_page", "scroll_depth", "exit_rate")
GOALS = ("visitors", "events", "conversion_rate", "total_revenue")
INTERVALS = tuple(name.partition(":")[2] for name in names.TIMES if ":" in name)

OF_SUMMARY = (*SHARED, "metrics", "compare")
OF_SERIES = (*OF_SUMMARY, "interval")
LISTED = (*OF_SUMMARY, *PAGES, "order")

# Whole percents, seconds and counts.
_WHOLE = (*names.COUNTS, "bounce_rate", "visit_duration", "scroll_depth", "time_on_page")
_MONEY = (Column("value", Kind.AMOUNT), *columns(Kind.TEXT, "currency", "short", "long"))


def summary(asking: Asking) -> Asked:
    """The numbers of a period."""
    return _asked(asking, SUMMARY, {}, ())


def timeseries(asking: Asking) -> Asked:
    """A row for each interval of a period, those without events too."""
    interval = asking.given.get("interval")
    if interval is not None and interval not in INTERVALS:
        raise InvalidInput(
            f"interval {interval[:200]!r} is unknown.",
            field="interval",
            rule="one of " + ", ".join(INTERVALS),
        )
    time = "time" if interval is None else f"time:{interval}"
    return _asked(asking, SERIES, {"dimensions": [time]}, ("time",))


def breakdown(asking: Asking) -> Asked:
    """A row for each value of a dimension."""
    name = full_name(asking.argument)
    return _listed(asking, name, OF_PAGES if name == "event:page" else BREAKDOWN)


def goals(asking: Asking) -> Asked:
    """The conversions of each of the site's goals."""
    return _listed(asking, names.GOAL, GOALS)


def prop(asking: Asking) -> Asked:
    """A row for each value of a property."""
    return _listed(asking, names.PROPERTY_PREFIX + asking.argument, BREAKDOWN)


def _listed(asking: Asking, name: str, metrics: tuple[str, ...]) -> Asked:
    document: dict[str, Any] = {"dimensions": [name], "include": {"total_rows": True}}
    if order := asking.given.get("order"):
        column = order.removeprefix("-")
        column = name if column == "value" else full_name(column)
        document["order_by"] = [[column, "desc" if order.startswith("-") else "asc"]]
    return replace(
        _asked(asking, metrics, document, ("value",)), page=asking.page(), pages=LIMIT_MAX
    )


def _asked(
    asking: Asking, metrics: tuple[str, ...], more: dict[str, Any], keys: tuple[str, ...]
) -> Asked:
    """Return a report. metrics: where no others are asked for. more: of the query's document."""
    given = asking.given
    if "metrics" in given:
        metrics = tuple(given["metrics"].split(","))
    document = {
        "site_id": asking.site.site_id,
        "metrics": list(metrics),
        "date_range": asking.date_range,
        "filters": read_compact(given.get("filters", "")),
        "as_of": given.get("as_of"),
        **more,
        "include": {**comparison(given), **more.get("include", {})},
    }
    query = replace(read_query(document, asking.context), every_interval=keys == ("time",))

    def answered(session: Session, answers: Answers, page: Page) -> Found:
        asked = replace(query, limit=page.limit, offset=page.offset)
        found = answer(session, answers, asked, asking.context.goals)
        rows = [_row(query, keys, result) for result in found["results"]]
        return Found(rows, _head(found["meta"]), len(rows))

    return Asked(query.period, _columns(query, keys), answered)


def _columns(query: Query, keys: tuple[str, ...]) -> tuple[Column, ...]:
    kind = Kind.TEXT
    if query.interval is not None:
        kind = Kind.INSTANT if query.interval is Interval.HOUR else Kind.DAY
    numbers = [column for metric in query.metrics for column in _of_metric(metric)]
    found = (*columns(kind, *keys), *numbers)
    if query.compared is None:
        return found
    changes = columns(Kind.NUMBER, *query.metrics)
    return (*found, *within("compared", numbers), *within("change", changes))


def _of_metric(name: str) -> tuple[Column, ...]:
    if name in names.REVENUE:
        return within(name, _MONEY)
    return columns(Kind.WHOLE if name in _WHOLE else Kind.NUMBER, name)


def _row(query: Query, keys: tuple[str, ...], result: Mapping[str, Any]) -> Row:
    row = dict(zip(keys, result["dimensions"], strict=True))
    row |= dict(zip(query.metrics, result["metrics"], strict=True))
    if other := result.get("comparison"):
        row["compared"] = dict(zip(query.metrics, other["metrics"], strict=True))
        row["change"] = dict(zip(query.metrics, other["change"], strict=True))
    return row


def _head(meta: Mapping[str, Any]) -> Row:
    head = {"total_rows": meta["total_rows"]} if "total_rows" in meta else {}
    warnings = meta.get("metric_warnings")
    return head | ({"warnings": warnings} if warnings else {})
