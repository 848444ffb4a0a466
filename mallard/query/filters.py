"""What to keep: conditions on events and on their visits, put together with and, or and not.

A condition on an event dimension is about each event. One on a visit dimension is about the visit,
and so about all of its events; an event without a visit answers it by its own columns. `HasDone`
holds for all events of a visit in which one event fits. Nothing is ever unknown: where a value is
missing a comparison is false, and its negation true.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Union

import duckdb

from mallard.errors import InvalidInput
from mallard.query.dimensions import By
from mallard.query.engine import Session
from mallard.query.metrics import WITHOUT_VISIT
from mallard.query.sql import Params, Sql, literal

# Of one site.
_VISIT_KEY = "date, visitor_id, visit"


class Operator(StrEnum):
    """How a value is compared with those of a condition, any of which may fit.

    matches takes RE2 expressions, found anywhere in the value.
    """

    IS = "is"
    CONTAINS = "contains"
    MATCHES = "matches"


@dataclass(frozen=True, slots=True)
class Condition:
    """One dimension compared with values; None among them fits what has no value."""

    by: By
    operator: Operator
    values: tuple[str | None, ...]
    case_sensitive: bool = True

    def sql(self, value: Sql) -> Sql:
        """Whether a value fits, true or false."""
        texts = [each for each in self.values if each is not None]
        unknown = [f"{value} IS NULL"] if None in self.values else []
        told = [literal(each) for each in texts]
        if not self.case_sensitive and self.operator is not Operator.MATCHES:
            # Both by the database: Python and it do not agree on what is small for each letter.
            value, told = Sql(f"lower({value})"), [Sql(f"lower({each})") for each in told]
        if self.operator is Operator.IS:
            fits = [f"{value} IN ({', '.join(told)})"] if told else []
        elif self.operator is Operator.CONTAINS:
            fits = [f"contains({value}, {each})" for each in told]
        else:
            options = "" if self.case_sensitive else ", 'i'"
            fits = [f"regexp_matches({value}, {each}{options})" for each in told]
        return Sql(f"coalesce({' OR '.join([*unknown, *fits]) or 'false'}, false)")


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds; without parts it always does."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


@dataclass(frozen=True, slots=True)
class HasDone:
    """The visit has an event that the part holds for."""

    part: Filter


Filter = Union[Condition, AllOf, AnyOf, Not, HasDone]  # noqa: UP007 - its members name it


def kept(events: Sql, visits: Sql, keep: Filter | None) -> Sql:
    """Return a query for the events that a filter holds for, with all their columns.

    events: of one site, annotated with `visit`; read several times. visits: at least those of the
    events.
    """
    if keep is None:
        return Sql(f"FROM ({events})")
    about_visits = list(dict.fromkeys(_about_visits(keep)))
    if not about_visits:
        return Sql(f"FROM ({events}) WHERE {_sql(keep, _of_event)}")
    number = {each: index for index, each in enumerate(about_visits)}
    answers = {index: _sql(each, _of_visit) for each, index in number.items() if is_of_visits(each)}
    # Of visits that fit nothing no row is needed: it would say as much as none.
    told = f""" LEFT JOIN (
            SELECT {", ".join([_VISIT_KEY, *(f"{sql} AS fits_{n}" for n, sql in answers.items())])}
            FROM ({visits}) WHERE {" OR ".join(answers.values())}
        ) USING ({_VISIT_KEY})"""
    done = "".join(
        f""" LEFT JOIN (
            SELECT DISTINCT timestamp::DATE AS date, visitor_id, visit, true AS fits_{index}
            FROM ({kept(events, visits, each.part)}) WHERE visit IS NOT NULL
        ) AS done_{index} USING ({_VISIT_KEY})"""
        for each, index in number.items()
        if isinstance(each, HasDone)
    )
    fits = ", ".join(f"fits_{index}" for index in number.values())

    def answered(part: Filter) -> Sql:
        if part not in number:
            return _of_event(part)
        own = _sql(part, _of_loose)
        return Sql(
            f"CASE WHEN visit IS NULL THEN {own} ELSE coalesce(fits_{number[part]}, false) END"
        )

    return Sql(f"""
        SELECT * EXCLUDE (date, {fits})
        FROM (SELECT *, timestamp::DATE AS date FROM ({events})){told if answers else ""}{done}
        WHERE {_sql(keep, answered, number)}""")


def kept_visits(visits: Sql, keep: Filter | None) -> Sql:
    """Return a query for the visits that a filter of visits alone holds for."""
    return Sql(f"FROM ({visits}) WHERE {_sql(keep or AllOf(()), _of_visit)}")


def kept_loose(events: Sql, keep: Filter | None) -> Sql:
    """Return a query for those events that belong to no visit and that a filter holds for."""
    return Sql(f"FROM ({events}) WHERE visit IS NULL AND {_sql(keep or AllOf(()), _of_loose)}")


def is_of_visits(keep: Filter | None) -> bool:
    """Whether a visit's own columns say if a filter holds for it, and so for all of its events."""
    if keep is None:
        return True
    if isinstance(keep, Condition):
        return keep.by.scope == "visit"
    if isinstance(keep, HasDone):
        return False
    if isinstance(keep, Not):
        return is_of_visits(keep.part)
    return all(is_of_visits(part) for part in keep.parts)


