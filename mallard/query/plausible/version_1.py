"""Plausible's Stats API v1, said again in the words of v2: parameters in, rows out.

Source: plausible.io/docs/stats-api-v1. Every period is relative to `date`, which is today where
nobody says another day, and is part of it: `7d` are the seven days that end with `date`, `6mo` its
month and the five before. What v1 refuses and v2 answers is answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from mallard.errors import InvalidInput
from mallard.query.goals import page_expression
from mallard.query.plausible import names, ranges
from mallard.query.plausible.compact import condition, conditions, plain

Json = dict[str, Any]

AGGREGATE = ("site_id", "period", "date", "metrics", "filters", "compare", "with_imported")
TIMESERIES = ("site_id", "period", "date", "metrics", "filters", "interval", "with_imported")
BREAKDOWN = (
    *("site_id", "period", "date", "metrics", "filters", "property"),
    *("limit", "page", "with_imported"),
)
PERIODS = ("day", "7d", "30d", "month", "6mo", "12mo", "custom")
INTERVALS = ("hour", "day", "week", "month")
LIMIT, LIMIT_MAX = 100, 1_000
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_OF_DATES = "a date such as 2021-01-31; with period=custom two of them, with a comma between"
_MONTHS = {"6mo": 6, "12mo": 12}
_DAYS = {"day": 1, "7d": 7, "30d": 30}


def aggregate(given: Mapping[str, str], today: date) -> Json:
    """Return the query of v2 for one row of numbers; today: in the site's time zone."""
    document = _asked(given, today)
    if "compare" in given:
        if given["compare"] != "previous_period":
            raise InvalidInput(
                f"compare {given['compare'][:200]!r} is unknown.",
                field="compare",
                rule="previous_period",
            )
        document["include"] = {"comparisons": {"mode": "previous_period"}}
    return document


def timeseries(given: Mapping[str, str], today: date) -> Json:
    """Return the query of v2 for a row for each interval."""
    return {**_asked(given, today), "dimensions": [f"time:{_interval(given)}"]}


def breakdown(given: Mapping[str, str], today: date, limit: int, page: int) -> Json:
    """Return the query of v2 for a row for each value of a property. page: from 1."""
    name = given.get("property")
    if not name or (name != names.GOAL and names.dimension(name) is None):
        known = ", ".join([*names.DIMENSIONS, names.GOAL, "event:props:<key>"])
        raise InvalidInput(
            f"property {name[:200]!r} is unknown." if name else "property is missing.",
            field="property",
            rule=f"one of {known}",
        )
    return {
        **_asked(given, today),
        "dimensions": [name],
        "pagination": {"limit": limit, "offset": (page - 1) * limit},
    }


def aggregated(document: Json, found: Json) -> Json:
    """Return the numbers of v2's answer to `aggregate`'s document, by metric."""
    (row,) = found["results"]
    numbers = {
        name: {"value": value}
        for name, value in zip(document["metrics"], row["metrics"], strict=True)
    }
    if "comparison" in row:
        for name, change in zip(document["metrics"], row["comparison"]["change"], strict=True):
            numbers[name]["change"] = change
    return numbers


def series(document: Json, found: Json) -> list[Json]:
    """Return the rows of v2's answer to `timeseries`'s document."""
    return [
        {
            "date": row["dimensions"][0],
            **dict(zip(document["metrics"], row["metrics"], strict=True)),
        }
        for row in found["results"]
    ]


def broken_down(document: Json, found: Json) -> list[Json]:
    """Return the rows of v2's answer, the property under its short name: `page`, `plan`."""
    (name,) = document["dimensions"]
    short = name.removeprefix(names.PROPERTY_PREFIX)
    short = short if short != name else name.partition(":")[2]
    return [
        {short: row["dimensions"][0], **dict(zip(document["metrics"], row["metrics"], strict=True))}
        for row in found["results"]
    ]


def read_filters(text: str) -> list[Any]:
    """Return filters as v2 has them; `*` in a value stands for anything."""
    return [_read(each) for each in conditions(text)]


def _read(text: str) -> list[Any]:
    name, operator, values = condition(text)
    is_wild = any("*" in value for value in values)
    if name == names.GOAL or operator not in {"is", "is_not"} or not is_wild:
        return [operator, name, [plain(value) for value in values]]
    expressions = [page_expression(re.sub(r"\*+", "**", plain(value))) for value in values]
    return [operator.replace("is", "matches"), name, expressions]


def _asked(given: Mapping[str, str], today: date) -> Json:
    if given.get("with_imported", "false") not in {"true", "false"}:
        raise InvalidInput("with_imported is neither.", field="with_imported", rule="true or false")
    metrics = [each.strip() for each in given.get("metrics", "visitors").split(",")]
    return {
        "site_id": given.get("site_id"),
        "metrics": metrics,
        "date_range": [day.isoformat() for day in _days(given, today)],
        "filters": read_filters(given.get("filters", "")),
    }


def _days(given: Mapping[str, str], today: date) -> tuple[date, date]:
    """Return the first day and the last."""
    period = given.get("period", "30d")
    if period not in PERIODS:
        raise InvalidInput(
            f"period {period[:200]!r} is unknown.",
            field="period",
            rule="one of " + ", ".join(PERIODS),
        )
    if period == "custom":
        return _pair(given.get("date", ""))
    day = _date(given["date"]) if given.get("date", "today") != "today" else today
    if period in _DAYS:
        return day - timedelta(days=_DAYS[period] - 1), day
    first = ranges.months_before(day.replace(day=1), _MONTHS.get(period, 1) - 1)
    return first, ranges.month_end(day)


def _pair(text: str) -> tuple[date, date]:
    first, comma, last = text.partition(",")
    if not comma:
        raise InvalidInput("date is no pair of dates.", field="date", rule=_OF_DATES)
    days = _date(first.strip()), _date(last.strip())
    if days[0] > days[1]:
        raise InvalidInput("date ends before it starts.", field="date", rule=_OF_DATES)
    return days


def _date(text: str) -> date:
    try:
        if _DATE.fullmatch(text):
            return _within_reach(date.fromisoformat(text))
    except ValueError:
        pass
    raise InvalidInput(f"date {text[:200]!r} is no date.", field="date", rule=_OF_DATES)


def _within_reach(day: date) -> date:
    # What is counted from it, a year at most, has to be a date that a period can have.
    if not 1971 <= day.year <= 9998:
        raise ValueError
    return day


def _interval(given: Mapping[str, str]) -> str:
    period = given.get("period", "30d")
    interval = given.get("interval")
    if interval is None:
        return "hour" if period == "day" else "month" if period in _MONTHS else "day"
    if interval == "date":  # what it was called at first
        return "day"
    if interval not in INTERVALS:
        raise InvalidInput(
            f"interval {interval[:200]!r} is unknown.",
            field="interval",
            rule="one of " + ", ".join(INTERVALS),
        )
    return interval
