"""Looks a data folder over: what is wrong with it, and what to do.

It reads the log, which is small, and what is said of files, not what is in them, which `verify`
does; it changes nothing, and a server may run meanwhile.
"""

from __future__ import annotations

import datetime
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path

from mallard.buffer.wal import LogReport, first_logged, read_log, segments
from mallard.clock import Clock, to_datetime, utc_date
from mallard.config import Config
from mallard.errors import StorageError
from mallard.files import Files, lock_holder
from mallard.jobs import expiry, policy, rollup
from mallard.jobs.verify import log_problems
from mallard.store import partition
from mallard.store.folder import Folder
from mallard.store.manifest import Version
from mallard.store.part import Part
from mallard.store.reader import DATABASE, LocalReader
from mallard.store.snapshot import Snapshot

# How long a running server may take with what it does by itself before it is a problem.
PATIENCE_SECONDS = 3_600.0
RULE_SECONDS = 86_400.0
# A clock may differ so much from the one that an earlier event was stored by.
CLOCK_SECONDS = 60.0
# With less room than so many times what is required, there is a note.
ROOM_FACTOR = 10
NAMES_SHOWN = 3


class Severity(Enum):
    """How bad it is; what is wrong has to be seen to."""

    OK = "ok"
    NOTE = "note"
    WRONG = "WRONG"


@dataclass(frozen=True, slots=True)
class Remark:
    """What was seen, and what to do about it where there is something to do."""

    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class _Patient:
    """What there is to look at. server: the process that runs on the folder, if one does."""

    data: Path
    config: Config
    files: Files
    now_us: int
    server: str | None
    snapshot: Snapshot
    history: list[Version]
    known: set[str]
    salts: str
    log: LogReport

    def unless_running(self, text: str, advice: str) -> Remark:
        """Judge what a running server should have done by itself."""
        if self.server:
            return Remark(Severity.WRONG, f"{text}: {advice}")
        return Remark(Severity.NOTE, f"{text}; a running server sees to it")


def examine(data: Path, config: Config, files: Files, clock: Clock, salts: str) -> list[Remark]:
    """Return what there is to say; salts: the folder they lie in."""
    try:
        with LocalReader(data, files) as store:
            log = LogReport()
            # Before the snapshot, as `read_log` asks for.
            deque(read_log(data / "wal", files, store.snapshot().watermark, log), maxlen=0)
            known = store.manifest.known()
            known |= {partition.retired(each.file.location) for each in store.manifest.retired()}
            patient = _Patient(
                data,
                config,
                files,
                clock.now_us(),
                lock_holder(data),
                store.snapshot(),
                store.manifest.history(),
                known,
                salts,
                log,
            )
    except StorageError as error:
        return [Remark(Severity.WRONG, error.detail)]
    return [remark for look in _LOOKS for remark in look(patient)]


def _folder(patient: _Patient) -> Iterator[Remark]:
    snapshot = patient.snapshot
    rows = sum(part.rows for part in snapshot.parts)
    count = sum(1 for _ in snapshot.parts)
    runs = f"process {patient.server} serves it" if patient.server else "no server runs on it"
    yield Remark(Severity.OK, f"{patient.data} holds {rows:,} events in {count:,} parts; {runs}.")


def _room(patient: _Patient) -> Iterator[Remark]:
    free = patient.files.free_bytes(patient.data)
    least = patient.config.buffer.free_bytes_min
    if free < least:
        yield Remark(
            Severity.WRONG,
            f"{free:,} bytes are free on the disk, and buffer.free_bytes_min is {least:,}: events "
            "are answered 503. Make room.",
        )
    elif free < ROOM_FACTOR * least:
        yield Remark(Severity.NOTE, f"{free:,} bytes are free on the disk; soon it is full.")
    else:
        yield Remark(Severity.OK, f"{free:,} bytes are free on the disk.")


def _rights(patient: _Patient) -> Iterator[Remark]:
    open_to_others = sorted(
        path.relative_to(patient.data).as_posix()
        for path in _everything(patient.data)
        if _mode(path) & (stat.S_IRWXG | stat.S_IRWXO)
    )
    if open_to_others:
        yield Remark(
            Severity.WRONG,
            f"{_some(open_to_others)} can be read by others than their owner: "
            f"chmod -R go-rwx {patient.data}",
        )


