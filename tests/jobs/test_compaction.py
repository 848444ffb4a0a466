from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from duckdb import DuckDBPyConnection

from mallard.config import StoreConfig
from mallard.event import Event
from mallard.jobs.apart import Apart
from mallard.jobs.compaction import RETRY_SECONDS, Compactor, write
from mallard.jobs.database import SPILLED, connect, remove_spilled
from mallard.jobs.day_files import write_days
from mallard.jobs.pieces import gathered, make_shapes, shaped
from mallard.jobs.policy import Merge, Settle
from mallard.query.events import annotated_rows_of, rows_of
from mallard.query.sessions import SESSION_SCHEMA
from mallard.store.encoding import LEVEL_1_ORDER
from mallard.store.snapshot import Change, Snapshot
from mallard.store.store import Writing
from mallard.store.turns import turns
from mallard.telemetry import Telemetry
from tests import oracle
from tests.factories import NOON_US, make_event
from tests.faults import FailingCommits
from tests.sql import ask
from tests.stored import A, B, C, Stored, date

AT_ONCE = StoreConfig(merge_files=2, close_after_seconds=0, late_merge_seconds=0)
ROOM_BYTES = 2**40
DATE = date(0)


class Compacting:
    """A store whose dates can be compacted."""

    def __init__(self, data: Path, apart: Apart | None = None) -> None:
        self.files = FailingCommits()
        self.stored = Stored(data, self.files)
        self.store = self.stored.store
        self.telemetry = Telemetry()
        self.room_bytes = ROOM_BYTES
        self.compactor = Compactor(
            AT_ONCE,
            self.store,
            data,
            lambda: self.room_bytes,
            self.stored.clock,
            self.telemetry,
            apart,
        )

    @property
    def snapshot(self) -> Snapshot:
        return self.store.snapshot()

    def run(self, day: int = 0) -> None:
        """Compact what is due on a day."""
        self.stored.clock.us = NOON_US + day * 86_400_000_000
        self.compactor.run()


@pytest.fixture
def compacting(tmp_path: Path) -> Iterator[Compacting]:
    made = Compacting(tmp_path)
    yield made
    made.stored.close()


def history(compacting: Compacting) -> list[str]:
    return [version.reason for version in compacting.store.history()]


def test_parts_of_an_open_date_become_one_part_in_order_of_site_and_time(
    compacting: Compacting,
) -> None:
    compacting.stored.flush(0, B, A)
    compacting.stored.flush(0, A)
    compacting.stored.publish([make_event(site_id=A, timestamp=NOON_US - 1)])
    compacting.run()
    (part,) = compacting.snapshot.recent
    assert (part.rows, part.sites, part.position_sum) == (4, (A, B), 10)
    rows = ask("SELECT site_id, position FROM read_parquet($1)", [compacting.store.source(part)])
    assert rows == [(A, 4), (A, 2), (A, 3), (B, 1)]
    assert compacting.telemetry.compacted == {"merge": 4}
    assert history(compacting) == ["flush", "flush", "flush", "merge"]


def test_a_date_that_is_over_becomes_one_part_and_one_file_of_visits_for_each_site(
    compacting: Compacting,
) -> None:
    compacting.stored.flush(0, A, B, A)
    compacting.stored.flush(0, C, A)
    compacting.stored.flush(3, A)
    compacting.run(day=3)
    snapshot = compacting.snapshot
    assert [part.date for part in snapshot.recent] == [date(3)]
    assert set(snapshot.days) == {(A, DATE), (B, DATE), (C, DATE)}
    for day in snapshot.days.values():
        assert len(day.parts) == 1
        assert day.sessions
    assert all(snapshot.is_settled(site, DATE) for site in (A, B, C))
    assert compacting.telemetry.compacted == {"compaction": 5}


