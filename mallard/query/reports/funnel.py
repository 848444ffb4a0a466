"""Funnels: how many people took steps in their order, within a time.

Each step is an event after that of the step before, in the order of (timestamp, position); an event
is one step at most. With a window, the last step is at most so long after the first. Any event that
fits the first step may be that first one: of all chains to an event, the one that began last leaves
the most time, so its beginning is all there is to know of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import pyarrow as pa

from mallard.query.answers import Answers
from mallard.query.dimensions import By
from mallard.query.engine import Session
from mallard.query.filters import fits
from mallard.query.reports.chosen import DONE, ORDER, Choice, chosen, valued
from mallard.query.reports.daily import EVENTS, VISITS, added
from mallard.query.reports.given import made_once, of_choice
from mallard.query.reports.steps import Step
from mallard.query.sql import Sql

STEPS_MAX = 20


class Within(Enum):
    """Within what steps must lie; `sql` names it, `person` who is counted (of a date in `sql`)."""

    sql: Sql
    person: Sql

    VISIT = "visit", "date, visitor_id, visit", "visitor_id"
    # A visitor's UTC day: nobody without an id of their own is known for longer.
    VISITOR = "visitor", "date, visitor_id", "visitor_id"
    # Of events that tell one, across days.
    USER = "user", "user_id", "user_id"

    def __new__(cls, name: str, sql: str, person: str) -> Within:
        """Make a member whose value is its name."""
        member = object.__new__(cls)
        member._value_ = name
        member.sql, member.person = Sql(sql), Sql(person)
        return member

    @property
    def exists(self) -> Sql:
        """Whether an event is within one."""
        known = [each for each in self.sql.split(", ") if each != "date"]
        return Sql(" AND ".join(f"{name} IS NOT NULL" for name in known))


@dataclass(frozen=True, slots=True)
class FunnelQuestion:
    """What is asked. steps: at least two. window_us: from the first to the last; None is any time.

    by: a group for each of its values, that of the first event that fits the first step.
    """

    choice: Choice
    steps: tuple[Step, ...]
    within: Within = Within.VISIT
    window_us: int | None = None
    by: By | None = None
    limit: int = 100
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Funnel:
    """A group's numbers: for each step how many people took it and all before, in how many units.

    units: visits, visitors' days or users, whichever the steps are within.
    """

    value: str | None
    people: tuple[int, ...]
    units: tuple[int, ...]


@made_once(of_choice)
def funnel(session: Session, answers: Answers, question: FunnelQuestion) -> list[Funnel]:
    """Return the groups, those with most people at the first step first; without `by`, one."""
    count = len(question.steps)
    steps = range(count)
    numbers = [*(f"people_{n}" for n in steps), *(f"units_{n}" for n in steps)]
    if question.within is Within.USER:
        with chosen(session, answers, question.choice) as found:
            counted = _counted(question, found.events, found.visits, ("value",))
            rows = session.rows(_page(Sql(f"({counted})"), numbers, question))
    else:
        sums = added(
            session,
            answers,
            question.choice,
            _counted(question, EVENTS, VISITS, ("date", "value")),
            {"value": pa.string()},
            dict.fromkeys(numbers, pa.int64()),
        )
        rows = session.rows(_page(sums, numbers, question))
    groups = [Funnel(row[0], row[1 : count + 1], row[count + 1 :]) for row in rows]
    if question.by is None and not groups:
        groups = [Funnel(None, (0,) * count, (0,) * count)]
    return groups


def _page(groups: Sql, numbers: Sequence[str], question: FunnelQuestion) -> Sql:
    return Sql(f"""
        SELECT value, {", ".join(numbers)} FROM {groups}
        ORDER BY people_0 DESC, value NULLS LAST
        LIMIT {int(question.limit)} OFFSET {int(question.offset)}""")


def _counted(question: FunnelQuestion, events: Sql, visits: Sql, by: Sequence[str]) -> Sql:
    """Count people and units of each step in groups: the value's, or a date's and a value's."""
    within = question.within
    steps = range(len(question.steps))
    reached = [Sql("true"), *(f"reached_{n}" for n in steps[1:])]
    people = ", ".join(
        f"count(DISTINCT {within.person}) FILTER ({reached[n]}) AS people_{n}" for n in steps
    )
    units = ", ".join(f"count(*) FILTER ({reached[n]}) AS units_{n}" for n in steps)
    further = ", ".join(f"count(start_{n}) > 0 AS reached_{n}" for n in steps[1:])
    value = Sql("arg_min_null(value, key)" if question.by else "NULL::VARCHAR")
    # Most take the first step alone: only of the others the events need to be put in order.
    return Sql(f"""
        WITH acts AS MATERIALIZED ({_acts(question, events, visits)}),
        began AS MATERIALIZED (
            SELECT {within.sql}, {value} AS value FROM acts WHERE fits_0 GROUP BY {within.sql}
        ),
        went_on AS (
            SELECT DISTINCT {within.sql} FROM acts SEMI JOIN began USING ({within.sql})
            WHERE fits_1
        ),
        further AS (
            SELECT {within.sql}, {further} FROM ({_chains(question)}) GROUP BY {within.sql}
        )
        SELECT {", ".join(by)}, {people}, {units}
        FROM began LEFT JOIN further USING ({within.sql}) GROUP BY {", ".join(by)}""")


def _acts(question: FunnelQuestion, events: Sql, visits: Sql) -> Sql:
    """The events that are any step: their unit and time, their value, and fits_0, fits_1, ..."""
    any_step = " OR ".join(fits(step.keep) for step in question.steps)
    which = ", ".join(f"{fits(step.keep)} AS fits_{n}" for n, step in enumerate(question.steps))
    some = Sql(f"FROM ({events}) WHERE {DONE} AND {question.within.exists} AND ({any_step})")
    # First those that are any step, then what they are grouped by: a join of few.
    by = (question.by,) if question.by else ()
    value = question.by.column if question.by else Sql("NULL::VARCHAR")
    return Sql(f"""
        SELECT {question.within.sql}, epoch_us(timestamp) AS instant_us, {ORDER} AS key,
            {value} AS value, {which}
        FROM ({valued(some, visits, by)})""")


def _chains(question: FunnelQuestion) -> Sql:
    """Add start_n: when the latest chain of steps to n began that ends in the event."""
    unit = question.within.sql
    query = Sql(f"""
        SELECT *, CASE WHEN fits_0 THEN instant_us END AS start_0
        FROM acts SEMI JOIN went_on USING ({unit})""")
    for n in range(1, len(question.steps)):
        in_time = _in_time(question.window_us, n)
        query = Sql(f"""
            SELECT * EXCLUDE (latest), CASE WHEN fits_{n}{in_time} THEN latest END AS start_{n}
            FROM (
                SELECT *, max(start_{n - 1}) OVER (
                    PARTITION BY {unit} ORDER BY key
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                ) AS latest FROM ({query})
            )""")
    return query


def _in_time(window_us: int | None, n: int) -> Sql:
    return Sql("" if window_us is None else f" AND instant_us - latest <= {int(window_us)}")
