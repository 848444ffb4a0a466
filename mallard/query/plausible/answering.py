"""Answers queries of Plausible's Stats API v2 in its own form."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mallard.query.answers import Answers
from mallard.query.dimensions import By
from mallard.query.engine import Session
from mallard.query.filters import AllOf, AnyOf, Filter, check_expressions
from mallard.query.goals import conversions
from mallard.query.period import Bucket, Interval, Period, micros
from mallard.query.plausible import names, words
from mallard.query.plausible.reading import Query
from mallard.query.reports.table import Goal, Group, Metric, Money, Question, Row, Table, ask

_SEVERAL_CURRENCIES = {
    "code": "no_single_revenue_currency",
    "warning": "Revenue metrics are null as money came in several currencies.",
}
_NO_REVENUE = {
    "code": "no_revenue_goals_matching",
    "warning": "Revenue metrics are null as no event brought money.",
}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Totals:
    """Numbers of visitors that rates are of: of all, without goals, and of each group without."""

    all: int
    without_goals: int
    of_groups: dict[tuple[Bucket | None, tuple[str | None, ...]], int]


def answer(session: Session, answers: Answers, query: Query, goals: tuple[Any, ...]) -> Json:
    """Return the answer's document. goals: all of the site's, for `event:goal` as a dimension."""
    check_expressions(session, query.keep)
    table, totals = _asked(session, answers, query, goals)
    meta: Json = {}
    rows = [_Rendered(query, row, totals, meta) for row in table.rows]
    _forgive(query, rows, meta)
    if _sql_order(query) is None:
        rows = _sorted(rows, query)[query.offset : query.offset + query.limit]
    if query.every_interval:
        rows = _every_interval(query, rows, table.buckets, totals)
    if query.compared is not None:
        _compare(session, answers, query, goals, rows, table.buckets)
    if query.include.get("time_labels"):
        meta["time_labels"] = [_label(bucket, query) for bucket in table.buckets]
    if query.include.get("total_rows"):
        meta["total_rows"] = table.total_rows
        if query.offset and not table.rows:
            start = dataclasses.replace(query, offset=0, limit=1)
            meta["total_rows"] = _asked(session, answers, start, goals)[0].total_rows
    if query.include.get("imports"):
        meta |= {"imports_included": False, "imports_skip_reason": "no_imported_data"}
    return {"results": [row.document for row in rows], "meta": meta, "query": _echo(query)}


def _asked(
    session: Session,
    answers: Answers,
    query: Query,
    goals: tuple[Any, ...],
    groups: tuple[Group, ...] | None = None,
) -> tuple[Table, _Totals]:
    """Ask what the query asks, and what its rates are of; in order where the database can.

    groups: of these alone, in any order.
    """
    plain = Question(
        query.site_id, query.period, (Metric.VISITORS,), query.by, query.interval, query.keep
    )
    plain = dataclasses.replace(plain, as_of_us=query.as_of_us)
    asked = dataclasses.replace(plain, metrics=_metrics(query))
    order = _sql_order(query)
    if groups is not None:
        asked = dataclasses.replace(asked, groups=groups)
    elif order is not None and not query.every_interval:
        asked = dataclasses.replace(asked, order=order, limit=query.limit, offset=query.offset)
    if names.GOAL in query.dimensions:
        shown = goals if query.goals is None else query.goals
        asked = dataclasses.replace(
            asked, goals=tuple(Goal(each.display_name, conversions(each)) for each in shown)
        )
        table = ask(session, answers, asked) if asked.goals else Table([], 0, [])
    else:
        asked = dataclasses.replace(asked, keep=_with_goals(query))
        table = ask(session, answers, asked)
    found = _Totals(0, 0, {})
    if "percentage" in query.metrics:
        only = dataclasses.replace(plain, by=(), interval=None, keep=_with_goals(query))
        found = dataclasses.replace(found, all=_visitors(ask(session, answers, only)))
    of = dataclasses.replace(plain, keep=query.of)
    if "conversion_rate" in query.metrics:
        only = dataclasses.replace(of, by=(), interval=None)
        found = dataclasses.replace(found, without_goals=_visitors(ask(session, answers, only)))
    if "group_conversion_rate" in query.metrics:
        place = {bucket: number for number, bucket in enumerate(table.buckets)}
        pairs = {(place[row.bucket] if row.bucket else 0, None, row.values) for row in table.rows}
        theirs = ask(session, answers, dataclasses.replace(of, groups=tuple(pairs))).rows
        found = dataclasses.replace(
            found, of_groups={(row.bucket, row.values): row.metrics[0] for row in theirs}
        )
    if not query.dimensions and not table.rows and not query.offset:
        nothing = tuple(_of_nothing(metric) for metric in asked.metrics)
        table = Table([Row(None, None, (), nothing)], 1, table.buckets)
    return table, found


def _every_interval(
    query: Query, rows: list[_Rendered], cut: list[Bucket], totals: _Totals
) -> list[_Rendered]:
    found = {row.row.bucket: row for row in rows}
    nothing = tuple(_of_nothing(metric) for metric in _metrics(query))
    return [
        found.get(bucket) or _Rendered(query, Row(bucket, None, (), nothing), totals, {})
        for bucket in cut
    ]


def _with_goals(query: Query) -> Filter | None:
    if query.goals is None:
        return query.keep
    done = AnyOf(tuple(conversions(goal) for goal in query.goals))
    return done if query.keep is None else AllOf((query.keep, done))


def _metrics(query: Query) -> tuple[Metric, ...]:
    found = [names.METRICS[name] or Metric.VISITORS for name in query.metrics]
    return tuple(dict.fromkeys(found))


def _visitors(table: Table) -> int:
    return int(table.rows[0].metrics[0]) if table.rows else 0


def _of_nothing(metric: Metric) -> Any:
    """Counts of nothing are 0; means and rates of nothing do not exist."""
    counts = {Metric.VISITORS, Metric.VISITS, Metric.PAGEVIEWS, Metric.EVENTS}
    if metric is Metric.REVENUE:
        return ()
    return 0 if metric in counts else None


class _Rendered:
    """One row in the form of the answer, with what it is sorted by."""

    def __init__(self, query: Query, row: Row, totals: _Totals, meta: Json) -> None:
        self.row = row
        found = dict(zip(_metrics(query), row.metrics, strict=True))
        self.metrics = [_number(name, found, row, totals, meta) for name in query.metrics]
        self.dimensions = _values(query, row)
        self.document: Json = {"dimensions": self.dimensions, "metrics": self.metrics}

    def key(self, query: Query, name: str) -> tuple[bool, Any]:
        """Return what the row is sorted by for a column; what is missing compares as least."""
        if name in query.metrics:
            value = self.metrics[query.metrics.index(name)]
            value = value["value"] if isinstance(value, dict) else value
            return value is not None, 0 if value is None else value
        if name in names.TIMES:
            assert self.row.bucket is not None
            return True, micros(self.row.bucket.start)
        return True, self.dimensions[query.dimensions.index(name)]


def _sql_order(query: Query) -> tuple[tuple[str, bool], ...] | None:
    """Return what the database orders by; None where it cannot.

    Then all rows come, to be ordered here: by a rate of each group's own visitors, and by what is
    shown in other words than it is stored.
    """
    order = []
    for name, descending in query.order_by:
        if name in ("group_conversion_rate", names.COUNTRY_NAME):
            return None
        if name in names.TIMES:
            order.append(("time", descending))
        elif name == names.GOAL:
            order.append(("goal", descending))
        elif name in names.REVENUE:
            order.append((name, descending))
        elif name in query.metrics:
            # Rates of one number are in the order of what they are rates of.
            metric = names.METRICS[name] or Metric.VISITORS
            order.append((metric.value, descending))
        else:
            by = names.dimension(name)
            assert by is not None
            order.append((str(by.value), descending))
    return tuple(order)


def _sorted(rows: list[_Rendered], query: Query) -> list[_Rendered]:
    ordered = sorted(rows, key=lambda row: [row.key(query, name)[1] for name in query.dimensions])
    for name, descending in reversed(query.order_by):
        # A number that does not exist comes last, whichever way.
        ordered.sort(key=lambda row: row.key(query, name)[1], reverse=descending)
        ordered.sort(key=lambda row: not row.key(query, name)[0])
    return ordered


def _number(name: str, found: dict[Metric, Any], row: Row, totals: _Totals, meta: Json) -> Any:
    if name == "percentage":
        return _percent(found[Metric.VISITORS], totals.all, 1)
    if name == "conversion_rate":
        return _percent(found[Metric.VISITORS], totals.without_goals, 2)
    if name == "group_conversion_rate":
        return _percent(
            found[Metric.VISITORS], totals.of_groups.get((row.bucket, row.values), 0), 2
        )
    metric = names.METRICS[name]
    assert metric is not None
    if metric is not Metric.REVENUE:
        return found[metric]
    money: tuple[Money, ...] = found[metric]
    if len(money) != 1:
        warnings = meta.setdefault("metric_warnings", {})
        warnings[name] = _SEVERAL_CURRENCIES if money else warnings.get(name, _NO_REVENUE)
        return None
    (only,) = money
    return words.money(
        only.currency, only.amount / (only.events if name == "average_revenue" else 1)
    )


def _forgive(query: Query, rows: list[_Rendered], meta: Json) -> None:
    """Drop the warning that nothing brought money where it was only some of the rows."""
    warnings = meta.get("metric_warnings", {})
    for place, name in enumerate(query.metrics):
        if warnings.get(name) is _NO_REVENUE and any(row.metrics[place] for row in rows):
            del warnings[name]
    if not warnings:
        meta.pop("metric_warnings", None)


def _percent(part: int, whole: int, digits: int) -> float | None:
    return round(100 * part / whole, digits) if whole else None


def _values(query: Query, row: Row) -> list[str | None]:
    values = dict(zip(query.by, row.values, strict=True))
    shown: list[str | None] = []
    for name in query.dimensions:
        if name == names.GOAL:
            shown.append(row.goal)
        elif name in names.TIMES:
            assert row.bucket is not None
            shown.append(_label(row.bucket, query))
        else:
            by = names.dimension(name)
            assert by is not None
            shown.append(_value(name, by, values[by]))
    return shown


def _value(name: str, by: By, value: str | None) -> str:
    if value is not None and name == names.COUNTRY_NAME:
        return words.country(value)
    return names.shown(by, value)


def _label(bucket: Bucket, query: Query) -> str:
    if query.interval is Interval.HOUR:
        local = bucket.label.astimezone(query.period.zone)
        label = local.isoformat(" ", "seconds")
        # Where a day has an hour twice, its second time says which it is.
        return label if local.fold else label[:19]
    day = bucket.label.date()
    if query.interval is Interval.WEEK:
        day = max(day, query.period.first_day)
    return day.isoformat()


def _compare(
    session: Session,
    answers: Answers,
    query: Query,
    goals: tuple[Any, ...],
    rows: list[_Rendered],
    cut: list[Bucket],
) -> None:
    """Put beside each result what the same group had in the period it is compared with."""
    assert query.compared is not None
    other = dataclasses.replace(query, period=query.compared, compared=None)
    place = _places(cut)
    numbers = [place[row.row.bucket] or 0 for row in rows]
    shown = tuple((n, row.row.goal, row.row.values) for n, row in zip(numbers, rows, strict=True))
    table, totals = _asked(session, answers, other, goals, shown)
    place = _places(table.buckets)
    theirs = {
        (place[row.bucket], row.goal, row.values): _Rendered(other, row, totals, {})
        for row in table.rows
    }
    place = _places(cut)
    for row in rows:
        number = place[row.row.bucket]
        found = theirs.get((number, row.row.goal, row.row.values))
        before = found.metrics if found else [_nothing(name) for name in query.metrics]
        told = zip(query.metrics, before, row.metrics, strict=True)
        row.document["comparison"] = {
            "dimensions": _compared(other, row.row, number, table.buckets),
            "metrics": before,
            "change": [_change(*each) for each in told],
        }


def _compared(other: Query, row: Row, number: int | None, cut: list[Bucket]) -> list[str | None]:
    """Return a row's dimensions in the period it is compared with; null for a time it lacks."""
    if number is None:
        return _values(other, row)
    if number < len(cut):
        return _values(other, dataclasses.replace(row, bucket=cut[number]))
    shown = _values(other, row)
    return [
        None if name in names.TIMES else value
        for name, value in zip(other.dimensions, shown, strict=True)
    ]