def test_late_events_change_the_visits_of_their_site_and_leave_other_sites_alone(
    compacting: Compacting,
) -> None:
    compacting.stored.flush(0, A, B)
    compacting.run(day=3)
    before = compacting.snapshot
    compacting.stored.publish([make_event(site_id=B, visitor_id=77)])
    assert not compacting.snapshot.is_settled(B, DATE)
    compacting.run(day=3)
    after = compacting.snapshot
    assert after.days[A, DATE] == before.days[A, DATE]
    assert after.is_settled(B, DATE)
    assert [part.rows for part in after.days[B, DATE].parts] == [2]
    sessions = after.days[B, DATE].sessions
    assert sessions
    assert sessions.rows == 2


def test_a_site_without_visits_has_a_file_that_says_so(compacting: Compacting) -> None:
    compacting.stored.publish(
        [make_event(site_id=A, visitor_id=None), make_event(site_id=B, visitor_id=5)]
    )
    compacting.run(day=3)
    days = compacting.snapshot.days
    rows = {site: sessions.rows for (site, _), day in days.items() if (sessions := day.sessions)}
    assert rows == {A: 0, B: 1}


@pytest.mark.parametrize("visitors", [1, 97])  # alone, one sends all of a day
def test_a_site_too_large_for_memory_is_read_in_runs_and_written_in_order(
    compacting: Compacting, tmp_path: Path, visitors: int
) -> None:
    events = [
        make_event(
            site_id=A if i % 4 else B,
            timestamp=NOON_US + (i * 7 % 400) * 60_000_000 // visitors,
            visitor_id=(i % visitors or None) if visitors > 1 else 5,
            event_name=("pageview", "signup", "pageview")[i % 3],
            event_type=("page", "track", "page")[i % 3],
            pathname=f"/{i % 3}",
        )
        for i in range(2_000)
    ]
    compacting.stored.publish(events)
    (recent,) = compacting.snapshot.recent
    with connect(StoreConfig(threads=2), tmp_path) as connection:
        connection.execute("SET VARIABLE rows_bytes = 10000")
        source = rows_of([compacting.store.source(recent)])
        written = write_days(compacting.store, connection, DATE, source)
        compacting.store.swap(Change("compaction", added=tuple(written), removed=(recent,)))
        for day in compacting.snapshot.days.values():
            (part,) = day.parts
            rows = annotated_rows_of([compacting.store.source(part)])
            make_shapes(connection, rows)
            rows = gathered(shaped(rows))
            ordered = connection.sql(
                f"SELECT position, visitor_id, visit FROM ({rows}) ORDER BY {LEVEL_1_ORDER}"
            ).to_arrow_table()
            visitor_id, visit = (ordered[name].combine_chunks() for name in ("visitor_id", "visit"))
            assert (
                pq.read_table(compacting.store.source(part))["position"].to_pylist()
                == ordered["position"].take(turns(visitor_id, visit)).to_pylist()
            )
    assert sessions_of(compacting) == expected_sessions(events)


def sessions_of(compacting: Compacting) -> list[dict[str, Any]]:
    sources = [
        compacting.store.source(day.sessions)
        for day in compacting.snapshot.days.values()
        if day.sessions
    ]
    rows = ask(
        "SELECT * FROM read_parquet($1, hive_partitioning = false) "
        "ORDER BY site_id, visitor_id, visit",
        [sources],
    )
    return [dict(zip(SESSION_SCHEMA.names, row, strict=True)) for row in rows]


def expected_sessions(events: list[Event]) -> list[dict[str, Any]]:
    found = (visit.row() for visit in oracle.visits(oracle.store(events)))
    return sorted(found, key=lambda row: (row["site_id"], row["visitor_id"], row["visit"]))


def test_what_is_written_says_to_which_visit_each_event_belongs(compacting: Compacting) -> None:
    events = [
        make_event(site_id=A, timestamp=NOON_US + i * 20 * 60_000_000, visitor_id=1 + i % 2)
        for i in range(6)
    ]
    compacting.stored.publish(events)
    compacting.run(day=3)
    (day,) = compacting.snapshot.days.values()
    source = annotated_rows_of([compacting.store.source(day.parts[0])])
    rows = ask(f"SELECT position, visit FROM ({source})")
    assert dict(rows) == oracle.visit_by_position(oracle.store(events))


