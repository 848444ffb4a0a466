"""Retention: of the people who came first in one interval, how many came again in later ones.

Only for those whom the client names, by `user_id` or `anonymous_id`: a visitor is nobody any more
once the UTC day is over, so of visitors there is no retention to tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

import pyarrow as pa

from mallard.errors import InvalidInput
from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.period import Bucket, Interval, Period, buckets, micros, midnight
from mallard.query.reports.chosen import DONE, Choice, chosen
from mallard.query.reports.given import made_once, of_choice
from mallard.query.sql import Sql

INTERVALS_MAX = 120
_UTC = ZoneInfo("UTC")


class Person(StrEnum):
    """The column that names people."""

    USER = "user_id"
    ANONYMOUS = "anonymous_id"


@dataclass(frozen=True, slots=True)
class RetentionQuestion:
    """What is asked. first_day: UTC date of the site's first event, to know who is new; or None.

    now: aware; of an interval that has not begun yet nothing is known.
    """

    choice: Choice
    interval: Interval
    person: Person
    first_day: date | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Cohort:
    """The people whose first event is in an interval, and how many came in it and each later one.

    retained: [0] is all of them; None for intervals that have not begun.
    """

    bucket: Bucket
    retained: tuple[int | None, ...]


def intervals(period: Period, interval: Interval) -> list[Bucket]:
    """Return the intervals of a period; raises InvalidInput for more than INTERVALS_MAX."""
    cut = buckets(period, interval)
    if len(cut) > INTERVALS_MAX:
        raise InvalidInput(
            f"The period has {len(cut)} intervals.",
            field="interval",
            rule=f"at most {INTERVALS_MAX}; ask for a longer interval or a shorter period",
        )
    return cut


@dataclass(frozen=True, slots=True)
class _Cohorts:
    """What is counted: people's events since the site's first, by intervals that begin then."""

    choice: Choice
    starts_us: tuple[int, ...]
    person: Person


def retention(session: Session, answers: Answers, question: RetentionQuestion) -> list[Cohort]:
    """Return a cohort for each interval of the period, also those of nobody.

    New is who has no earlier event, of those the filter keeps, in anything that is stored. Raises
    InvalidInput for more than INTERVALS_MAX intervals.
    """
    choice = question.choice
    cut = intervals(choice.period, question.interval)
    # Of what is yet to come nothing is known, and years of it would all be looked for.
    if choice.period.start > question.now:
        return [_cohort(cut, number, {}, question.now) for number in range(len(cut))]
    starts = tuple(micros(each.start) for each in cut)
    asked = _Cohorts(_with_history(choice, question.first_day), starts, question.person)
    counted = _counted(session, answers, asked)
    return [_cohort(cut, number, counted, question.now) for number in range(len(cut))]


@made_once(of_choice)
def _counted(
    session: Session, answers: Answers, question: _Cohorts
) -> Mapping[tuple[int, int], int]:
    """Return how many people of an interval (by number, from 0) came in a later one, or in it."""
    person, count = Sql(question.person.value), len(question.starts_us)
    starts = pa.table(
        {
            "bucket": pa.array(range(count), pa.int32()),
            "start_us": pa.array(question.starts_us, pa.int64()),
        }
    )
    taken = session.take(starts)
    with chosen(session, answers, question.choice) as found:
        rows = session.rows(
            Sql(f"""
            SELECT cohort, bucket, count(*)
            FROM (
                SELECT bucket, min(bucket) OVER (PARTITION BY person) AS cohort
                FROM (
                    SELECT DISTINCT person, coalesce(bucket, -1) AS bucket
                    FROM (
                        SELECT {person} AS person, epoch_us(timestamp) AS instant_us
                        FROM ({found.events}) WHERE {person} IS NOT NULL AND {DONE}
                    ) ASOF LEFT JOIN {taken} ON instant_us >= start_us
                )
            )
            WHERE cohort >= 0 GROUP BY cohort, bucket""")
        )
    return {(cohort, bucket): number for cohort, bucket, number in rows}


def _with_history(choice: Choice, first_day: date | None) -> Choice:
    """Return a choice that goes back to the site's first day."""
    period = choice.period
    start = period.start if first_day is None else min(period.start, midnight(first_day, _UTC))
    return replace(choice, period=Period(start.astimezone(UTC), period.end, period.zone))


def _cohort(
    cut: list[Bucket], number: int, counted: Mapping[tuple[int, int], int], now: datetime
) -> Cohort:
    retained = tuple(
        counted.get((number, later), 0) if cut[later].start <= now else None
        for later in range(number, len(cut))
    )
    return Cohort(cut[number], retained)
