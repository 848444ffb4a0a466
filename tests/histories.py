"""A store that events come to in any order, with dates compacted and rules made in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import duckdb
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from mallard.clock import Clock
from mallard.event import Event, Frame, to_table
from mallard.files import Files
from mallard.query.events import rows_of, show
from mallard.query.rules import Definition
from mallard.query.sessions import SESSION_SCHEMA, annotated, visits
from mallard.query.sql import Sql
from mallard.store.local import LocalStore
from mallard.store.part import Derived, Part
from mallard.store.snapshot import Change, Rule, Snapshot, day_version
from tests import oracle
from tests.oracle import Stored


class History:
    """What was stored, twice: in a store, and as a list of what reads must give."""

    def __init__(
        self,
        data: Path,
        announce: Callable[[Snapshot], None] = lambda _: None,
        clock: Clock | None = None,
    ) -> None:
        data.mkdir(exist_ok=True)
        self.store = LocalStore(data, Files(), clock or Clock(), announce)
        self.events: list[Stored] = []
        self.in_log: list[Stored] = []

    def log(self, events: Sequence[Event]) -> None:
        """Accept events; they are in the log."""
        first = self.store.snapshot().watermark + len(self.in_log) + 1
        self.in_log += oracle.store(events, first)

    def flush(self) -> None:
        """Store what is in the log."""
        if self.in_log:
            self.store.publish(to_table(self.tail), self.in_log[-1].position)
            self.events += self.in_log
            self.in_log = []

    def settle(self, dates: Iterable[str]) -> None:
        """Compact dates, a part and a file of visits for each site."""
        for date in dates:
            snapshot = self.store.snapshot()
            before = [part for part in snapshot.parts if part.date == date]
            sources = [self.store.source(part) for part in before]
            if not sources:
                continue
            with duckdb.connect() as connection:
                rows = connection.sql(annotated(rows_of(sources))).to_arrow_table()
            added: list[Part | Derived] = []
            for site_id in rows["site_id"].unique().to_pylist():
                added += self._write_day(site_id, date, rows)
            self.store.swap(Change("compaction", added=tuple(added), removed=tuple(before)))

    def drop(self, definition: Definition, is_meant: Callable[[Event], bool]) -> None:
        """Make a rule; `is_meant` says the same in Python."""
        snapshot = self.store.snapshot()
        affected = {
            (one.event.site_id, oracle.day_of(one.event).isoformat())
            for one in self.events
            if is_meant(one.event)
        }
        text = orjson.dumps({"rule": definition.to_json()}).decode()
        rule = Rule(f"rule {len(snapshot.rules)}", 1, snapshot.watermark, text, frozenset(affected))
        self.store.swap(Change("erasure", rules_added=(rule,)))
        self.events = [one for one in self.events if not is_meant(one.event)]

    @property
    def tail(self) -> list[Frame]:
        """What is in the log, a frame an event."""
        return [Frame(position, 1, self.store.node, [event]) for position, event in self.in_log]

    def show(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make the views over all of it."""
        show(connection, self.store.snapshot(), self.store.source, self.tail)

    def _write_day(self, site_id: str, date: str, rows: pa.Table) -> list[Part | Derived]:
        day = rows.filter(pc.equal(rows["site_id"], site_id))
        with self.store.day_writer(site_id, date) as writer:
            writer.write(day)
            part = writer.finish_part()
        version = {date: day_version((part,))}
        with duckdb.connect() as connection:
            connection.register("day", day)
            found = connection.sql(visits(Sql("FROM day"))).to_arrow_table()
        with self.store.derived_writer("sessions", site_id, version, SESSION_SCHEMA) as derived:
            derived.write(found.cast(SESSION_SCHEMA))
            return [part, derived.finish_derived()]