def fits(keep: Filter) -> Sql:
    """Return whether an event fits a filter that asks of events alone: true or false."""
    assert not any(_about_visits(keep)), "what asks of visits needs them; see `kept`"
    return _sql(keep, _of_event)


def check_expressions(session: Session, keep: Filter | None) -> None:
    """Raise InvalidInput for an expression in a filter that RE2 cannot read."""
    for condition in _conditions(keep) if keep else ():
        if condition.operator is Operator.MATCHES:
            for value in condition.values:
                p = Params()
                try:
                    session.rows(Sql(f"SELECT regexp_matches('', {p(value)})"), p)
                except duckdb.InvalidInputException as error:
                    raise InvalidInput(
                        f"{value!r} is no regular expression ({error}).",
                        field="filters",
                        rule="an expression of RE2's syntax",
                    ) from error


def _conditions(keep: Filter) -> Iterator[Condition]:
    if isinstance(keep, Condition):
        yield keep
    elif isinstance(keep, Not | HasDone):
        yield from _conditions(keep.part)
    else:
        for part in keep.parts:
            yield from _conditions(part)


def _about_visits(keep: Filter) -> Iterator[Filter]:
    """Find what a visit, rather than an event, answers: the largest parts of which it can."""
    if isinstance(keep, HasDone):
        yield keep
    elif is_of_visits(keep):
        if any(_conditions(keep)):
            yield keep
    elif isinstance(keep, Not):
        yield from _about_visits(keep.part)
    elif isinstance(keep, AllOf | AnyOf):
        for part in keep.parts:
            yield from _about_visits(part)


def _sql(keep: Filter, leaf: Callable[[Filter], Sql], leaves: Collection[Filter] = ()) -> Sql:
    """leaves: what is asked of leaf as a whole, beside conditions and HasDone."""
    if isinstance(keep, Condition | HasDone) or keep in leaves:
        return leaf(keep)
    if isinstance(keep, Not):
        return Sql(f"NOT {_sql(keep.part, leaf, leaves)}")
    word, nothing = (" AND ", "true") if isinstance(keep, AllOf) else (" OR ", "false")
    return Sql(f"({word.join(_sql(part, leaf, leaves) for part in keep.parts) or nothing})")


def _of_event(part: Filter) -> Sql:
    assert isinstance(part, Condition)
    missing = part.by in WITHOUT_VISIT
    return part.sql(Sql("NULL::VARCHAR") if missing else part.by.filtered)


def _of_loose(part: Filter) -> Sql:
    return Sql("false") if isinstance(part, HasDone) else _of_event(part)


def _of_visit(part: Filter) -> Sql:
    assert isinstance(part, Condition)
    return part.sql(part.by.filtered)
