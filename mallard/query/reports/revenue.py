"""Revenue: what came in, a currency each, as a whole, over time, by a dimension or by goals.

It is made of sums, so it costs what they do. Money of two currencies is never added.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

import pyarrow as pa

from mallard.query.answers import Answers
from mallard.query.dimensions import By
from mallard.query.engine import Session
from mallard.query.filters import AllOf, Filter, check_expressions
from mallard.query.period import Bucket, Interval, buckets, slices
from mallard.query.reports.chosen import Choice
from mallard.query.reports.given import made_once, of_choice
from mallard.query.reports.table import Goal, of_goals
from mallard.query.sql import Sql, literal
from mallard.query.sums import Grouping


@dataclass(frozen=True, slots=True)
class RevenueQuestion:
    """What is asked. by: a row for each value; goals: for each goal; interval: for each interval.

    At most one of the three. currency: the one whose rows come first. groups: of these values, or
    goals, and currencies alone there are rows.
    """

    choice: Choice
    by: By | None = None
    goals: tuple[Goal, ...] | None = None
    interval: Interval | None = None
    currency: str | None = None
    limit: int | None = None
    offset: int = 0
    groups: tuple[tuple[str | None, str], ...] | None = None


@dataclass(frozen=True, slots=True)
class Income:
    """What a group brought in one currency, by how many events. value: a dimension's, or a goal."""

    bucket: Bucket | None
    value: str | None
    currency: str
    amount: Decimal
    events: int

    @property
    def average(self) -> Decimal | None:
        """The mean of an event, to the cent; None of none."""
        return round(self.amount / self.events, 2) if self.events else None


@dataclass(frozen=True, slots=True)
class Revenue:
    """The rows asked for, and how many there are in all."""

    rows: list[Income]
    total_rows: int


@made_once(of_choice)
def revenue(session: Session, answers: Answers, question: RevenueQuestion) -> Revenue:
    """Return a row for each group and currency, the most money of a currency first.

    By interval they are in the order of time, and have a row for each interval and currency.
    """
    choice = question.choice
    check_expressions(session, choice.keep)
    cut = buckets(choice.period, question.interval)
    if question.goals == ():
        return Revenue([], 0)
    found = []
    for goal in question.goals or (None,):
        by = (question.by,) if question.by else ()
        keep = _both(choice.keep, goal.keep) if goal else choice.keep
        grouping = Grouping(choice.site_id, by, keep, choice.as_of_us, money=True)
        sums = answers.sums(session, grouping, slices(cut))
        found.append((goal.name if goal else None, sums))
    taken = _among(session, question, of_goals(session, found))
    rows = session.rows(_statement(taken, question))
    if question.offset and not rows:
        first = session.rows(_statement(taken, replace(question, offset=0, limit=1)))
        return Revenue([], first[0][-1] if first else 0)
    income = [Income(cut[row[0]] if question.interval else None, *row[1:-1]) for row in rows]
    if question.interval:
        income = _filled(income, cut)
        return Revenue(income, len(income))
    return Revenue(income, rows[0][-1] if rows else 0)


def _value(question: RevenueQuestion) -> Sql:
    return question.by.column if question.by else Sql("goal")


def _among(session: Session, question: RevenueQuestion, sums: Sql) -> Sql:
    """Return a query for those of sums that are of the groups asked for."""
    if question.groups is None:
        return sums
    columns = [[group[place] for group in question.groups] for place in (0, 1)]
    arrays = [pa.array(column, pa.string()) for column in columns]
    wanted = session.take(pa.table(arrays, ["wanted", "wanted_currency"]))
    return Sql(f"""
        FROM ({sums}) SEMI JOIN {wanted}
            ON {_value(question)} IS NOT DISTINCT FROM wanted AND currency = wanted_currency""")


def _statement(sums: Sql, question: RevenueQuestion) -> Sql:
    value = _value(question)
    first = literal(question.currency or "")
    limit = "" if question.limit is None else f"LIMIT {int(question.limit)}"
    order = "bucket," if question.interval else ""
    return Sql(f"""
        SELECT bucket, {value} AS value, currency, revenue_amount, revenue_events,
            count(*) OVER () AS total_rows
        FROM ({sums}) WHERE currency IS NOT NULL
        ORDER BY {order} currency <> {first}, currency, revenue_amount DESC, value NULLS LAST
        {limit} OFFSET {int(question.offset)}""")


def _filled(found: list[Income], cut: list[Bucket]) -> list[Income]:
    known = {(each.bucket, each.currency): each for each in found}
    currencies = dict.fromkeys(each.currency for each in found)
    return [
        known.get((bucket, currency)) or Income(bucket, None, currency, Decimal("0.00"), 0)
        for bucket in cut
        for currency in currencies
    ]


def _both(keep: Filter | None, goal: Filter) -> Filter:
    return goal if keep is None else AllOf((keep, goal))
