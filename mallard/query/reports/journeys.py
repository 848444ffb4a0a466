"""Journeys: where visits go from a page or event, where they came from, and their first steps.

A place is a page or an event, written as in `steps`: `page:/pricing`, `event:signup`; a page
without a path is `page`. Staying at a place, by loading it again, is no step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.filters import Filter, fits
from mallard.query.goals import PAGEVIEW
from mallard.query.reports.chosen import DONE, ORDER, Choice
from mallard.query.reports.daily import EVENTS, added
from mallard.query.reports.given import made_once, of_choice
from mallard.query.sql import Sql, literal

STEPS_MAX = 5
# Of a large site a day has tens of thousands of paths, nearly all of one visit. So many of a day
# are kept for a time, which are the common ones.
PATHS_OF_DAY = 4_000
MEANT_MAX = 2_000  # paths that are looked for by name
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

    limit: the most flows of each step, after offset others. only: one step alone; None is all.
    """

    choice: Choice
    of: Filter
    direction: Direction
    steps: int
    limit: int
    offset: int = 0
    only: int | None = None


@dataclass(frozen=True, slots=True)
class PathsQuestion:
    """What is asked: the first places of visits, at most so many steps of each.

    is_whole: whether all of them are asked for, a page after the other.
    """

    choice: Choice
    steps: int
    limit: int
    offset: int = 0
    is_whole: bool = False


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


