"""Builds the rooms, starts them in order and stops them in the reverse one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from mallard.accounts.accounts import Accounts
from mallard.buffer.buffer import Buffer
from mallard.buffer.wal import LogReport, first_logged, gone_text
from mallard.clock import Clock
from mallard.config import Config, GeoConfig
from mallard.control import Control
from mallard.errors import ConfigError, StorageError
from mallard.files import Files, FolderLock
from mallard.ingest.admission import Admission
from mallard.ingest.bots import Bots
from mallard.ingest.enrichment import Enricher
from mallard.ingest.geo import Places
from mallard.ingest.hindsight import ATTRIBUTED_BY, Hindsight
from mallard.ingest.pipeline import Pipeline
from mallard.ingest.rate_limit import RateLimit
from mallard.ingest.referrer import Referrers
from mallard.ingest.user_agent import UserAgents
from mallard.ingest.visitor import Visitors
from mallard.jobs.apart import Apart
from mallard.jobs.checking import Checking
from mallard.jobs.compaction import Compactor
from mallard.jobs.database import remove_spilled
from mallard.jobs.erasure import Erasure
from mallard.jobs.expiry import Expiry
from mallard.jobs.flush import Flusher
from mallard.jobs.recent import RecentWriter
from mallard.jobs.reclassify import Reclassification
from mallard.jobs.requests import answers
from mallard.jobs.rollup import Rollups
from mallard.jobs.schedule import Job, Schedule
from mallard.query.answers import Answers
from mallard.query.engine import Engine
from mallard.query.newest import NewestPart
from mallard.query.plausible.segments import check_segment
from mallard.query.sandbox import Sandbox
from mallard.query.shell_script import ShellScript
from mallard.query.tail import Tail
from mallard.store.local import LocalStore
from mallard.store.reader import DATABASE
from mallard.telemetry import Telemetry
from mallard.transfer.exporter import Exporter

# Salts are made ahead of midnight and destroyed soon after it.
SALT_PERIOD_SECONDS = 30.0
GEO_PERIOD_SECONDS = 60.0
COMPACTION_PERIOD_SECONDS = 10.0
ROLLUP_PERIOD_SECONDS = 60.0
SWEEP_PERIOD_SECONDS = 10.0
CHECK_PERIOD_SECONDS = 10.0
EXPIRY_PERIOD_SECONDS = 900.0
ERASURE_PERIOD_SECONDS = 1.0  # it costs nothing while no rule is active

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the server can do its work.

    checks: what was looked at, "ok" or what is wrong. notes: what a person should look into
    although the server does its work, such as a damaged file that was set aside.
    """

    checks: dict[str, str]
    notes: list[str]

    @property
    def ready(self) -> bool:
        """Whether every check is ok."""
        return all(result == "ok" for result in self.checks.values())