def _quarantine(patient: _Patient) -> Iterator[Remark]:
    for part, reason in patient.snapshot.quarantined:
        yield Remark(
            Severity.WRONG,
            f"{part.location} {reason}; its {part.rows:,} events are missing from every answer. "
            "Put the file back from a backup and start the server again. Retention removes it when "
            "its days are too old; an erasure that waits for it goes on without it after "
            "`mallard erasures discard RULE`.",
        )
    aside = patient.files.tree(patient.data / partition.QUARANTINE)
    if aside and not patient.snapshot.quarantined:
        yield Remark(
            Severity.NOTE,
            f"{partition.QUARANTINE}/ holds {_some(aside)}, which nothing needs. Neither retention "
            "nor an erasure reaches what nobody knows the days of: look at them and remove them.",
        )


def _harmed(patient: _Patient) -> Iterator[Remark]:
    folder = Folder(patient.data, patient.files)
    harmed = [(file, why) for file in patient.snapshot.files if (why := folder.problem(file))]
    parts = [file for file, _ in harmed if isinstance(file, Part)]
    if parts:
        named = _some([f"{file.location} {why}" for file, why in harmed if file in parts])
        yield Remark(
            Severity.WRONG,
            f"{named}. Put them back from a backup; a server that starts without them leaves "
            f"{sum(part.rows for part in parts):,} events out of every answer, and says so.",
        )
    if len(harmed) > len(parts):
        named = _some([f"{file.location} {why}" for file, why in harmed if file not in parts])
        yield Remark(Severity.NOTE, f"{named}. The next start has it made anew.")


def _strangers(patient: _Patient) -> Iterator[Remark]:
    folder = Folder(patient.data, patient.files)
    strange = folder.others(patient.known)
    if strange and not patient.server:
        begins = first_logged(patient.data, patient.files)
        only = folder.only_here(strange, patient.snapshot, begins)
        strange = [location for location in strange if location not in only]
        if only:
            yield Remark(
                Severity.WRONG,
                f"{_some(only)} hold events that are nowhere else, and {DATABASE} does not know "
                "them: it is older than they are, and no server starts. Put it back with its "
                f"{DATABASE}-wal, or restore a backup; or move the files away.",
            )
    # A running server is always about to commit some.
    if strange and not patient.server:
        yield Remark(
            Severity.NOTE,
            f"{_some(strange)} are not in the manifest; the next start removes them.",
        )


def _unsettled(patient: _Patient) -> Iterator[Remark]:
    config = patient.config.store
    patience = int((config.close_after_seconds + PATIENCE_SECONDS) * 1e6)
    late = patience + int(config.late_merge_seconds * 1e6)
    due = policy.plan(patient.snapshot, patient.now_us - patience, config)
    dates = sorted(
        {
            work.date
            for work in due
            if isinstance(work, policy.Settle)
            and all(part.last_loaded_at < patient.now_us - late for part in work.parts)
        }
    )
    if dates:
        yield patient.unless_running(
            f"{_some(dates)} are not compacted",
            "see compaction in the server's log, and its /health/ready.",
        )


def _derived(patient: _Patient) -> Iterator[Remark]:
    due = rollup.plan(patient.snapshot)
    if due:
        names = [f"{work.site_id} {work.month}" for work in due]
        # They are made within minutes of the day they are of; reports are right without.
        yield Remark(
            Severity.NOTE,
            f"Visits or sums of {_some(names)} are to be made; reports read events meanwhile.",
        )


def _rules(patient: _Patient) -> Iterator[Remark]:
    for rule in patient.snapshot.rules:
        age = (patient.now_us - rule.created_at) / 1e6
        if age > patient.config.erasure.grace_seconds + RULE_SECONDS:
            yield patient.unless_running(
                f"The rule {rule.rule_id} is applied to every read since "
                f"{to_datetime(rule.created_at):%Y-%m-%d}",
                "see erasure in the server's log, and `mallard erasures`.",
            )


def _log(patient: _Patient) -> Iterator[Remark]:
    notes: list[str] = []
    problems: list[str] = []
    log_problems(patient.log, patient.snapshot.watermark, notes, problems)
    yield from (Remark(Severity.WRONG, problem) for problem in problems)
    yield from (Remark(Severity.NOTE, note) for note in notes)