@made_once(of_choice)
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
    least = "0" if question.offset else f"list_last(max(visits, {int(question.limit)}))"
    only = "" if question.only is None else f" AND step = {int(question.only)}"
    rows = session.rows(
        Sql(f"""
        WITH steps AS MATERIALIZED (
            SELECT step, sum(visits)::BIGINT AS of, {least} AS least
            FROM {sums} GROUP BY step
        )
        SELECT step, near, far, visits, visitors, of
        FROM {sums} JOIN steps USING (step) WHERE visits >= least{only}
        QUALIFY row_number() OVER (
            PARTITION BY step ORDER BY visits DESC, near, far NULLS LAST
        ) BETWEEN {question.offset + 1} AND {question.offset + question.limit}
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


@made_once(of_choice)
def paths(
    session: Session, answers: Answers, question: PathsQuestion, most: int = PATHS_OF_DAY
) -> list[Path]:
    """Return the most common paths that visits begin with.

    most: so many of a day are looked at first, and all of them only where that does not tell.
    """
    columns = [f"place_{n}" for n in range(question.steps)]
    by = dict.fromkeys(columns, pa.string())
    every = _begun(columns)
    if question.is_whole:
        sums = added(session, answers, question.choice, every, by, _COUNTS)
        ((of,),) = session.rows(Sql(f"SELECT sum(visits)::BIGINT FROM {sums}"))
        return _page(session, question, sums, columns, of)
    common = _common(every, columns, most)
    numbers = {**_COUNTS, "hidden": pa.int64()}
    lessen = partial(_lessened, most=2 * most)
    sums = added(session, answers, question.choice, common, by, numbers, lessen)
    days = Sql(f"FROM {sums} WHERE place_0 IS NULL")
    ((of, hidden),) = session.rows(Sql(f"SELECT sum(visits)::BIGINT, sum(hidden)::BIGINT {days}"))
    if hidden:
        meant = _meant(session, sums, question, hidden)
        if meant is None:
            sums = added(session, answers, question.choice, every, by, _COUNTS)
        elif meant:
            some = _those(every, meant)
            sums = added(session, answers, question.choice, some, by, _COUNTS)
    return _page(session, question, sums, columns, of)


def _page(
    session: Session, question: PathsQuestion, sums: Sql, columns: Sequence[str], of: int
) -> list[Path]:
    rows = session.page(
        replace(question, limit=0, offset=0),
        lambda: Sql(
            f"SELECT {', '.join(columns)}, visits, visitors FROM {sums} WHERE place_0 IS NOT NULL"
        ),
        f"visits DESC, {', '.join(f'{name} NULLS FIRST' for name in columns)}",
        question.limit,
        question.offset,
    )
    return [
        Path(tuple(each for each in places if each is not None), visits, visitors, of)
        for *places, visits, visitors in rows
    ]


def _begun(columns: Sequence[str]) -> Sql:
    """The paths of each date, and how many visits begin so."""
    # A column for each place, and visits summed up twice: lists of places, or sets of visitors,
    # would have to fit in memory all at once.
    names = ", ".join(columns)
    following = ", ".join(
        f"lead(place, {n}) {_IN_VISIT} AS {name}" for n, name in enumerate(columns)
    )
    return Sql(f"""
        SELECT date, {names}, sum(visits)::BIGINT AS visits, count(*) AS visitors
        FROM (
            SELECT {names}, date, count(*) AS visits
            FROM (
                SELECT date, visitor_id, row_number() {_IN_VISIT} AS number, {following}
                FROM ({_moves(_acts(Sql("false")))})
            ) WHERE number = 1 GROUP BY {names}, date, visitor_id
        )
        GROUP BY date, {names}""")


def _common(every: Sql, columns: Sequence[str], most: int) -> Sql:
    """The most common paths of each date, at most so many, and without places all visits of it.

    hidden: the most visits that a path of the date may have that is not among them.
    """
    # Of most paths a large site has one visit a day.
    return Sql(f"""
        WITH every AS MATERIALIZED ({every}),
        days AS MATERIALIZED (
            SELECT date, sum(visits)::BIGINT AS visits,
                coalesce(max(visits, {int(most) + 1})[{int(most) + 1}], 0) AS hidden
            FROM every GROUP BY date
        )
        SELECT every.*, hidden FROM every JOIN days USING (date) WHERE every.visits > hidden
        UNION ALL BY NAME SELECT date, visits, 0 AS visitors, hidden FROM days""")


def _lessened(sums: pa.Table, most: int) -> pa.Table:
    """Return what `_common` says of some days without the paths that are not common in all."""
    is_path = pc.is_valid(sums["place_0"])
    visits = sums.select(["visits"]).filter(is_path)
    if len(visits) <= most:
        return sums
    first = pc.select_k_unstable(visits, most + 1, [("visits", "descending")])
    hidden = pc.min(visits["visits"].take(first))
    common = sums.filter(pc.or_(pc.invert(is_path), pc.greater(sums["visits"], hidden)))
    place = common.column_names.index("hidden")
    return common.set_column(place, "hidden", pc.add(common["hidden"], hidden))


def _meant(
    session: Session, sums: Sql, question: PathsQuestion, hidden: int
) -> list[tuple[str | None, ...]] | None:
    """Return the paths that may be asked for, if numbers of them are hidden; None: all may be.

    hidden: the most visits that a path may have that is common on no day.
    """
    columns = ", ".join(f"place_{n}" for n in range(question.steps))
    last = question.offset + question.limit
    known = f"FROM {sums} WHERE place_0 IS NOT NULL"
    ((count, least),) = session.rows(
        Sql(f"""
        SELECT count(*), min(visits) FROM (
            SELECT visits {known} ORDER BY visits DESC LIMIT {int(last)}
        )""")
    )
    if count < last or least <= hidden:
        return None
    # The numbers of a path are whole if it is common on each day with hidden ones.
    found = session.rows(
        Sql(f"""
        SELECT {columns}, hidden < {int(hidden)}
        {known} AND visits + {int(hidden)} - hidden >= {int(least)} LIMIT {MEANT_MAX + 1}""")
    )
    if len(found) > MEANT_MAX:
        return None
    return [row[:-1] for row in found] if any(row[-1] for row in found) else []


def _those(every: Sql, meant: Sequence[tuple[str | None, ...]]) -> Sql:
    """Some of the paths of each date. No place is an empty text."""
    columns = ", ".join(f"coalesce(place_{n}, '')" for n in range(len(meant[0])))
    listed = ", ".join(
        f"({', '.join(literal(place or '') for place in path)})" for path in sorted(meant, key=str)
    )
    return Sql(f"FROM ({every}) WHERE ({columns}) IN ({listed})")


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
