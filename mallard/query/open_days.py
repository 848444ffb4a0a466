"""What is known of a site's open days: their events and visits, brought up to date by what is new.

A visitor's visits hang on that visitor's events of the day and on no others. So new events cost the
visitors they are of, however many events the days have.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from mallard.query.engine import Session
from mallard.query.sessions import annotated, visits
from mallard.query.sql import Sql

# Each time something is new there is a piece more; to read many costs more than to make them one.
PIECES_MAX = 4


@dataclass(frozen=True, slots=True)
class Instant:
    """What was stored when the days were looked at.

    parts: where they are; rules: by which they are read. last_position: of all that is known, in
    parts or not. seen_at: as `TailView` has it.
    """

    parts: frozenset[str]
    rules: tuple[str, ...]
    last_position: int
    seen_at: float

    def grows_into(self, now: Instant) -> bool:
        """Whether all that was stored is still, and all else is of later positions.

        Parts never change, so what they hold is there as long as they are.
        """
        return self.parts <= now.parts and self.rules == now.rules


@dataclass(frozen=True, slots=True)
class OpenDays:
    """The events of some days of a site, each with its `visit`, and their visits.

    version: names what is known, whenever it was looked at.
    """

    events: pa.Table
    visits: pa.Table
    instant: Instant
    version: object = field(default_factory=object)

    @property
    def seen_at(self) -> float:
        """All that was committed by then is known, as `monotonic` counts."""
        return self.instant.seen_at

    def get_total_buffer_size(self) -> int:
        """Return the bytes it takes in memory."""
        return int(self.events.get_total_buffer_size() + self.visits.get_total_buffer_size())


def looked_up(session: Session, query: Sql, instant: Instant) -> OpenDays:
    """Return what is known of days; query: for all of their events, as `narrow` has them."""
    events = _compact(session.table(annotated(query)))
    told = session.table(visits(Sql(f"FROM {session.take(events)}")))
    return OpenDays(events, _compact(told), instant)


def brought_up(session: Session, known: OpenDays, rows: pa.Table | None, now: Instant) -> OpenDays:
    """Return what is known with more events of the days, whose columns are those of the others."""
    if rows is None or not rows.num_rows:
        return replace(known, instant=now)
    touched = pc.unique(rows["visitor_id"]).drop_null()
    of_events, of_visits = (
        pc.is_in(each["visitor_id"], value_set=touched) for each in (known.events, known.visits)
    )
    before = session.take(known.events.filter(of_events))
    more = session.take(rows)
    query = Sql(f"SELECT * EXCLUDE (visit) FROM {before} UNION ALL BY NAME FROM {more}")
    again = looked_up(session, query, now)
    return replace(
        again,
        events=_joined(known.events.filter(pc.invert(of_events)), again.events),
        visits=_joined(known.visits.filter(pc.invert(of_visits)), again.visits),
    )


def _compact(table: pa.Table) -> pa.Table:
    """Return a table with each of its texts once."""
    columns = [
        column.combine_chunks().dictionary_encode() if column.type == pa.string() else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)


def _joined(known: pa.Table, more: pa.Table) -> pa.Table:
    """Return both, whose columns may be in different orders."""
    joined = pa.concat_tables([known, more.select(known.column_names)])
    if joined.columns[0].num_chunks <= PIECES_MAX:
        return joined
    return joined.unify_dictionaries().combine_chunks()
