"""A site's days at one instant: the events and visits of each, wherever they are had cheapest.

Of a settled day both lie in files. Of an open one, whose numbers may still change, the visits are
made up of all its events; both are kept, and brought up to date by what was stored since. Answers
know all that was committed when they were asked for.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from datetime import date
from functools import cached_property
from hashlib import sha256

import pyarrow as pa
import pyarrow.compute as pc

from mallard.query.engine import Session
from mallard.query.events import annotated_rows_of, rows_of
from mallard.query.kept import Kept
from mallard.query.open_days import Instant, OpenDays, brought_up, looked_up
from mallard.query.rules import apply
from mallard.query.sessions import SESSIONS_VERSION, annotated, visits
from mallard.query.sql import Sql, literal
from mallard.query.tail import TailView
from mallard.store.part import Part
from mallard.store.snapshot import Day, Snapshot
from mallard.store.store import Readable

# What no report reads; the widest columns are among them.
_UNREAD = (
    *("url", "data", "metadata", "idempotency_key", "stream_id", "sequence_number", "session_id"),
    *("company_id", "ingest_api", "node", "sent_at", "received_at", "loaded_at"),
    *("backfill", "trusted_clock"),
)
# Open days with more events than this are put into the database, which spills them to disk.
KEPT_EVENTS = 500_000


class SiteDays:
    """One site's days for one question. Dates are UTC and ISO."""

    def __init__(
        self,
        session: Session,
        store: Readable,
        snapshot: Snapshot,
        tail: TailView,
        site_id: str,
        as_of_us: int | None = None,
    ) -> None:
        """snapshot: taken after the tail, and read until the question is answered.

        as_of_us: an instant, to count what was stored then; None for now.
        """
        self._session = session
        self._store = store
        self._snapshot = snapshot
        self._tail = tail
        self.site_id = site_id
        self._as_of_us = as_of_us
        self._used: dict[Hashable, OpenDays | None] = {}

    def day(self, day: str) -> Day | None:
        """Return a day if it is settled: nothing but its own files has a say in its numbers."""
        found = self._snapshot.days.get((self.site_id, day))
        if found is None or day in self._open:
            return None
        sessions = found.sessions
        is_true = sessions and sessions.format == SESSIONS_VERSION
        return found if is_true and found.is_as_of(self._as_of_us) else None

    def has_events(self, day: str) -> bool:
        """Whether there may be any."""
        return day in self._open or (self.site_id, day) in self._snapshot.days

    @property
    def of(self) -> tuple[str, int | None]:
        """Whose days they are, and as of which instant."""
        return self.site_id, self._as_of_us

    @property
    def open_dates(self) -> frozenset[str]:
        """The dates whose numbers may differ from what their parts of level 1 say."""
        return frozenset(self._open)

    @property
    def snapshot(self) -> Snapshot:
        """The store at this instant."""
        return self._snapshot

    @property
    def session(self) -> Session:
        """The question's session."""
        return self._session

    def settled(self, days: Sequence[str]) -> tuple[Sql, Sql]:
        """Return queries for the events and the visits of settled days, at least one."""
        found = [day for each in days if (day := self.day(each))]
        parts = [self._store.source(part) for day in found for part in day.parts]
        files = [self._store.source(day.sessions) for day in found if day.sessions]
        listed = ", ".join(literal(file) for file in files)
        told = Sql(f"FROM read_parquet([{listed}], hive_partitioning = false)")
        return narrow(annotated_rows_of(parts)), told

    def open(self, days: Sequence[str], kept: Kept) -> tuple[Sql, Sql]:
        """Return queries for the events and the visits of days that are not settled."""
        known = self._known(days, kept)
        if known is None:
            query = narrow(annotated(self._rows(self._parts(days), days)))
            self._session.cursor.execute(f"CREATE OR REPLACE TEMP TABLE open_rows AS {query}")
            return Sql("FROM open_rows"), visits(Sql("FROM open_rows"))
        events, told = (self._session.take(each) for each in (known.events, known.visits))
        return Sql(f"FROM {events}"), Sql(f"FROM {told}")

    def open_events(self, days: Sequence[str], kept: Kept) -> int:
        """Return how many events open days have, or what that is more than."""
        known = self._known(days, kept)
        return known.events.num_rows if known else KEPT_EVENTS

    def open_version(self, days: Sequence[str], kept: Kept) -> Hashable:
        """Name what `open` gives of days: the same name, the same events."""
        known = self._known(days, kept)
        return known.version if known else (self._snapshot.version, self._tail.last_position)

    def version(self, days: Sequence[str]) -> tuple[bytes, tuple[str, ...]]:
        """Name what there is of the settled ones of days, and return those that are not."""
        settled = [(each, day.version) for each in days if (day := self.day(each))]
        rest = (each for each in days if self.has_events(each) and not self.day(each))
        # A year's would take more memory than what is kept under its name.
        return sha256(repr(settled).encode()).digest(), tuple(rest)

    def _known(self, days: Sequence[str], kept: Kept) -> OpenDays | None:
        """Return what days have; None if it is too much to keep."""
        key = "open", self.site_id, tuple(sorted(days)), self._as_of_us
        if key in self._used:
            return self._used[key]
        known: OpenDays | None = kept.get(key)
        if known is None or known.seen_at < self._session.asked_at:
            known = self._brought_up(known, days) if known else self._looked_up(days)
        self._used[key] = known
        if known is not None:
            kept.keep({key: known})
        return known

    def _looked_up(self, days: Sequence[str]) -> OpenDays | None:
        parts = self._parts(days)
        rows = self._rows(parts, days)
        events = sum(part.rows for part in parts) + len(self._fresh or ())
        if events > KEPT_EVENTS:  # other sites' may be among them
            ((events,),) = self._session.rows(Sql(f"SELECT count(*) FROM ({rows})"))
        if events > KEPT_EVENTS:
            return None
        return looked_up(self._session, narrow(rows), self._instant(parts))

    def _brought_up(self, known: OpenDays, days: Sequence[str]) -> OpenDays | None:
        parts = self._parts(days)
        now = self._instant(parts)
        if not known.instant.grows_into(now):
            return self._looked_up(days)
        last = known.instant.last_position
        newer = [part for part in parts if part.last_position > last]
        if newer:
            query = Sql(f"FROM ({self._rows(newer, days)}) WHERE position > {last}")
            rows = self._session.table(narrow(query))
        else:
            rows = self._waiting(last, days)
        return brought_up(self._session, known, rows, now)

    def _waiting(self, last_position: int, days: Sequence[str]) -> pa.Table | None:
        """Return the events of days past a position that are not in parts, as `narrow` has them."""
        rows = self._tail.after(max(last_position, self._snapshot.watermark), self.site_id)
        if rows is None:
            return None
        dates = pa.array([date.fromisoformat(day) for day in days], pa.date32())
        is_meant = pc.is_in(pc.cast(rows["timestamp"], pa.date32()), value_set=dates)
        if self._as_of_us is not None:
            instant = pa.scalar(self._as_of_us, pa.timestamp("us"))
            is_meant = pc.and_(is_meant, pc.less_equal(rows["loaded_at"], instant))
        return rows.drop_columns(list(_UNREAD)).filter(is_meant)

    def _instant(self, parts: Sequence[Part]) -> Instant:
        return Instant(
            frozenset(part.location for part in parts),
            tuple(rule.rule_id for rule in self._snapshot.rules),
            max(self._snapshot.watermark, self._tail.last_position),
            self._tail.seen_at,
        )

    def _parts(self, days: Sequence[str]) -> list[Part]:
        wanted, site = set(days), self.site_id
        recent = [
            part for part in self._snapshot.recent if part.date in wanted and site in part.sites
        ]
        compacted = [self._snapshot.days.get((site, day)) for day in sorted(wanted)]
        return [*recent, *(part for day in compacted if day for part in day.parts)]

    def _rows(self, parts: Sequence[Part], days: Sequence[str]) -> Sql:
        sources = []
        if parts:
            rows = rows_of([self._store.source(part) for part in parts])
            of_site = Sql(f"FROM ({rows}) WHERE site_id = {literal(self.site_id)}")
            sources.append(f"SELECT * FROM ({apply(of_site, self._snapshot.rules)})")
        if self._fresh is not None:
            listed = ", ".join(f"DATE {literal(day)}" for day in days)
            taken = self._session.take(self._fresh)
            sources.append(f"SELECT * FROM {taken} WHERE timestamp::DATE IN ({listed})")
        rows = Sql(" UNION ALL BY NAME ".join(sources))
        if self._as_of_us is None:
            return rows
        return Sql(f"SELECT * FROM ({rows}) WHERE epoch_us(loaded_at) <= {int(self._as_of_us)}")

    @cached_property
    def _fresh(self) -> pa.Table | None:
        """The site's events that are not in parts yet."""
        return self._tail.after(self._snapshot.watermark, self.site_id)

    @cached_property
    def _open(self) -> set[str]:
        days = {part.date for part in self._snapshot.recent if self.site_id in part.sites}
        affected = (each for rule in self._snapshot.rules for each in rule.affected)
        days |= {day for site_id, day in affected if site_id == self.site_id}
        if self._fresh is not None:
            found: list[date] = pc.unique(
                pc.cast(self._fresh["timestamp"], pa.date32())
            ).to_pylist()
            days |= {day.isoformat() for day in found}
        return days


def narrow(events: Sql) -> Sql:
    """Return a query for events without the columns that no report reads."""
    return Sql(f"SELECT * EXCLUDE ({', '.join(_UNREAD)}) FROM ({events})")