def _waiting(patient: _Patient) -> Iterator[Remark]:
    found = segments(patient.data / "wal", patient.files)
    watermark = patient.snapshot.watermark
    covered = [name for (_, name), (end, _) in pairwise(found) if end <= watermark + 1]
    if covered:
        yield Remark(
            Severity.NOTE,
            f"wal/ holds {_some(covered)}, whose events are in parts; the server removes them.",
        )
    wait = patient.config.buffer.flush_interval_seconds + PATIENCE_SECONDS
    last = max((each.committed_at for each in patient.history if each.reason == "flush"), default=0)
    size = sum(_size(patient, name) for _, name in found)
    if size and patient.now_us - max(last, _changed_us(patient, found)) > wait * 1e6:
        yield patient.unless_running(
            f"wal/ holds events that are in no part yet, in files of {size:,} bytes",
            "see flush in the server's log, and its /health/ready.",
        )


def _salts(patient: _Patient) -> Iterator[Remark]:
    yesterday = (utc_date(patient.now_us) - datetime.timedelta(days=1)).isoformat()
    names = patient.files.names(patient.data / patient.salts)
    old = [name for name in names if name[:10] < yesterday]
    if old:
        yield Remark(
            Severity.WRONG,
            f"{patient.salts}/ holds {_some(old)}: with them visitors of these days can be "
            "told by their address. Start the server, which destroys them.",
        )


def _clock(patient: _Patient) -> Iterator[Remark]:
    ahead = (patient.snapshot.last_loaded_at - patient.now_us) / 1e6
    if ahead > CLOCK_SECONDS:
        at = to_datetime(patient.snapshot.last_loaded_at)
        yield Remark(
            Severity.WRONG,
            f"The newest event was stored at {at:%Y-%m-%d %H:%M:%S} UTC, which is to come by this "
            "machine's clock. Set the clock.",
        )


def _places(patient: _Patient) -> Iterator[Remark]:
    database = patient.config.geo.database
    if database is not None and not database.is_file():
        yield Remark(
            Severity.WRONG,
            f"geo.database names {database}, which is no file: events have no place. Download it "
            "again, or leave the setting out.",
        )


def _retention(patient: _Patient) -> Iterator[Remark]:
    old = expiry.plan(patient.snapshot, patient.config.retention, utc_date(patient.now_us))
    if old.days:
        yield Remark(
            Severity.NOTE,
            f"{len(old.days):,} site-days are older than retention keeps, and go with the next "
            "run; `mallard retention` shows them.",
        )


def _killed(patient: _Patient) -> Iterator[Remark]:
    # What a killed SQLite leaves is no harm, but for a server that is gone it is worth a word.
    log = patient.data / f"{DATABASE}-wal"
    if not patient.server and log.exists() and patient.files.size(log):
        yield Remark(
            Severity.NOTE,
            f"The server was not stopped, it was killed; {log.name} belongs to {DATABASE}, and the "
            "next start puts it in.",
        )


_LOOKS: tuple[Callable[[_Patient], Iterator[Remark]], ...] = (
    _folder,
    _room,
    _rights,
    _clock,
    _quarantine,
    _harmed,
    _log,
    _waiting,
    _unsettled,
    _derived,
    _rules,
    _retention,
    _strangers,
    _salts,
    _places,
    _killed,
)


def _everything(data: Path) -> Iterator[Path]:
    yield data
    for root, folders, names in os.walk(data):
        yield from (Path(root) / name for name in (*folders, *names))


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:  # compacted meanwhile
        return 0


def _size(patient: _Patient, name: str) -> int:
    try:
        return patient.files.size(patient.data / "wal" / name)
    except FileNotFoundError:  # flushed meanwhile
        return 0


def _changed_us(patient: _Patient, found: list[tuple[int, str]]) -> int:
    """When the oldest segment was last written to: what is in it waits at least since then."""
    try:
        path = patient.data / "wal" / found[0][1]
        return path.stat().st_mtime_ns // 1000
    except (FileNotFoundError, IndexError):
        return patient.now_us


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    more = len(names) - NAMES_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown
