"""Filters of Plausible's Stats API v2: what they keep, or what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

from mallard.errors import InvalidInput
from mallard.query.dimensions import Dimension
from mallard.query.filters import AllOf, AnyOf, Condition, Filter, HasDone, Not, Operator
from mallard.query.goals import conversions
from mallard.query.plausible import names, words
from mallard.site import Goal, Segment

FILTER_DEPTH_MAX = 16
FILTERS_MAX = 200
CLAUSES_MAX = 1_000
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


def read_filters(filters: object, context: Context) -> Filter | None:
    """Return what a list of filters keeps, those on goals included; raises InvalidInput."""
    keep, goals = FilterReader(context).read(filters)
    parts = [] if keep is None else [keep]
    if goals is not None:
        parts.append(AnyOf(tuple(conversions(goal) for goal in goals)))
    return AllOf(tuple(parts)) if parts else None


class FilterReader:
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
            _refuse_filter(value, "segments are filtered by is and is_not, and number or name")
        known: dict[object, Segment] = {}
        for segment in self._context.segments:
            known |= {segment.segment_id: segment, segment.name: segment}
        found: list[Filter] = []
        for each in ids:
            if not isinstance(each, int | str) or isinstance(each, bool) or each not in known:
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


def _refuse_filter(value: object, problem: str) -> NoReturn:
    shown = repr(value)
    shown = shown if len(shown) <= 200 else shown[:200] + "..."
    raise InvalidInput(
        f"Invalid filter {shown}: {problem}.",
        field="filters",
        rule='[operator, dimension, clauses], such as ["is", "visit:country", ["DE"]]',
    )
