"""The single events a report looks at: a site's in a period, those that a filter keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mallard.query.answers import Answers
from mallard.query.dimensions import By
from mallard.query.engine import Session
from mallard.query.filters import Filter, check_expressions, kept
from mallard.query.metrics import WITHOUT_VISIT
from mallard.query.period import Bucket, Period, micros, slices
from mallard.query.sql import Sql

_KEY = "site_id, date, visitor_id, visit"
# (timestamp, position) as one number; see `query/sessions.py`.
ORDER = Sql("((epoch_us(timestamp)::HUGEINT << 62) + position)")
# Engagement reports are nothing that somebody did.
DONE = Sql("event_type <> 'engagement'")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which events: a site's, of a period, that a filter holds for.

    as_of_us: an instant, to look at what was stored then; None for now.
    """

    site_id: str
    period: Period
    keep: Filter | None = None
    as_of_us: int | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Queries for what was chosen.

    events: the chosen ones. days: all events of the UTC days that the period touches. visits: those
    of these days.
    """

    events: Sql
    days: Sql
    visits: Sql


@contextmanager
def chosen(
    session: Session, answers: Answers, choice: Choice, *, cut: bool = True
) -> Iterator[Chosen]:
    """Give queries for the chosen events and for what is around them, within a context.

    A filter that asks of a visit is answered by all of its UTC day, also where the period cuts it.
    cut: False for events of the whole UTC days that the period touches. Raises InvalidInput for an
    expression that RE2 cannot read.
    """
    check_expressions(session, choice.keep)
    start, end = micros(choice.period.start), micros(choice.period.end)
    days = slices([_whole_days(choice.period)])
    with answers.relations(session, choice.site_id, days, choice.as_of_us) as found:
        events = kept(found.events, found.visits, choice.keep)
        if cut:
            inside = f"epoch_us(timestamp) >= {start} AND epoch_us(timestamp) < {end}"
            events = Sql(f"FROM ({events}) WHERE {inside}")
        yield Chosen(events, found.events, found.visits)


def valued(events: Sql, visits: Sql, by: Sequence[By]) -> Sql:
    """Return a query for events with all their columns and, of each dimension, its `column`.

    visits: at least those of the events. An event without a visit answers by its own columns.
    """
    of_visits = [each for each in by if each.scope == "visit"]
    values = [
        f"{each.sql if each.scope == 'event' or each not in WITHOUT_VISIT else 'NULL::VARCHAR'} "
        f"AS {each.column}"
        for each in by
    ]
    own = f"SELECT *, {', '.join([*values, 'timestamp::DATE AS date'])} FROM ({events})"
    if not of_visits:
        return Sql(own)
    replaced = ", ".join(
        f"CASE WHEN visit IS NULL THEN own.{each.column} ELSE told.{each.column} END "
        f"AS {each.column}"
        for each in of_visits
    )
    told = ", ".join([_KEY, *(f"{each.sql} AS {each.column}" for each in of_visits)])
    return Sql(f"""
        SELECT own.* REPLACE ({replaced})
        FROM ({own}) own LEFT JOIN (SELECT {told} FROM ({visits})) told USING ({_KEY})""")


def percent(part: int, whole: int) -> float | None:
    """Return a share in percent; None of nothing."""
    return round(100 * part / whole, 2) if whole else None


def _whole_days(period: Period) -> Bucket:
    """Return the UTC days that a period touches, as one interval."""
    start = period.start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    end = max(period.end.astimezone(UTC), start)
    midnight = end.replace(hour=0, minute=0, second=0, microsecond=0)
    until: datetime = midnight if midnight == end else midnight + timedelta(days=1)
    return Bucket(start, start, until)
