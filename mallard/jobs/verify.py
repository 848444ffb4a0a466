"""Checks a data folder against its manifest: every file's bytes, every row, every log frame.

It reads files piece by piece, so that their size does not bound the memory it takes, and changes
nothing of what is stored. A server may run meanwhile: what vanishes because it was compacted is
looked for again in a newer manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import duckdb

from mallard.buffer.wal import LogReport, first_logged, gone_text, read_log
from mallard.errors import StorageError
from mallard.files import Files
from mallard.jobs.contents import content_problem, deeper, sums_problem, visits_problem
from mallard.jobs.summing import Summed
from mallard.query.rollup import cut_of, is_true
from mallard.store import partition
from mallard.store.folder import Folder
from mallard.store.manifest import Version
from mallard.store.part import Derived, Part
from mallard.store.reader import DATABASE, NEW_DATABASE, LocalReader
from mallard.store.snapshot import SiteDay, Snapshot

# How often files may vanish, because they were compacted meanwhile, before we give up.
TRIES = 100
# Of how many site-days visits are told apart again, unless all are asked for.
SAMPLED_DAYS = 8

File = Part | Derived
Told = Callable[[int, int], None]  # bytes that were read, of how many


@dataclass(slots=True)
class Findings:
    """What a check saw. problems: sentences, each with what is wrong; none when all is well.

    derived: files of visits and sums. days: whose visits were told apart again.
    retired: files that are no longer live and are not read here.
    """

    parts: int = 0
    part_rows: int = 0
    part_bytes: int = 0
    derived: int = 0
    derived_bytes: int = 0
    days: int = 0
    retired: int = 0
    retired_bytes: int = 0
    log_events: int = 0
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def verify(
    data: Path,
    files: Files,
    *,
    days: int | None = SAMPLED_DAYS,
    told: Told = lambda _, __: None,
) -> Findings:
    """Read everything in a data folder and compare it with the manifest.

    days: of how many compacted site-days the visits are told apart again; None: of all, and the
    sums of all months are made again too. Raises StorageError when it is no data folder.
    """
    findings = Findings()
    with LocalReader(data, files) as store:
        watermark = store.snapshot().watermark
        report, last = LogReport(), watermark
        for frame in read_log(data / "wal", files, watermark, report):
            last = frame.last_position
        # Before the manifest, or what is flushed meanwhile would seem to be in neither.
        folder, begins = Folder(data, files), first_logged(data, files)
        there = list(folder.locations())
        snapshot = _check_files(data, files, store, findings, told)
        history = _history(store, snapshot)
        known = store.manifest.known()
        retired = store.manifest.retired()
        known |= {partition.retired(each.file.location) for each in retired}
        # Of this moment's snapshot: what the other names may have been compacted meanwhile.
        others = set(folder.others(known)).intersection(there)
        only = set(folder.only_here(others, store.snapshot(), begins))
        if damage := store.manifest.damage():
            findings.problems.append(
                f"{DATABASE} is damaged ({damage.splitlines()[-1]}). Restore it from a backup."
            )
        with deeper(data) as connection:
            _check_visits(store, snapshot, _sample(snapshot, days), connection, findings)
            if days is None:
                _check_sums(store, snapshot, connection, findings)
    findings.retired = len(retired)
    findings.retired_bytes = sum(each.file.size_bytes for each in retired)
    findings.log_events = max(0, last - snapshot.watermark)
    log_problems(report, snapshot.watermark, findings.notes, findings.problems)
    for part, reason in snapshot.quarantined:
        findings.problems.append(
            f"{part.location} {reason}: its {part.rows} events are missing from every answer. "
            f"Put the file back from a backup and start the server, which takes it in again."
        )
    _count(snapshot, history, findings)
    if only and NEW_DATABASE not in files.names(data):
        findings.problems.append(
            f"{len(only)} files, such as {min(only)}, hold events that are nowhere else, and "
            f"{DATABASE} does not know them: `mallard doctor` says what to do."
        )
    findings.notes += [
        f"{location} is not in the manifest; the next start removes it"
        for location in there
        if location not in known | only and (data / location).exists()
    ]
    return findings


def log_problems(report: LogReport, watermark: int, notes: list[str], problems: list[str]) -> None:
    """Add what is wrong with a log that was read, where a store has events up to watermark."""
    if report.torn_bytes:
        notes.append(
            f"the log ends in {report.torn_bytes} bytes of a write that never finished, or has "
            "not yet; nothing in them was acknowledged"
        )
    for name, damage in report.damaged:
        problems.append(
            f"wal/{name} is damaged: {damage.length} bytes from {damage.offset} on are no frame."
        )
    for first, end in report.missing:
        if end > watermark:  # else a flush moved them to parts while we were reading
            problems.append(
                f"{end - first + 1} events, positions {first} to {end}, are in no log segment "
                "and in no part."
            )
    problems += report.unusable
    problems += [f"{gone_text(*gone)}; put it back if you have it." for gone in report.gone]


def _check_files(
    data: Path, files: Files, store: LocalReader, findings: Findings, told: Told
) -> Snapshot:
    """Check all live files; return the snapshot they are of."""
    checked: dict[str, str | None] = {}  # by location, what is wrong
    for _ in range(TRIES):
        snapshot = store.snapshot()
        left = [file for file in snapshot.files if file.location not in checked]
        whole, done, vanished = sum(file.size_bytes for file in left), 0, []
        for file in left:
            told(done, whole)
            done += file.size_bytes
            try:
                checked[file.location] = _problem(data, files, file)
            except FileNotFoundError:
                vanished.append(file)
        now = store.snapshot() if vanished else snapshot
        still = {file.location for file in now.files}
        for file in vanished:
            if file.location in still:
                problem = "cannot be read (No such file or directory)."
                checked[file.location] = _lost(file, problem)
        if all(file.location in checked for file in now.files):
            _tell(now, checked, findings)
            return now
    raise StorageError(f"{data} changes faster than it can be read; try again later.")


def _problem(data: Path, files: Files, file: File) -> str | None:
    """Return what is wrong with a file; raises FileNotFoundError."""
    digest = sha256()
    try:
        for piece in files.chunks(data / file.location):
            digest.update(piece)
    except FileNotFoundError:
        raise
    except OSError as error:
        return _lost(file, f"cannot be read ({error.strerror}).")
    if digest.hexdigest() != file.digest:
        return _lost(
            file, "is not the file that was written: its SHA-256 differs from the manifest's."
        )
    problem = content_problem(data / file.location, file)
    return _lost(file, problem) if problem and isinstance(file, Derived) else problem


def _lost(file: File, problem: str) -> str:
    """Return a problem with what to do about it."""
    if isinstance(file, Derived):
        return f"{problem} It can be made again: remove it and start the server."
    return (
        f"{problem} Put it back from a backup; a server that starts without it leaves its "
        f"{file.rows} events out of every answer, and says so."
    )


def _tell(snapshot: Snapshot, checked: dict[str, str | None], findings: Findings) -> None:
    for part in snapshot.parts:
        findings.parts += 1
        if problem := checked[part.location]:
            findings.problems.append(f"{part.location} {problem}")
        else:
            findings.part_rows += part.rows
            findings.part_bytes += part.size_bytes
    for file in snapshot.derived:
        findings.derived += 1
        findings.derived_bytes += file.size_bytes
        if problem := checked[file.location]:
            findings.problems.append(f"{file.location} {problem}")


def _sample(snapshot: Snapshot, count: int | None) -> list[SiteDay]:
    """Return so many site-days, evenly spread; None: all."""
    days = sorted(snapshot.days)
    if count is None or len(days) <= count:
        return days
    return [days[number * len(days) // count] for number in range(count)]


def _check_visits(
    store: LocalReader,
    snapshot: Snapshot,
    days: Sequence[SiteDay],
    connection: duckdb.DuckDBPyConnection,
    findings: Findings,
) -> None:
    for site_id, date in days:
        day = snapshot.days[site_id, date]
        sessions = store.source(day.sessions) if day.sessions else None
        sources = [store.source(part) for part in day.parts]
        try:
            wrong = visits_problem(connection, sources, sessions)
        except duckdb.Error as error:
            wrong = _unreadable([*sources, *([sessions] if sessions else [])], error)
        else:
            findings.days += 1
        if wrong:
            findings.problems.append(f"{site_id} on {date}: {wrong}.")


def _check_sums(
    store: LocalReader,
    snapshot: Snapshot,
    connection: duckdb.DuckDBPyConnection,
    findings: Findings,
) -> None:
    for (site_id, month), file in sorted(snapshot.rollups.items()):
        days = {
            date: Summed(
                site_id,
                sum(part.rows for part in day.parts),
                tuple(store.source(part) for part in day.parts),
                store.source(day.sessions),
                tuple(cut_of(file, date)),
            )
            for date in file.sources
            if (day := snapshot.days.get((site_id, date)))
            and is_true(file, date, day.version)
            and day.sessions
        }
        if not days:
            continue  # it says nothing of what is live
        sources = [source for day in days.values() for source in (*day.parts, day.visits)]
        sums = store.source(file)
        try:
            wrong = sums_problem(connection, days, file, sums)
        except duckdb.Error as error:
            wrong = _unreadable([*sources, sums], error)
        if wrong:
            findings.problems.append(f"{site_id} in {month}: {wrong}.")


def _history(store: LocalReader, snapshot: Snapshot) -> list[Version]:
    """Return the history up to a snapshot."""
    return [each for each in store.manifest.history() if each.version <= snapshot.version]


def _unreadable(sources: Sequence[str], error: duckdb.Error) -> str | None:
    """Return what is wrong when a query failed; None for files that were compacted meanwhile."""
    said = str(error).partition("\n")[0]
    return f"cannot be read ({said})" if all(Path(each).exists() for each in sources) else None


def _count(snapshot: Snapshot, history: list[Version], findings: Findings) -> None:
    """Compare the rows of all parts with the positions that were ever given.

    Positions go from 1 to the watermark. Each is in one part, or went with a retention or an
    erasure, of which the history says how many, or was lost from a damaged log.
    """
    parts = [*snapshot.parts, *(part for part, _ in snapshot.quarantined)]
    watermark = snapshot.watermark
    lost = sum(int(each.detail.get("lost_rows", 0)) for each in history)
    rows = sum(part.rows for part in parts) + lost
    positions = sum(part.position_sum for part in parts)
    positions += sum(int(each.detail.get("lost_position_sum", 0)) for each in history)
    if rows > watermark or (rows == watermark and positions != watermark * (watermark + 1) // 2):
        findings.problems.append(
            f"The parts hold {rows - lost} events and {lost} were removed, but positions up to "
            f"{watermark} were given: some events are stored twice."
        )
    elif rows < watermark:
        findings.notes.append(
            f"{watermark - rows} of the positions up to {watermark} hold no event that retention "
            "or an erasure took; they were lost with a damaged log, or never used"
        )
