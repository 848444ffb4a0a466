"""Reports that add up over site-days, so that what a settled day comes to is counted once.

Such a report is a query in which nothing looks from one UTC date to another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.filters import Filter, check_expressions, kept
from mallard.query.period import Bucket, Slice, slices
from mallard.query.reports.chosen import Choice
from mallard.query.sql import Sql

# What a query of `added` reads: the chosen events of some UTC days, and all visits of these.
EVENTS = Sql("FROM chosen_events")
VISITS = Sql("FROM told_visits")


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of site-days, whatever the period."""

    site_id: str
    keep: Filter | None
    as_of_us: int | None
    sql: Sql
    numbers: int
    # The query says these.
    schema: pa.Schema = field(compare=False)
    lessen: Callable[[pa.Table], pa.Table] | None = field(compare=False)

    def lessened(self, sums: pa.Table) -> pa.Table:
        return sums if self.lessen is None else self.lessen(sums)


def added(
    session: Session,
    answers: Answers,
    choice: Choice,
    sql: Sql,
    by: Mapping[str, pa.DataType],
    numbers: Mapping[str, pa.DataType],
    lessen: Callable[[pa.Table], pa.Table] | None = None,
) -> Sql:
    """Return the name of a table of what a query's answers to the site-days of a choice come to.

    sql: reads EVENTS and VISITS, and gives a `date` and the columns of `by` and `numbers`, which
    are added up over dates where those of `by` are the same. lessen: see `Addable.lessened`; the
    query says what it does. Raises what `chosen` raises.
    """
    check_expressions(session, choice.keep)
    schema = pa.schema({"bucket": pa.int32(), **by, **numbers})
    question = _Question(
        choice.site_id, choice.keep, choice.as_of_us, sql, len(numbers), schema, lessen
    )
    period = choice.period
    pieces = slices([Bucket(period.start, period.start, period.end)])
    sums = answers.added(session, question, pieces, _count)
    return session.take(sums) if isinstance(sums, pa.Table) else sums


def _count(
    session: Session, question: _Question, found: tuple[Sql, Sql], pieces: Sequence[Slice]
) -> Sql:
    stored, told = found
    session.view("told_visits", told)
    events = kept(stored, VISITS, question.keep)
    # Of one period, so that what lies between two of them is of no other day.
    start, end = min(each.start_us for each in pieces), max(each.end_us for each in pieces)
    if not all(piece.is_whole for piece in pieces):
        inside = f"epoch_us(timestamp) >= {start} AND epoch_us(timestamp) < {end}"
        events = Sql(f"FROM ({events}) WHERE {inside}")
    session.view("chosen_events", events)
    # Its first day alone may begin after midnight.
    began = f"greatest(epoch_us(date), {start})"
    return Sql(f"SELECT {began} AS start_us, * EXCLUDE (date) FROM ({question.sql})")