def test_on_a_disk_with_little_room_it_waits_and_says_so(compacting: Compacting) -> None:
    compacting.stored.flush(0, A)
    compacting.room_bytes = 2 * compacting.snapshot.recent[0].size_bytes - 1
    compacting.run(day=3)
    assert not compacting.snapshot.days
    (problem,) = compacting.compactor.problems
    assert problem.startswith(f"{DATE} is not compacted: it needs ")
    assert compacting.telemetry.failures == {}
    compacting.room_bytes += 1
    compacting.run(day=3)
    assert compacting.snapshot.recent == ()
    assert compacting.compactor.problems == []


def test_a_damaged_part_is_set_aside_and_the_others_are_compacted(
    compacting: Compacting, tmp_path: Path
) -> None:
    compacting.stored.flush(0, A)
    compacting.stored.flush(0, A, B)
    damaged = compacting.snapshot.recent[0]
    path = tmp_path / damaged.location
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    compacting.run(day=3)
    assert [part for part, _ in compacting.snapshot.quarantined] == [damaged]
    assert compacting.telemetry.failures == {"compaction": 1}
    compacting.run(day=3)
    assert compacting.snapshot.recent == ()
    assert compacting.stored.positions() == [2, 3]
    assert compacting.compactor.problems == []


def test_a_commit_that_fails_is_counted_leaves_nothing_and_is_tried_again(
    compacting: Compacting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(compacting.stored.clock, "monotonic", lambda: now)
    compacting.stored.flush(0, A)
    before = compacting.snapshot
    compacting.files.fail = "before"
    compacting.run(day=3)
    assert compacting.snapshot == before
    assert compacting.telemetry.failures == {"compaction": 1}
    compacting.files.fail = ""
    compacting.run(day=3)  # not at once: what failed may be what takes long
    assert compacting.snapshot == before
    now = RETRY_SECONDS
    compacting.run(day=3)
    assert compacting.snapshot.is_settled(A, DATE)
    assert compacting.compactor.problems == []
    files = [path for path in tmp_path.glob("*/site_id=*/*/*") if path.is_file()]
    assert len(files) == 2  # a part and its visits; the first attempt left nothing


def test_one_date_that_fails_does_not_keep_others_waiting(
    compacting: Compacting, monkeypatch: pytest.MonkeyPatch
) -> None:
    compacting.stored.flush(0, A)
    compacting.stored.flush(1, A)
    write = compacting.store.day_writer

    def day_writer(site_id: str, day: str, **options: Any) -> Any:
        if day == DATE:
            raise RuntimeError("something of this date")
        return write(site_id, day, **options)

    monkeypatch.setattr(compacting.store, "day_writer", day_writer)
    compacting.run(day=3)
    assert [part.date for part in compacting.snapshot.recent] == [DATE]
    assert (A, date(1)) in compacting.snapshot.days
    assert compacting.compactor.problems == [f"{DATE} is not compacted: something of this date"]


def test_an_interrupted_compaction_did_not_happen_and_is_no_failure(
    compacting: Compacting, monkeypatch: pytest.MonkeyPatch
) -> None:
    compacting.stored.flush(0, A)
    compacting.stored.flush(1, A)
    before = compacting.snapshot
    write, begun, interrupted = compacting.store.day_writer, threading.Event(), threading.Event()

    def day_writer(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert interrupted.wait(10)
        return write(*arguments, **options)

    monkeypatch.setattr(compacting.store, "day_writer", day_writer)
    thread = threading.Thread(target=compacting.run, args=(3,))
    thread.start()
    assert begun.wait(10)
    while thread.is_alive():
        compacting.compactor.interrupt()
        interrupted.set()
        thread.join(0.001)
    assert compacting.snapshot == before
    assert compacting.telemetry.failures == {}


def test_nothing_is_left_of_what_was_spilled(compacting: Compacting, tmp_path: Path) -> None:
    compacting.stored.flush(0, A)
    compacting.run(day=3)
    assert list((tmp_path / SPILLED).iterdir()) == []
    (tmp_path / SPILLED / "crashed").mkdir()
    (tmp_path / SPILLED / "crashed" / "spilled.tmp").write_bytes(b"events")
    remove_spilled(tmp_path)
    assert not (tmp_path / SPILLED).exists()
    remove_spilled(tmp_path)


def write_and_die(store: Writing, connection: DuckDBPyConnection, work: Merge | Settle) -> None:
    """Write what there is to write, and never come to an end."""
    write(store, connection, work)
    os.kill(os.getpid(), signal.SIGKILL)


def write_and_wait_for_idle_time(
    store: Writing, connection: DuckDBPyConnection, work: Merge | Settle
) -> Change:
    """Write what there is to write; in idle time, say so and never come to an end."""
    change = write(store, connection, work)
    if os.sched_getscheduler(0) != os.SCHED_IDLE:
        return change
    part = work.parts[0]
    data = Path(store.source(part).removesuffix(part.location))
    (data / "waits").touch()
    while True:
        signal.pause()


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compacting]:
    monkeypatch.setattr("mallard.jobs.worker.ROWS_APART", 3)
    made = Compacting(tmp_path, Apart())
    yield made
    made.stored.close()


def test_much_is_compacted_in_a_process_of_its_own(
    apart: Compacting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mallard.jobs.worker.connect", None)  # of this process
    apart.stored.flush(0, A, B)
    apart.stored.flush(0, A, B)
    apart.run()
    apart.stored.flush(0, A)
    apart.run(day=3)
    assert history(apart) == ["flush", "flush", "merge", "flush", "compaction"]
    assert apart.snapshot.is_settled(A, DATE)
    assert apart.stored.positions() == [1, 2, 3, 4, 5]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has idle time")
def test_what_gets_no_idle_time_is_done_once_more_beside_the_server(
    apart: Compacting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart.stored.flush(0, A, B)
    apart.stored.flush(0, A)
    monkeypatch.setattr("mallard.jobs.compaction.write", write_and_wait_for_idle_time)
    monkeypatch.setattr("mallard.jobs.apart.LOOK_SECONDS", 0.001)
    monkeypatch.setattr(
        "mallard.jobs.apart.lacks_idle_time", lambda *_: (tmp_path / "waits").exists()
    )
    apart.run(day=3)
    assert (tmp_path / "waits").exists()
    assert apart.compactor.problems == []
    assert history(apart) == ["flush", "flush", "compaction"]
    assert apart.stored.positions() == [1, 2, 3]
    assert list((tmp_path / SPILLED).iterdir()) == []
    visits = [day.sessions for day in apart.snapshot.days.values() if day.sessions]
    live = {apart.store.source(part) for part in apart.snapshot.parts}
    live |= {apart.store.source(file) for file in visits}
    retired = {apart.store.source_of_retired(each) for each in apart.store.retired()}
    there = {str(path) for path in tmp_path.rglob("*.parquet*") if "empty" not in path.name}
    assert there == live | retired


def test_a_process_that_dies_leaves_nothing_and_the_server_goes_on(
    apart: Compacting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart.stored.flush(0, A, B)
    apart.stored.flush(0, A)
    monkeypatch.setattr("mallard.jobs.compaction.write", write_and_die)
    apart.run(day=3)
    assert apart.compactor.problems == [f"{DATE} is not compacted: its process ended with -9"]
    assert [part.level for part in apart.snapshot.parts] == [0, 0]
    parts = {apart.store.source(part) for part in apart.snapshot.parts}
    assert {str(path) for path in tmp_path.rglob("*.parquet*") if "empty" not in path.name} == parts
    assert list((tmp_path / SPILLED).iterdir()) == []
    monkeypatch.undo()
    later = apart.stored.clock.monotonic() + RETRY_SECONDS
    monkeypatch.setattr(apart.stored.clock, "monotonic", lambda: later)
    apart.run(day=3)
    assert apart.compactor.problems == []
    assert apart.stored.positions() == [1, 2, 3]
