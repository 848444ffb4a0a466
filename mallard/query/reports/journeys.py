"""Journeys: where visits go from a page or event, where they came from, and their first steps.

A place is a page or an event, written as in `steps`: `page:/pricing`, `event:signup`; a page
without a path is `page`. Staying at a place, by loading it again, is no step.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.filters import Filter, fits
from mallard.query.goals import PAGEVIEW
from mallard.query.reports.chosen import DONE, ORDER, Choice
from mallard.query.reports.daily import EVENTS, added
from mallard.query.sql import Sql, literal

STEPS_MAX = 5
_VISIT = "date, visitor_id, visit"
_COUNTS = {"visits": pa.int64(), "visitors": pa.int64()}
_IN_VISIT = f"OVER (PARTITION BY {_VISIT} ORDER BY key)"


class Direction(StrEnum):
    """Which way from a place."""

    AFTER = "after"
    BEFORE = "before"


@dataclass(frozen=True, slots=True)
class FlowsQuestion:
    """What is asked. of: the events that are the place, whose first in each visit counts.

    limit: the most flows of each step.
    """

    choice: Choice
    of: Filter
    direction: Direction
    steps: int
    limit: int


@dataclass(frozen=True, slots=True)
class PathsQuestion:
    """What is asked: the first places of visits, at most so many steps of each."""

    choice: Choice
    steps: int
    limit: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Flow:
    """How many visits went between two places, so many steps from the one asked about.

    near: the place nearer to it; far: the next, or the one before; None where there is none, as the
    visit ends, or begins. of: how many visits have such a step at all.
    """

    step: int
    near: str
    far: str | None
    visits: int
    visitors: int
    of: int


@dataclass(frozen=True, slots=True)
class Path:
    """The first places of visits, and how many visits began so. of: all visits."""

    places: tuple[str, ...]
    visits: int
    visitors: int
    of: int


def flows(session: Session, answers: Answers, question: FlowsQuestion) -> list[Flow]:
    """Return the flows by step, those of most visits first."""
    sums = added(
        session,
        answers,
        question.choice,
        _flows(question),
        {"step": pa.int64(), "near": pa.string(), "far": pa.string()},
        _COUNTS,
    )
    # Most flows are of few visits, and need not be put in order.
    rows = session.rows(
        Sql(f"""
        WITH steps AS MATERIALIZED (
            SELECT step, sum(visits)::BIGINT AS of,
                list_last(max(visits, {int(question.limit)})) AS least
            FROM {sums} GROUP BY step
        )
        SELECT step, near, far, visits, visitors, of
        FROM {sums} JOIN steps USING (step) WHERE visits >= least
        QUALIFY row_number() OVER (
            PARTITION BY step ORDER BY visits DESC, near, far NULLS LAST
        ) <= {int(question.limit)}
        ORDER BY step, visits DESC, near, far NULLS LAST""")
    )
    return [Flow(*row) for row in rows]


def _flows(question: FlowsQuestion) -> Sql:
    ahead = question.direction is Direction.AFTER
    is_it = fits(question.of)
    return Sql(f"""
        SELECT date, abs(number - first) + 1 AS step, place AS near, far, count(*) AS visits,
            count(DISTINCT visitor_id) AS visitors
        FROM (
            SELECT *, min(number) FILTER (is_it) OVER (PARTITION BY {_VISIT}) AS first
            FROM (
                SELECT *, row_number() {_IN_VISIT} AS number,
                    {"lead" if ahead else "lag"}(place) {_IN_VISIT} AS far
                FROM ({_moves(_of_visits_with(is_it))})
            )
        )
        WHERE number {">=" if ahead else "<="} first AND step <= {int(question.steps)}
        GROUP BY date, step, near, far""")


def paths(session: Session, answers: Answers, question: PathsQuestion) -> list[Path]:
    """Return the most common paths that visits begin with."""
    # A column for each place, and visits summed up twice: lists of places, or sets of visitors,
    # would have to fit in memory all at once.
    names = [f"place_{n}" for n in range(question.steps)]
    columns = ", ".join(names)
    following = ", ".join(f"lead(place, {n}) {_IN_VISIT} AS place_{n}" for n in range(len(names)))
    counted = Sql(f"""
        SELECT date, {columns}, sum(visits)::BIGINT AS visits, count(*) AS visitors
        FROM (
            SELECT {columns}, date, count(*) AS visits
            FROM (
                SELECT date, visitor_id, row_number() {_IN_VISIT} AS number, {following}
                FROM ({_moves(_acts(Sql("false")))})
            ) WHERE number = 1 GROUP BY {columns}, date, visitor_id
        )
        GROUP BY date, {columns}""")
    by = dict.fromkeys(names, pa.string())
    sums = added(session, answers, question.choice, counted, by, _COUNTS)
    rows = session.rows(
        Sql(f"""
        SELECT {columns}, visits, visitors, (SELECT sum(visits)::BIGINT FROM {sums})
        FROM {sums}
        ORDER BY visits DESC, {", ".join(f"{name} NULLS FIRST" for name in names)}
        LIMIT {int(question.limit)} OFFSET {int(question.offset)}""")
    )
    return [
        Path(tuple(each for each in row[: len(names)] if each is not None), *row[len(names) :])
        for row in rows
    ]


def _moves(acts: Sql) -> Sql:
    """The places of each visit; one after the other is another."""
    return Sql(f"""
        FROM (
            SELECT *, lag(place) {_IN_VISIT} AS before
            FROM (
                SELECT * EXCLUDE (event_name, pathname),
                    CASE WHEN event_name <> {literal(PAGEVIEW)} THEN 'event:' || event_name
                        ELSE coalesce('page:' || pathname, 'page') END AS place
                FROM ({acts})
            )
        ) WHERE place IS DISTINCT FROM before""")


def _acts(is_it: Sql) -> Sql:
    return Sql(f"""
        SELECT timestamp::DATE AS date, visitor_id, visit, {ORDER} AS key, event_name, pathname,
            {is_it} AS is_it
        FROM ({EVENTS}) WHERE visit IS NOT NULL AND {DONE}""")


def _of_visits_with(is_it: Sql) -> Sql:
    """What happened in visits that have the place; nearly all have not, and are not sorted then."""
    return Sql(f"""
        WITH acts AS MATERIALIZED ({_acts(is_it)})
        FROM acts SEMI JOIN (SELECT DISTINCT {_VISIT} FROM acts WHERE is_it) USING ({_VISIT})""")