class Server:
    """All rooms of one server over one data folder."""

    def __init__(
        self, config: Config, *, files: Files | None = None, clock: Clock | None = None
    ) -> None:
        """Take the data folder and open what lies in it.

        Raises StorageError when another server has the folder or it cannot be read, and ConfigError
        for a setting that names what is not there.
        """
        self.config = config
        self.files = files or Files()
        self.clock = clock or Clock()
        self.telemetry = Telemetry()
        self.data: Path = config.server.data
        self.files.make_folder(self.data)
        self._lock = FolderLock(self.data)
        try:
            self._build()
        except BaseException:
            self._lock.release()
            raise

    def _build(self) -> None:
        config, files, clock = self.config, self.files, self.clock
        script = ShellScript(self.data, files, clock)
        self.store = LocalStore(
            self.data, files, clock, script.tell, first_logged(self.data, files)
        )
        self.accounts = Accounts(self.data / DATABASE, clock, check_segment)
        self.buffer = Buffer(
            config.buffer, self.data, files, clock, self.telemetry, self.store.node
        )
        self.flusher = Flusher(
            config.buffer,
            self.buffer,
            self.store,
            clock,
            self.telemetry,
            RecentWriter(self.data, clock, [self._lock.descriptor]),
        )
        self.visitors = Visitors(config.privacy, self.data, files)
        self.places = _places(config.geo)
        bots, referrers = Bots(), Referrers(config.ingest.blocked_referrers)
        self.pipeline = Pipeline(
            Admission(
                config.ingest, config.privacy, bots, referrers, RateLimit(config.ingest, clock)
            ),
            Enricher(UserAgents(), self.visitors, self.places, referrers),
            self.buffer,
            clock,
            self.telemetry,
        )
        self.schedule = Schedule(
            [
                Job("salts", SALT_PERIOD_SECONDS, self._turn_salts),
                Job("geo", GEO_PERIOD_SECONDS, self._reload_places),
            ],
            clock,
            self.telemetry,
        )
        self._build_maintenance(Hindsight(bots, referrers))
        self.newest_part = NewestPart(self.store)
        self.engine = Engine(config.query, self.data)
        self.tail = Tail(self.buffer)
        self.answers = Answers(self.store, self.tail, config.query.cache_bytes)
        self.sandbox = Sandbox(config.query, self.data, self.store, self.tail)
        self.exporter = Exporter(
            self.store, self.tail, self.sandbox, config.query.export_timeout_seconds
        )
        self._log_notes: list[str] = []
        self._measure()

    def _build_maintenance(self, judge: Hindsight) -> None:
        config, clock = self.config, self.clock
        remove_spilled(self.data)
        apart = Apart([self._lock.descriptor])
        self.compactor = Compactor(
            config.store,
            self.store,
            self.data,
            self._room_bytes,
            clock,
            self.telemetry,
            apart,
        )
        self.rollups = Rollups(
            config.store,
            self.store,
            self.data,
            self._room_bytes,
            clock,
            self.telemetry,
            lambda: self.accounts.directory_now().zones,
            apart,
        )
        self._build_erasure(judge)
        self.expiry = Expiry(config.retention, self.store, clock)
        self.checking = Checking(
            self.store, lambda: self.engine.failures + self.sandbox.failures, clock
        )
        # A thread of its own: its jobs take long, and salts have to go when their time has come.
        self.maintenance = Schedule(
            [
                Job("compaction", COMPACTION_PERIOD_SECONDS, self.compactor.run),
                Job("erasure", ERASURE_PERIOD_SECONDS, self.erasure.run),
                Job("expiry", EXPIRY_PERIOD_SECONDS, self.expiry.run),
                Job("rollup", ROLLUP_PERIOD_SECONDS, self._roll_up),
                Job("sweep", SWEEP_PERIOD_SECONDS, self._sweep),
                Job("check", CHECK_PERIOD_SECONDS, self.checking.run),
            ],
            clock,
            self.telemetry,
            "mallard-maintenance",
        )

    def _build_erasure(self, judge: Hindsight) -> None:
        work, data = self.config.store, self.data
        self.erasure = Erasure(
            self.config.erasure,
            work,
            data,
            self.files,
            self.store,
            self.buffer,
            self.flusher,
            self.clock,
        )
        reclassification = Reclassification(
            work, data, self.store, self.flusher, judge, judge.attribute, ATTRIBUTED_BY
        )
        self.control = Control(data, self.files, answers(self.erasure, reclassification))

    def start(self) -> None:
        """Recover what the log holds and begin to accept events."""
        self.accounts.start()
        self._turn_salts()
        snapshot = self.store.snapshot()
        report = self.buffer.start(
            snapshot.watermark, snapshot.last_loaded_at, self.flusher.notice_commit
        )
        self._log_notes = _log_notes(report)
        self.flusher.start()
        self.schedule.start()
        self.maintenance.start()
        self.control.start()

    def stop(self) -> None:
        """Settle what was accepted, flush it, and let the folder go."""
        self.control.stop(self._interrupt_maintenance)
        self.engine.close()
        self.sandbox.close()
        self.newest_part.close()
        self.maintenance.stop(self._interrupt_maintenance)
        self.schedule.stop()
        self.buffer.close()
        self.flusher.stop()
        self.accounts.close()
        self._sweep_for_good()
        self.store.close()
        self._lock.release()

    def health(self) -> Health:
        """Look at the log, the disk and the flusher, and read a part for real."""
        free = self.files.free_bytes(self.data)
        low = free < self.config.buffer.free_bytes_min
        try:
            self.newest_part.read()
            store = "ok"
        except StorageError as error:
            store = str(error)
        checks = {
            "log": self.buffer.failure or "ok",
            "disk": f"{free} bytes are free, too few to go on" if low else "ok",
            "flush": self.flusher.failure or "ok",
            "store": store,
        }
        notes = [
            f"{part.location} {reason}; its {part.rows} events are missing from answers"
            for part, reason in self.store.snapshot().quarantined
        ]
        problems = self.compactor.problems + self.erasure.problems + self.rollups.problems
        return Health(checks, notes + self._log_notes + problems)

    def _room_bytes(self) -> int:
        """What may be written without taking what a flush needs."""
        return self.files.free_bytes(self.data) - self.config.buffer.free_bytes_min

    def _interrupt_maintenance(self) -> None:
        self.compactor.interrupt()
        self.erasure.interrupt()
        self.rollups.interrupt()
        self.checking.interrupt()

    def _roll_up(self) -> None:
        self.rollups.run()

    def _sweep(self) -> None:
        self.store.sweep()

    def _sweep_for_good(self) -> None:
        """Remove what lay there for readers elsewhere: the folder then has each event once."""
        try:
            self.store.sweep(hurry=True)
        except StorageError as error:  # the next start's job
            _log.warning("replaced files stay until the next start: %s", error.detail)

    def _turn_salts(self) -> None:
        now = self.clock.now_us()
        try:
            self.visitors.prepare(now)
        finally:
            # A disk that takes no new salt is no reason to keep an old one.
            self.visitors.destroy_expired(now)

    def _reload_places(self) -> None:
        self.places.reload_if_changed()

    def _measure(self) -> None:
        gauge, ring = self.telemetry.gauge, self.buffer.ring
        capacity = self.config.buffer.capacity_events
        gauge("mallard_ring_events", "Events not yet in Parquet.", lambda: ring.events)
        gauge("mallard_ring_bytes", "What those events took in the log.", lambda: ring.size_bytes)
        gauge("mallard_ring_fill_ratio", "How full it is.", lambda: ring.events / capacity)
        gauge("mallard_log_segments", "Files of the log.", lambda: self.buffer.wal.segment_count)
        gauge(
            "mallard_parts",
            "Live Parquet files of events.",
            lambda: sum(1 for _ in self.store.snapshot().parts),
        )
        gauge(
            "mallard_parts_recent",
            "Those of them that compaction has not yet made one a site and date.",
            lambda: len(self.store.snapshot().recent),
        )
        gauge(
            "mallard_parts_quarantined",
            "Parquet files set aside as damaged.",
            lambda: len(self.store.snapshot().quarantined),
        )
        gauge(
            "mallard_parts_bytes",
            "Their size.",
            lambda: sum(part.size_bytes for part in self.store.snapshot().parts),
        )
        gauge(
            "mallard_stored_events",
            "Events in Parquet.",
            lambda: sum(part.rows for part in self.store.snapshot().parts),
        )
        gauge(
            "mallard_disk_free_bytes",
            "What the data folder's disk has left.",
            lambda: self.files.free_bytes(self.data),
        )


def _places(config: GeoConfig) -> Places:
    try:
        return Places(config.database)
    except StorageError as error:
        raise ConfigError(error.detail, field="geo.database") from error


def _log_notes(report: LogReport) -> list[str]:
    """Say what recovery found in the log; each thing once in the server's own log too."""
    notes = [
        f"wal/{name} was damaged: {damage.length} bytes from {damage.offset} on were no frame; "
        "the file goes to quarantine/"
        for name, damage in report.damaged
    ]
    notes += [
        f"{last - first + 1} events, positions {first} to {last}, were lost from the log"
        for first, last in report.missing
    ]
    notes += [gone_text(*gone) for gone in report.gone]
    for note in notes:
        _log.error("%s", note)
    if report.torn_bytes:
        _log.info("dropped %d bytes of writes that never finished", report.torn_bytes)
    if report.events:
        _log.info("took %d events back from the log", report.events)
    return notes
