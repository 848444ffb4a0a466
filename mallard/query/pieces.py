"""A site's events or visits of a period, as queries that are run one after the other.

Each is of so many rows that sorting them fits in memory, and reads the few files that have them:
an export of any length takes the memory of one. Events are in order of position. Visits are in
order of date and of the position of their first event.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc

from mallard.query.confined import Reading, confine
from mallard.query.events import rows_of
from mallard.query.period import Period
from mallard.query.rules import apply
from mallard.query.sessions import SESSION_SCHEMA
from mallard.query.sql import Sql, literal, name
from mallard.query.tail import TailView
from mallard.query.views import as_events
from mallard.store.part import Derived, Part
from mallard.store.snapshot import Snapshot

# All columns of so many events take some 60 MB where they are sorted.
PIECE_ROWS = 100_000
# Who it was; nobody but an admin exports these.
WHO = ("visitor_id", "anonymous_id", "user_id")

Source = Callable[[Part | Derived], str]


class What(StrEnum):
    """What is exported."""

    EVENTS = "events"
    SESSIONS = "sessions"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is exported of a site. period: None is all time. visitors: with the columns of WHO.

    as_of_us: an instant, for what was stored then; None for now.
    """

    site_id: str
    what: What
    period: Period | None = None
    visitors: bool = False
    as_of_us: int | None = None

    @property
    def file_stem(self) -> str:
        """What a file of it may be called, in characters that any system takes."""
        site = re.sub(r"[^A-Za-z0-9.-]", "_", self.site_id)
        days = "" if self.period is None else f"_{self.period.first_day}_{self.period.last_day}"
        return f"{site}_{self.what}{days}"

    @property
    def dates(self) -> tuple[str, str]:
        """The first and the last UTC date (ISO) that there may be anything of."""
        if self.period is None:
            return "0001-01-01", "9999-12-31"
        last = self.period.end - timedelta(microseconds=1)
        first_day, last_day = (each.astimezone(UTC).date() for each in (self.period.start, last))
        return first_day.isoformat(), last_day.isoformat()


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of it: positions from first up to but not including end, or UTC dates, both included."""

    first: int | str
    end: int | str


@dataclass(frozen=True, slots=True)
class Seen:
    """The store and the tail at one instant. last_position: of all that was committed then."""

    snapshot: Snapshot
    tail: TailView
    source: Source

    @property
    def last_position(self) -> int:
        """The last position that was given away."""
        return max(self.snapshot.watermark, self.tail.last_position)

    def reading(self, wanted: Wanted, piece: Piece | None = None) -> Reading:
        """Return what has to be there for the queries of a piece, or of all of it."""
        sites = frozenset({wanted.site_id})
        if wanted.what is What.EVENTS:
            rows = self.tail.all_after(self.snapshot.watermark, sites)
            return Reading(sites, {}, (), (), rows)
        dates = wanted.dates if piece is None else (str(piece.first), str(piece.end))
        return confine(self.tail, self.snapshot, sites, self.source, dates, wanted.as_of_us)


def pieces(wanted: Wanted, seen: Seen, rows_max: int = PIECE_ROWS) -> list[Piece]:
    """Cut an export in pieces of about so many rows, in their order; one at least."""
    parts = _parts(wanted, seen.snapshot)
    if wanted.what is What.EVENTS:
        cuts = [0, *_cuts(parts, rows_max), seen.last_position + 1]
        return [Piece(first, end) for first, end in itertools.pairwise(cuts)]
    fresh = seen.tail.all_after(seen.snapshot.watermark, frozenset({wanted.site_id}))
    days = {part.date: 0 for part in parts} | dict.fromkeys(_dates(wanted, fresh), 0)
    for part in parts:
        days[part.date] += _rows(part)
    found: list[Piece] = []
    room = 0
    for day in sorted(days):
        room -= days[day]
        if not found or room < 0:
            found.append(Piece(day, day))
            room = rows_max - days[day]
        else:
            found[-1] = Piece(found[-1].first, day)
    return found or [Piece(*wanted.dates)]


def query_of(wanted: Wanted, piece: Piece, seen: Seen) -> Sql:
    """Return the query for a piece; it reads `tail` or the views of `Seen.reading`."""
    return (_events if wanted.what is What.EVENTS else _sessions)(wanted, piece, seen)


def _events(wanted: Wanted, piece: Piece, seen: Seen) -> Sql:
    meant = f"position >= {int(piece.first)} AND position < {int(piece.end)}"
    meant += f" AND site_id = {literal(wanted.site_id)}{_within(wanted, 'timestamp')}"
    if wanted.as_of_us is not None:
        meant += f" AND epoch_us(loaded_at) <= {wanted.as_of_us:d}"
    sources = [
        seen.source(part)
        for part in _parts(wanted, seen.snapshot)
        if part.first_position < int(piece.end) and part.last_position >= int(piece.first)
    ]
    rows = [Sql(f"SELECT * FROM tail WHERE {meant}")]
    if sources:
        stored = apply(rows_of(sources), seen.snapshot.rules)
        rows.append(Sql(f"SELECT * FROM ({stored}) WHERE {meant}"))
    shown = as_events(Sql(" UNION ALL BY NAME ".join(rows)))
    return Sql(f"SELECT * {_hidden(wanted, WHO)} FROM ({shown}) ORDER BY position")


def _sessions(wanted: Wanted, piece: Piece, seen: Seen) -> Sql:
    who = [each for each in WHO if each in SESSION_SCHEMA.names]
    return Sql(
        f"SELECT * {_hidden(wanted, who)} FROM sessions "
        f"WHERE date BETWEEN DATE {literal(str(piece.first))} AND DATE {literal(str(piece.end))} "
        f"AND site_id = {literal(wanted.site_id)}{_within(wanted, 'started_at')} "
        "ORDER BY date, first_position"
    )


def _hidden(wanted: Wanted, columns: tuple[str, ...] | list[str]) -> Sql:
    return Sql("" if wanted.visitors else f"EXCLUDE ({', '.join(map(name, columns))})")


def _within(wanted: Wanted, instant: str) -> Sql:
    if wanted.period is None:
        return Sql("")
    start, end = (_timestamp(each) for each in (wanted.period.start, wanted.period.end))
    return Sql(f" AND {instant} >= {start} AND {instant} < {end}")


def _timestamp(instant: datetime) -> Sql:
    return Sql(f"TIMESTAMP {literal(instant.astimezone(UTC).replace(tzinfo=None).isoformat(' '))}")


def _parts(wanted: Wanted, snapshot: Snapshot) -> list[Part]:
    """Return the parts that may hold anything of it, in order of their first positions."""
    first, last = wanted.dates
    found = [part for part in snapshot.recent if wanted.site_id in part.sites]
    found += [
        part
        for (site, _), day in snapshot.days.items()
        if site == wanted.site_id
        for part in day.parts
    ]
    meant = [part for part in found if first <= part.date <= last]
    return sorted(meant, key=lambda part: part.first_position)


def _cuts(parts: list[Part], rows_max: int) -> list[int]:
    """Return positions between which there are about so many rows, or one part's."""
    cuts: list[int] = []
    rows = 0
    for part in parts:
        if rows + _rows(part) > rows_max and part.first_position > (cuts[-1] if cuts else 0):
            cuts.append(part.first_position)
            rows = 0
        # One part may hold the rows of many: then it is cut by its positions, evenly.
        rows += _rows(part)
        span = part.last_position - part.first_position + 1
        for number in range(1, -(-_rows(part) // rows_max)):
            cut = part.first_position + span * number * rows_max // _rows(part)
            if cut > (cuts[-1] if cuts else 0):
                cuts.append(cut)
                rows = 0
    return cuts


def _rows(part: Part) -> int:
    return -(-part.rows // len(part.sites))  # of level 0 they are of several sites


def _dates(wanted: Wanted, events: pa.Table) -> set[str]:
    first, last = wanted.dates
    days = pc.unique(pc.cast(events["timestamp"], pa.date32())).to_pylist()
    return {day.isoformat() for day in days if first <= day.isoformat() <= last}
