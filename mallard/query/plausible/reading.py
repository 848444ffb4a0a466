"""What a query of Plausible's Stats API v2 asks, or what is wrong with it.

Source: plausible.io/docs/stats-api. What Plausible refuses and we can answer is answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

from mallard.errors import InvalidInput
from mallard.query.dimensions import By, Dimension
from mallard.query.filters import AllOf, AnyOf, Condition, Filter, HasDone, Not, Operator
from mallard.query.goals import conversions
from mallard.query.period import Interval, Period, micros
from mallard.query.plausible import names, ranges, words
from mallard.query.plausible.ranges import fitting_interval, read_range
from mallard.site import Goal, Segment

KEYS = (
    *("site_id", "metrics", "date_range", "dimensions", "filters", "order_by", "include"),
    *("pagination", "as_of"),
)
LIMIT_MAX = 10_000
IN_FLIGHT = timedelta(seconds=1)
FILTER_DEPTH_MAX = 16
FILTERS_MAX = 200
CLAUSES_MAX = 1_000
DIMENSIONS_MAX = 8
INCLUDE = ("imports", "time_labels", "total_rows", "comparisons", "trim_relative_date_range")
OPERATORS = {
    "is": (Operator.IS, False),
    "is_not": (Operator.IS, True),
    "contains": (Operator.CONTAINS, False),
    "contains_not": (Operator.CONTAINS, True),
    "does_not_contain": (Operator.CONTAINS, True),
    "matches": (Operator.MATCHES, False),
    "matches_not": (Operator.MATCHES, True),
}


@dataclass(frozen=True, slots=True)
class Context:
    """What a query is read against. first_day: of the site's first event; None without any."""

    zone: ZoneInfo
    now: datetime
    first_day: date | None = None
    goals: tuple[Goal, ...] = ()
    segments: tuple[Segment, ...] = ()

    def goal(self, name: str) -> Goal | None:
        """Return the goal of a display name."""
        return next((goal for goal in self.goals if goal.display_name == name), None)


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
    reader = _FilterReader(context)
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


def read_filters(filters: object, context: Context) -> Filter | None:
    """Return what a list of filters keeps, those on goals included; raises InvalidInput."""
    keep, goals = _FilterReader(context).read(filters)
    parts = [] if keep is None else [keep]
    if goals is not None:
        parts.append(AnyOf(tuple(conversions(goal) for goal in goals)))
    return AllOf(tuple(parts)) if parts else None


