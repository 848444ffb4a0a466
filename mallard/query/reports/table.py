"""A table of metrics by dimensions and time: what breakdowns, series and summaries are.

A metric is made of sums, so it is exact for any range, filter and dimensions. One we do not have is
null, never 0. Money is a list, a currency each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

import pyarrow as pa

from mallard.errors import InvalidInput, QueryTooLarge
from mallard.query.answers import Answers
from mallard.query.dimensions import By, Dimension
from mallard.query.engine import Session
from mallard.query.filters import AllOf, Filter
from mallard.query.metrics import Level, Ratio
from mallard.query.period import Bucket, Interval, Period, buckets, slices
from mallard.query.reports.given import made_once
from mallard.query.sql import Sql, literal
from mallard.query.sums import Grouping


class Metric(Enum):
    """A number of a group, by its name in the API; `sql` makes it of sums up to a level."""

    sql: Sql
    level: Level

    VISITORS = "visitors", "visitors"
    VISITS = "visits", "visits"
    PAGEVIEWS = "pageviews", "pageviews"
    EVENTS = "events", "events"
    ENTRIES = "entries", "entries", Level.VISITS
    EXITS = "exits", "exits", Level.VISITS
    VIEWS_PER_VISIT = "views_per_visit", f"round({Ratio.VIEWS_PER_VISIT.sql}, 2)", Level.VISITS
    # Percent of visits.
    BOUNCE_RATE = "bounce_rate", f"round(100 * {Ratio.BOUNCE_RATE.sql})::BIGINT", Level.VISITS
    # Percent of the visits that entered at the group's page.
    ENTRY_BOUNCE_RATE = (
        "entry_bounce_rate",
        f"round(100 * {Ratio.ENTRY_BOUNCE_RATE.sql})::BIGINT",
        Level.VISITS,
    )
    # Whole seconds.
    VISIT_DURATION = (
        "visit_duration",
        f"round({Ratio.VISIT_DURATION_MS.sql} / 1000)::BIGINT",
        Level.VISITS,
    )
    TIME_ON_PAGE = (
        "time_on_page",
        f"round({Ratio.TIME_ON_PAGE_MS.sql} / 1000)::BIGINT",
        Level.ENGAGEMENT,
    )
    # Percent.
    SCROLL_DEPTH = "scroll_depth", f"round({Ratio.SCROLL_DEPTH.sql})::BIGINT", Level.ENGAGEMENT
    EXIT_RATE = "exit_rate", f"round(100 * {Ratio.EXIT_RATE.sql}, 1)", Level.VISITS
    # A `Money` for each currency.
    REVENUE = "revenue", "money"

    def __new__(cls, name: str, sql: str, level: Level = Level.COUNTS) -> Metric:
        """Make a member whose value is its name."""
        member = object.__new__(cls)
        member._value_ = name
        member.sql = Sql(sql)
        member.level = level
        return member


@dataclass(frozen=True, slots=True)
class Money:
    """What came in, in one currency; events: how many brought it."""

    currency: str
    amount: Decimal
    events: int


@dataclass(frozen=True, slots=True)
class Goal:
    """A named filter whose events are conversions."""

    name: str
    keep: Filter


# The number of its bucket, its goal, and the value of each dimension.
Group = tuple[int, str | None, tuple[str | None, ...]]
# Rows without a limit: each takes a kilobyte of Python's memory until it is answered.
ROWS_MAX = 20_000
# What Metric.REVENUE comes to, of one currency; of none and of several there is no such number.
AMOUNTS = {
    "total_revenue": Sql("money[1].amount"),
    "average_revenue": Sql("money[1].amount / money[1].events"),
}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    by: dimensions, the groups of the table. interval: also a row for each interval of the period.
    goals: a group for each goal, of its conversions; its name is a column `goal`. order: (column,
    descending), where a column is a metric's name or one of AMOUNTS, a dimension's `value` (of a
    compound one its last part counts), "time" or "goal"; at the end always by time and the
    dimensions, so that pages of rows fit together. limit: None for all rows, which are refused if
    there are more than ROWS_MAX. groups: of these alone there are rows. as_of_us: an instant, to
    count what was stored then; None for now.
    """

    site_id: str
    period: Period
    metrics: tuple[Metric, ...]
    by: tuple[By, ...] = ()
    interval: Interval | None = None
    keep: Filter | None = None
    goals: tuple[Goal, ...] = ()
    order: tuple[tuple[str, bool], ...] = ()
    limit: int | None = None
    offset: int = 0
    groups: tuple[Group, ...] | None = None
    as_of_us: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One group: its bucket, its goal, the value of each dimension, and each metric's number."""

    bucket: Bucket | None
    goal: str | None
    values: tuple[str | None, ...]
    metrics: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """The rows asked for, how many there are in all, and every bucket of the period."""

    rows: list[Row]
    total_rows: int
    buckets: list[Bucket]


@made_once(lambda question: question)
def ask(session: Session, answers: Answers, question: Question) -> Table:
    """Answer a question; groups without events have no row.

    Raises InvalidInput for an order by what is not asked for, and QueryTooLarge.
    """
    cut = buckets(question.period, question.interval)
    pieces = slices(cut)
    level = max((each.level for each in question.metrics), default=Level.COUNTS)
    found: list[list[tuple[str | None, pa.Table | Sql]]] = [[], []]
    for goal in question.goals or (None,):
        keep = question.keep if goal is None else _both(question.keep, goal.keep)
        for money in (False, True) if Metric.REVENUE in question.metrics else (False,):
            grouping = Grouping(
                question.site_id, question.by, keep, question.as_of_us, money, level
            )
            sums = answers.sums(session, grouping, pieces)
            found[money].append((goal.name if goal else None, sums))
    return _rows(session, question, [of_goals(session, some) for some in found if some], cut)