def _places(cut: list[Bucket]) -> dict[Bucket | None, int | None]:
    places: dict[Bucket | None, int | None] = {None: None}
    places.update((bucket, number) for number, bucket in enumerate(cut))
    return places


def _nothing(name: str) -> int | None:
    return 0 if name in names.COUNTS else None


def _change(name: str, old: Any, new: Any) -> float | None:
    """Return the change in whole percent of the old number; of a percentage itself in points."""
    old, new = (each["value"] if isinstance(each, dict) else each for each in (old, new))
    if old is None or new is None:
        return None
    if name in names.IN_POINTS:
        points: float = round(new - old, 2)
        return points
    return round(100 * (new - old) / old) if old else (100 if new else 0)


def _echo(query: Query) -> Json:
    return {
        "site_id": query.site_id,
        "metrics": list(query.metrics),
        "date_range": _iso(query.period),
        "filters": query.filters,
        "dimensions": list(query.dimensions),
        "order_by": [
            [name, "desc" if descending else "asc"] for name, descending in query.order_by
        ],
        "include": dict(query.include),
        "pagination": {"offset": query.offset, "limit": query.limit},
    }


def _iso(period: Period) -> list[str]:
    last = period.end.astimezone(UTC) - timedelta(seconds=1)
    return [_at(period.start, period), _at(last, period)]


def _at(instant: datetime, period: Period) -> str:
    return instant.astimezone(period.zone).isoformat(timespec="seconds")
