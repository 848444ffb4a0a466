"""Funnels: how many people took steps in their order, within a time.

Each step is an event after that of the step before, in the order of (timestamp, position); an event
is one step at most. With a window, the last step is at most so long after the first. Any event that
fits the first step may be that first one: of all chains to an event, the one that began last leaves
the most time, so its beginning is all there is to know of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mallard.query.answers import Answers
from mallard.query.dimensions import By
from mallard.query.engine import Session
from mallard.query.filters import fits
from mallard.query.reports.chosen import DONE, ORDER, Choice, chosen, valued
from mallard.query.reports.steps import Step
from mallard.query.sql import Sql

STEPS_MAX = 20


class Within(Enum):
    """Within what steps must lie; `sql` names it, `person` who is counted."""

    sql: Sql
    person: Sql

    VISIT = "visit", "date, visitor_id, visit", "(date, visitor_id)"
    # A visitor's UTC day: nobody without an id of their own is known for longer.
    VISITOR = "visitor", "date, visitor_id", "(date, visitor_id)"
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
    """What is asked. window_us: from the first step to the last; None is any time.

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


def funnel(session: Session, answers: Answers, question: FunnelQuestion) -> list[Funnel]:
    """Return the groups, those with most people at the first step first; without `by`, one."""
    count = len(question.steps)
    with chosen(session, answers, question.choice) as found:
        by = (question.by,) if question.by else ()
        # First those that are any step, then what they are grouped by: a join of few.
        events = valued(_steps(found.events, question), found.visits, by)
        rows = session.rows(_statement(events, question))
    groups = [Funnel(row[0], row[1 : count + 1], row[count + 1 :]) for row in rows]
    if question.by is None and not groups:
        groups = [Funnel(None, (0,) * count, (0,) * count)]
    return groups


def _statement(events: Sql, question: FunnelQuestion) -> Sql:
    within = question.within
    steps = range(len(question.steps))
    reached = ", ".join(f"count(start_{n}) > 0 AS reached_{n}" for n in steps)
    people = ", ".join(
        f"count(DISTINCT {within.person}) FILTER (reached_{n}) AS people_{n}" for n in steps
    )
    units = ", ".join(f"count(*) FILTER (reached_{n}) AS units_{n}" for n in steps)
    return Sql(f"""
        SELECT value, {people}, {units}
        FROM (
            SELECT {within.sql}, arg_min_null(value, key) FILTER (fits_0) AS value, {reached}
            FROM ({_chains(_told(events, question), question)})
            GROUP BY {within.sql} HAVING reached_0
        )
        GROUP BY value ORDER BY people_0 DESC, value NULLS LAST
        LIMIT {int(question.limit)} OFFSET {int(question.offset)}""")


def _steps(events: Sql, question: FunnelQuestion) -> Sql:
    """The events that are any step, within what has a first step: the rest is not sorted then."""
    within = question.within
    any_step = " OR ".join(fits(step.keep) for step in question.steps)
    acts = f"SELECT *, timestamp::DATE AS date FROM ({events}) WHERE {DONE} AND {within.exists}"
    return Sql(f"""
        SELECT * EXCLUDE (date) FROM ({acts} AND ({any_step})) SEMI JOIN (
            SELECT DISTINCT {within.sql} FROM ({acts} AND {fits(question.steps[0].keep)})
        ) USING ({within.sql})""")


def _told(events: Sql, question: FunnelQuestion) -> Sql:
    """What is to know of each event: its unit and time, its value, and fits_0, fits_1, ..."""
    which = ", ".join(f"{fits(step.keep)} AS fits_{n}" for n, step in enumerate(question.steps))
    value = question.by.column if question.by else Sql("NULL::VARCHAR")
    return Sql(f"""
        SELECT {question.within.sql}, epoch_us(timestamp) AS instant_us, {ORDER} AS key,
            {value} AS value, {which}
        FROM ({events})""")


def _chains(told: Sql, question: FunnelQuestion) -> Sql:
    """Add start_n: when the latest chain of steps to n began that ends in the event."""
    query = Sql(f"SELECT *, CASE WHEN fits_0 THEN instant_us END AS start_0 FROM ({told})")
    for n in range(1, len(question.steps)):
        in_time = _in_time(question.window_us, n)
        query = Sql(f"""
            SELECT * EXCLUDE (latest), CASE WHEN fits_{n}{in_time} THEN latest END AS start_{n}
            FROM (
                SELECT *, max(start_{n - 1}) OVER (
                    PARTITION BY {question.within.sql} ORDER BY key
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                ) AS latest FROM ({query})
            )""")
    return query


def _in_time(window_us: int | None, n: int) -> Sql:
    return Sql("" if window_us is None else f" AND instant_us - latest <= {int(window_us)}")
