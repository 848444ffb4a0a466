"""Checks a data folder against its manifest: every file's bytes, every row, every log frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mallard.buffer.wal import LogReport, read_log
from mallard.files import Files
from mallard.store.folder import EMPTY
from mallard.store.local import LocalReader
from mallard.store.part import Part
from mallard.store.partition import RECENT
from mallard.store.snapshot import Snapshot


@dataclass(slots=True)
class Findings:
    """What a check saw. problems: sentences, each with what is wrong; none when all is well."""

    parts: int = 0
    part_rows: int = 0
    part_bytes: int = 0
    log_events: int = 0
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def verify(data: Path, files: Files) -> Findings:
    """Read everything in a data folder and compare it with the manifest.

    A server may run on it meanwhile. Raises StorageError when it is no data folder.
    """
    findings = Findings()
    with LocalReader(data, files) as store:
        watermark = store.snapshot().watermark
        report = LogReport()
        log_last = watermark
        for frame in read_log(data / "wal", files, watermark, report):
            log_last = frame.last_position
        names = files.names(data / RECENT)
        snapshot = store.snapshot()
        known = store.manifest.known()
    _check_log(report, snapshot, log_last, findings)
    for part, reason in snapshot.quarantined:
        findings.problems.append(
            f"{part.location} {reason}: its {part.rows} events are missing from every answer. "
            f"Put the file back from a backup and start the server, which takes it in again."
        )
    for part in snapshot.parts:
        _check_part(data, files, part, findings)
    findings.notes += [
        f"{RECENT}/{name} is not in the manifest; the next start removes it"
        for name in names
        if name != EMPTY and f"{RECENT}/{name}" not in known
    ]
    return findings


def _check_log(report: LogReport, snapshot: Snapshot, last: int, findings: Findings) -> None:
    findings.log_events = max(0, last - snapshot.watermark)
    if report.torn_bytes:
        findings.notes.append(
            f"the log ends in {report.torn_bytes} bytes of a write that never finished, or has "
            "not yet; nothing in them was acknowledged"
        )
    for name, damage in report.damaged:
        findings.problems.append(
            f"wal/{name} is damaged: {damage.length} bytes from {damage.offset} on are no frame."
        )
    for first, end in report.missing:
        if end > snapshot.watermark:  # else a flush moved them to parts while we were reading
            findings.problems.append(
                f"{end - first + 1} events, positions {first} to {end}, are in no log segment "
                "and in no part."
            )


def _check_part(data: Path, files: Files, part: Part, findings: Findings) -> None:
    findings.parts += 1
    try:
        content = files.read(data / part.location)
    except OSError as error:
        findings.problems.append(f"{part.location} cannot be read ({error.strerror}).")
        return
    if sha256(content).hexdigest() != part.digest:
        findings.problems.append(
            f"{part.location} is not the file that was written: its SHA-256 differs from the "
            "manifest's. Restore it from a backup."
        )
        return
    # Without threads: Arrow's, begun shortly before the process ends, now and then abort it
    # ("terminate called without an active exception"), and the exit code would be wrong.
    with pq.ParquetFile(pa.BufferReader(content), pre_buffer=False) as file:
        positions = file.read(columns=["position"], use_threads=False)["position"]
    if len(positions) != part.rows or sum(positions.to_pylist()) != part.position_sum:
        findings.problems.append(f"{part.location} holds other rows than the manifest says.")
    findings.part_rows += part.rows
    findings.part_bytes += part.size_bytes