class _FilterReader:
    """Reads one list of filters, and notes which dimensions are in it.

    of: once it is read, what it keeps but for filters at the top on goals and on properties.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._count = 0
        self.dimensions: set[str] = set()
        self.of: Filter | None = None

    def read(self, filters: object) -> tuple[Filter | None, tuple[Goal, ...] | None]:
        """Return what to keep, and the goals that filters at the top ask the conversions of."""
        if not isinstance(filters, list):
            _refuse_filter(filters, "filters are a list")
        kept: list[Filter] = []
        of: list[Filter] = []
        goals: tuple[Goal, ...] | None = None
        for each in filters:
            if isinstance(each, list) and each[:2] == ["is", names.GOAL] and goals is None:
                goals = self._goals(each, contains=False)
            elif isinstance(each, list) and each[:2] == ["contains", names.GOAL] and goals is None:
                goals = self._goals(each, contains=True)
            else:
                kept.append(self._filter(each, 0))
                if not _is_on_a_property(each):
                    of.append(kept[-1])
        self.of = AllOf(tuple(of)) if of else None
        return (AllOf(tuple(kept)) if kept else None), goals

    def _filter(self, value: object, depth: int) -> Filter:
        self._count += 1
        if depth > FILTER_DEPTH_MAX or self._count > FILTERS_MAX:
            _refuse_filter("...", "filters are too deep or too many")
        if not isinstance(value, list) or not value or not isinstance(value[0], str):
            _refuse_filter(value, "a filter is a list that begins with an operator")
        operator = value[0]
        if operator in {"and", "or"}:
            parts = value[1] if len(value) == 2 else None
            if not isinstance(parts, list) or not parts:
                _refuse_filter(value, f"{operator!r} takes one list of filters")
            found = tuple(self._filter(part, depth + 1) for part in parts)
            return AllOf(found) if operator == "and" else AnyOf(found)
        if operator in {"not", "has_done", "has_not_done"}:
            if len(value) != 2:
                _refuse_filter(value, f"{operator!r} takes one filter")
            part = self._filter(value[1], depth + 1)
            if operator == "not":
                return Not(part)
            return HasDone(part) if operator == "has_done" else Not(HasDone(part))
        if operator not in OPERATORS:
            _refuse_filter(value, f"there is no operator {operator!r}")
        return self._simple(value, depth)

    def _simple(self, value: list[Any], depth: int) -> Filter:
        if not 3 <= len(value) <= 4 or not isinstance(value[1], str):
            _refuse_filter(value, "a filter is [operator, dimension, clauses]")
        operator, negated = OPERATORS[value[0]]
        name = value[1]
        if name == names.SEGMENT:
            found = self._segments(value, depth)
            return Not(found) if negated else found
        if name == names.GOAL:
            goals = self._goals(value, contains=operator is Operator.CONTAINS)
            done: Filter = AnyOf(tuple(conversions(goal) for goal in goals))
            return Not(done) if negated else done
        by = names.dimension(name)
        if by is None:
            why = "date_range says when" if name in names.TIMES else "there is no such dimension"
            _refuse_filter(value, f"{name!r} cannot be filtered by: {why}")
        self.dimensions.add(name)
        clauses = self._clauses(value)
        # Plausible keeps "" where a value is missing, and shows a word of its own.
        known = tuple(None if each in ("", names.missing(by)) else each for each in clauses)
        texts = known if operator is Operator.IS else clauses
        condition = Condition(by, operator, texts, self._is_case_sensitive(value))
        if name == names.COUNTRY_NAME:
            condition = _of_country(condition)
        return Not(condition) if negated else condition

    def _clauses(self, value: list[Any]) -> tuple[str, ...]:
        clauses = value[2]
        if not isinstance(clauses, list) or not 0 < len(clauses) <= CLAUSES_MAX:
            _refuse_filter(value, f"clauses are a list of 1 to {CLAUSES_MAX} texts")
        for each in clauses:
            if not isinstance(each, str) or "\0" in each:
                _refuse_filter(value, "a clause is a text without NUL")
        return tuple(clauses)

    def _is_case_sensitive(self, value: list[Any]) -> bool:
        if len(value) == 3:
            return True
        options = value[3]
        wanted = options.get("case_sensitive", True) if isinstance(options, dict) else None
        if not isinstance(wanted, bool) or set(options) - {"case_sensitive"}:
            _refuse_filter(value, 'the only modifier is {"case_sensitive": true or false}')
        return wanted

    def _goals(self, value: list[Any], *, contains: bool) -> tuple[Goal, ...]:
        if value[0] not in {"is", "is_not", "contains", "contains_not"} or len(value) < 3:
            _refuse_filter(value, "goals are filtered by is, contains and their negations")
        self.dimensions.add(names.GOAL)
        clauses = self._clauses(value)
        fold = str if self._is_case_sensitive(value) else str.lower
        known = {fold(goal.display_name): goal for goal in self._context.goals}
        if contains:
            wanted = [fold(each) for each in clauses]
            return tuple(
                goal for name, goal in known.items() if any(each in name for each in wanted)
            )
        for each in clauses:
            if fold(each) not in known:
                listed = ", ".join(repr(goal.display_name) for goal in self._context.goals)
                _refuse_filter(value, f"the site has no goal {each!r}; it has {listed or 'none'}")
        return tuple(known[fold(each)] for each in dict.fromkeys(clauses))

    def _segments(self, value: list[Any], depth: int) -> Filter:
        ids = value[2]
        if value[0] not in {"is", "is_not"} or not isinstance(ids, list) or not ids:
            _refuse_filter(value, "segments are filtered by is and is_not, and their numbers")
        known = {segment.segment_id: segment for segment in self._context.segments}
        found: list[Filter] = []
        for each in ids:
            if not isinstance(each, int) or isinstance(each, bool) or each not in known:
                _refuse_filter(value, f"the site has no segment {each!r}")
            parts = [self._filter(part, depth + 1) for part in known[each].filters]
            found.append(AllOf(tuple(parts)))
        return AnyOf(tuple(found))


def _is_on_a_property(value: list[Any]) -> bool:
    return isinstance(value[1], str) and value[1].startswith(names.PROPERTY_PREFIX)


def _of_country(named: Condition) -> Condition:
    """Return a condition on names of countries as one on their codes, which are what is stored."""
    texts = [each for each in named.values if each is not None]
    if named.operator is Operator.MATCHES:
        found = words.countries_that_match(texts, case_sensitive=named.case_sensitive)
    else:
        whole = named.operator is Operator.IS
        found = words.countries_named(texts, whole=whole, case_sensitive=named.case_sensitive)
    unknown = (None,) if None in named.values else ()
    return Condition(Dimension.COUNTRY, Operator.IS, (*unknown, *found))


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
    metrics: tuple[str, ...], dimensions: tuple[str, ...], filters: _FilterReader
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


def _refuse_filter(value: object, problem: str) -> NoReturn:
    shown = repr(value)
    shown = shown if len(shown) <= 200 else shown[:200] + "..."
    raise InvalidInput(
        f"Invalid filter {shown}: {problem}.",
        field="filters",
        rule='[operator, dimension, clauses], such as ["is", "visit:country", ["DE"]]',
    )
