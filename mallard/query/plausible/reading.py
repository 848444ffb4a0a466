"""What a query of Plausible's Stats API v2 asks, or what is wrong with it.

Source: plausible.io/docs/stats-api. What Plausible refuses and we can answer is answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn

from mallard.errors import InvalidInput
from mallard.query.dimensions import By
from mallard.query.filters import Filter
from mallard.query.period import Interval, Period, micros
from mallard.query.plausible import names, ranges
from mallard.query.plausible.filtering import Context, FilterReader
from mallard.query.plausible.ranges import fitting_interval, read_range
from mallard.site import Goal

KEYS = (
    *("site_id", "metrics", "date_range", "dimensions", "filters", "order_by", "include"),
    *("pagination", "as_of"),
)
LIMIT_MAX = 10_000
IN_FLIGHT = timedelta(seconds=1)
DIMENSIONS_MAX = 8
INCLUDE = ("imports", "time_labels", "total_rows", "comparisons", "trim_relative_date_range")


@dataclass(frozen=True, slots=True)
class Query:
    """A query that can be answered. interval: of its time dimension; None without one.

    keep: its filters but for those on goals, which are in `goals`: the conversions of one of
    them, or None where no filter asks for any. of: the filters whose visitors conversions are
    rates of, which are `keep` without those on properties. filters, order_by, include: as sent.
    every_interval: by time alone, a row for each interval, those without events too.
    """

    site_id: str
    metrics: tuple[str, ...]
    dimensions: tuple[str, ...]
    period: Period
    interval: Interval | None
    keep: Filter | None
    of: Filter | None
    goals: tuple[Goal, ...] | None
    filters: list[Any]
    order_by: tuple[tuple[str, bool], ...]
    include: Mapping[str, Any]
    compared: Period | None
    limit: int
    offset: int
    as_of_us: int | None = None
    every_interval: bool = False

    @property
    def by(self) -> tuple[By, ...]:
        """Its dimensions but for goals and times."""
        found = [names.dimension(name) for name in self.dimensions]
        return tuple(dict.fromkeys(each for each in found if each is not None))


def read_query(document: object, context: Context) -> Query:
    """Return the query that a JSON document asks; raises InvalidInput, which names the mistake."""
    if not isinstance(document, dict):
        raise InvalidInput("The query is no JSON object.", rule="an object with " + ", ".join(KEYS))
    for key in document:
        if key not in KEYS:
            _refuse(str(key), "is nothing that a query has", "one of " + ", ".join(KEYS))
    for key in KEYS[:3]:
        if key not in document:
            _refuse(key, "is missing", "a query has " + ", ".join(KEYS[:3]))
    metrics = _metrics(document["metrics"])
    dimensions = _dimensions(document.get("dimensions", []))
    include = _include(document.get("include", {}), dimensions)
    period = read_range(document["date_range"], context.zone, context.now, context.first_day)
    if include.get("trim_relative_date_range") and isinstance(document["date_range"], str):
        period = _trimmed(period, context.now)
    reader = FilterReader(context)
    keep, goals = reader.read(document.get("filters", []))
    _check_needs(metrics, dimensions, reader)
    limit, offset = _pagination(document.get("pagination", {}))
    return Query(
        _text(document, "site_id"),
        metrics,
        dimensions,
        period,
        _interval(dimensions, period),
        keep,
        reader.of,
        goals,
        document.get("filters", []),
        _order(document.get("order_by"), metrics, dimensions),
        include,
        read_compared(include, period, context),
        limit,
        offset,
        read_as_of(document.get("as_of"), context.now),
    )


def _metrics(value: object) -> tuple[str, ...]:
    rule = "a list of some of " + ", ".join(names.METRICS)
    if not isinstance(value, list) or not value:
        _refuse("metrics", "is no list of metrics", rule)
    for each in value:
        if not isinstance(each, str) or each not in names.METRICS:
            _refuse("metrics", f"has an unknown metric, {each!r}", rule)
    if len(set(value)) != len(value):
        _refuse("metrics", "has a metric twice", "each metric once")
    return tuple(value)


def _dimensions(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > DIMENSIONS_MAX:
        _refuse("dimensions", "is no list of dimensions", f"a list of at most {DIMENSIONS_MAX}")
    for each in value:
        known = isinstance(each, str) and (each in names.TIMES or each == names.GOAL)
        if not known and (not isinstance(each, str) or names.dimension(each) is None):
            listed = ", ".join([*names.DIMENSIONS, names.GOAL, "event:props:<key>", *names.TIMES])
            _refuse("dimensions", f"has an unknown dimension, {each!r}", f"some of {listed}")
    if len(set(value)) != len(value):
        _refuse("dimensions", "has a dimension twice", "each dimension once")
    if sum(each in names.TIMES for each in value) > 1:
        _refuse("dimensions", "has two times", "one time dimension")
    return tuple(value)


def _check_needs(
    metrics: tuple[str, ...], dimensions: tuple[str, ...], filters: FilterReader
) -> None:
    asked = {*dimensions, *filters.dimensions}
    for metric in metrics:
        if metric == "percentage" and not dimensions:
            _refuse("metrics", "has 'percentage' without dimensions", "with dimensions")
        if metric in names.OF_A_GOAL and names.GOAL not in asked:
            _refuse("metrics", f"has {metric!r} without goals", f"with {names.GOAL}")
        if metric in names.OF_A_PAGE and "event:page" not in asked:
            _refuse("metrics", f"has {metric!r} without pages", "with event:page")


def _include(value: object, dimensions: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse("include", "is no object", "an object with some of " + ", ".join(INCLUDE))
    for key, wanted in value.items():
        if key not in INCLUDE:
            _refuse("include", f"has an unknown key, {key!r}", "some of " + ", ".join(INCLUDE))
        if key != "comparisons" and not isinstance(wanted, bool):
            _refuse("include", f"has no true or false for {key!r}", "true or false")
    if value.get("time_labels") and not any(each in names.TIMES for each in dimensions):
        _refuse("include", "asks for time_labels without times", "with a time dimension")
    return value


def _pagination(value: object) -> tuple[int, int]:
    rule = f"an object with limit, from 1 to {LIMIT_MAX}, and offset, from 0"
    if not isinstance(value, dict) or set(value) - {"limit", "offset"}:
        _refuse("pagination", "is no limit and offset", rule)
    limit, offset = value.get("limit", LIMIT_MAX), value.get("offset", 0)
    for number, least, most in ((limit, 1, LIMIT_MAX), (offset, 0, 2**53)):
        if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
            _refuse("pagination", "has a number that is none, or too large", rule)
    return limit, offset


def _order(
    value: object, metrics: tuple[str, ...], dimensions: tuple[str, ...]
) -> tuple[tuple[str, bool], ...]:
    if value is None:
        times = [(each, False) for each in dimensions if each in names.TIMES]
        return (*times, (metrics[0], True))
    rule = 'a list of pairs such as ["visitors", "desc"], of metrics and dimensions of the query'
    if not isinstance(value, list):
        _refuse("order_by", "is no list", rule)
    found = []
    for each in value:
        is_pair = isinstance(each, list) and len(each) == 2 and each[1] in ("asc", "desc")
        if not is_pair or each[0] not in (*metrics, *dimensions):
            _refuse("order_by", f"has {each!r}", rule)
        found.append((each[0], each[1] == "desc"))
    return tuple(found)


def _interval(dimensions: tuple[str, ...], period: Period) -> Interval | None:
    for each in dimensions:
        if each in names.TIMES:
            return names.TIMES[each] or fitting_interval(period)
    return None


def read_compared(include: Mapping[str, Any], period: Period, context: Context) -> Period | None:
    """Return the period that `include` asks to compare with; None for none."""
    value = include.get("comparisons")
    if value is None:
        return None
    rule = '{"mode": "previous_period" or "year_over_year"}, or "custom" with a "date_range"'
    mode = value.get("mode") if isinstance(value, dict) else None
    if mode == "previous_period":
        return ranges.before(period)
    if mode == "year_over_year":
        return ranges.a_year_before(period)
    if mode == "custom":
        return read_range(value.get("date_range"), context.zone, context.now, context.first_day)
    _refuse("include", "has comparisons of an unknown mode", rule)


def read_as_of(value: object, now: datetime) -> int | None:
    """Return the instant that `as_of` names, in microseconds; raises InvalidInput."""
    if value is None:
        return None
    try:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        instant = None
    # What is being written just now has a time already, and is not there yet.
    if instant is None or instant.tzinfo is None or instant > now - IN_FLIGHT:
        _refuse("as_of", "is no time that is over", "an ISO 8601 time with an offset, in the past")
    return micros(instant)


def _trimmed(period: Period, now: datetime) -> Period:
    today = now.astimezone(period.zone).date()
    if not period.first_day <= today < period.last_day:
        return period
    return Period.of_days(period.first_day, today, period.zone)


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document[key]
    if not isinstance(value, str) or not value:
        _refuse(key, "is no text", "the name of a site")
    return value


def _refuse(field: str, problem: str, rule: str) -> NoReturn:
    raise InvalidInput(f"{field} {problem}.", field=field, rule=rule)