def of_goals(session: Session, found: Sequence[tuple[str | None, pa.Table | Sql]]) -> Sql:
    """Return a query for sums, as answers have them, with their goal's name in a column `goal`."""
    tables: list[pa.Table] = []
    queries: list[str] = []
    for goal, sums in found:
        if isinstance(sums, pa.Table):
            name = pa.repeat(pa.scalar(goal, pa.string()), sums.num_rows)
            tables.append(sums.append_column("goal", name))
        else:
            name = "NULL::VARCHAR" if goal is None else literal(goal)
            queries.append(f"SELECT *, {name} AS goal FROM {sums}")
    if tables:
        queries.append(f"FROM {session.take(pa.concat_tables(tables))}")
    return Sql(" UNION ALL BY NAME ".join(queries))


def _both(keep: Filter | None, goal: Filter) -> Filter:
    return goal if keep is None else AllOf((keep, goal))


def _rows(session: Session, question: Question, found: Sequence[Sql], cut: list[Bucket]) -> Table:
    """found: sums, and those of money if they are asked for."""
    keys = ["bucket", "goal", *(str(each.column) for each in question.by)]
    chosen = ", ".join(f"{each.sql} AS metric_{n}" for n, each in enumerate(question.metrics))
    limit = ROWS_MAX + 1 if question.limit is None else int(question.limit)
    paid = "".join(_paid(keys, money) for money in found[1:])
    sums = Sql(f"FROM ({found[0]}) own {_among(session, question, keys)} WHERE currency IS NULL")
    read = session.rows(
        Sql(f"""
        SELECT {", ".join(f"sums.{key}" for key in keys)}, {chosen},
            (SELECT count(*) {sums}) AS total_rows
        FROM ({sums}) sums {paid}
        ORDER BY {_order(question, keys)} LIMIT {limit} OFFSET {int(question.offset)}""")
    )
    if question.limit is None and len(read) > ROWS_MAX:
        raise QueryTooLarge(
            f"The answer has {read[0][-1]:,} groups; to be put in this order they may be at most "
            f"{ROWS_MAX:,}. Order by a number of visitors, visits, pageviews or events, or ask for "
            "less of time, or for fewer dimensions."
        )
    rows = [
        Row(
            cut[row[0]] if question.interval else None,
            row[1],
            row[2 : len(keys)],
            tuple(
                _money(value) if metric is Metric.REVENUE else value
                for metric, value in zip(question.metrics, row[len(keys) :], strict=False)
            ),
        )
        for row in read
    ]
    return Table(rows, read[0][-1] if read else 0, cut if question.interval else [])


def _among(session: Session, question: Question, keys: Sequence[str]) -> Sql:
    """Return what keeps of sums, which are called `own`, those of the groups asked for."""
    if question.groups is None:
        return Sql("")
    rows = [(bucket, goal, *values) for bucket, goal, values in question.groups]
    columns = list(zip(*rows, strict=True)) or [()] * len(keys)
    kinds = [pa.int32(), *[pa.string()] * (len(keys) - 1)]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    same = " AND ".join(f"own.{key} IS NOT DISTINCT FROM wanted.{key}" for key in keys)
    return Sql(f"SEMI JOIN {session.take(pa.table(arrays, list(keys)))} wanted ON {same}")


def _paid(keys: Sequence[str], sums: Sql) -> Sql:
    """Return what joins to each row of sums its `money`, in order of currency."""
    same = " AND ".join(f"sums.{key} IS NOT DISTINCT FROM paid.{key}" for key in keys)
    return Sql(f"""
        LEFT JOIN (
            SELECT {", ".join(keys)}, list(
                {{'currency': currency, 'amount': revenue_amount, 'events': revenue_events}}
                ORDER BY currency
            ) AS money
            FROM ({sums}) WHERE currency IS NOT NULL GROUP BY ALL
        ) paid ON {same}""")


def _order(question: Question, keys: list[str]) -> str:
    """Return what rows are ordered by, always to the last key; raise InvalidInput."""
    names = {each.value: f"metric_{n}" for n, each in enumerate(question.metrics)}
    names |= {each.value: _shown(each) for each in question.by}
    if Metric.REVENUE in question.metrics:
        names |= {name: f"CASE WHEN len(money) = 1 THEN {sql} END" for name, sql in AMOUNTS.items()}
    names |= {"time": "sums.bucket", "goal": "sums.goal"}
    asked = []
    for name, descending in question.order:
        if name not in names:
            raise InvalidInput(
                f"{name!r} is neither a metric nor a dimension of the question.", field="order_by"
            )
        asked.append(f"{names[name]} {'DESC' if descending else 'ASC'} NULLS LAST")
    return ", ".join([*asked, *(f"sums.{key} NULLS FIRST" for key in keys)])


def _shown(by: By) -> str:
    is_compound = isinstance(by, Dimension) and by.is_compound
    return f"(sums.{by.column}->>-1)" if is_compound else f"sums.{by.column}"


def _money(value: list[dict[str, Any]] | None) -> tuple[Money, ...]:
    return tuple(Money(each["currency"], each["amount"], each["events"]) for each in value or ())
