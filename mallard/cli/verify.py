"""`mallard verify`: shows what a check of the data folder found."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from mallard.files import Files
from mallard.jobs import verify as jobs
from mallard.processes import give_way


def verify(data: Path, *, deep: bool = False) -> int:
    """Print what was looked at and what is wrong; return the exit code, 1 when anything is.

    deep: make all visits and sums again and compare them.

    Raises StorageError when the folder is no data folder.
    """
    give_way()
    console = Console(highlight=False, soft_wrap=True)
    with console.status(f"Reading {data} ...") as status:

        def told(done: int, whole: int) -> None:
            status.update(f"Reading {data} ... {done * 100 // max(1, whole)} %")

        findings = jobs.verify(data, Files(), days=None if deep else jobs.SAMPLED_DAYS, told=told)
    console.print(
        f"{findings.part_rows:,} events in {findings.parts:,} parts ({findings.part_bytes:,} bytes)"
        f" and {findings.log_events:,} in the log."
    )
    if findings.derived:
        console.print(
            f"{findings.derived:,} files of visits and sums ({findings.derived_bytes:,} bytes); "
            f"of {findings.days:,} site-days they were made again."
        )
    if findings.retired:
        console.print(
            f"{findings.retired:,} files ({findings.retired_bytes:,} bytes) are no longer live and "
            "wait to be removed."
        )
    for note in findings.notes:
        console.print(f"note: {note}", markup=False)
    for problem in findings.problems:
        console.print(f"PROBLEM: {problem}", markup=False)
    if findings.problems:
        console.print(f"{len(findings.problems)} of them. Nothing was changed.")
        return 1
    console.print("Everything is as the manifest says.")
    return 0
