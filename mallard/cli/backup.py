"""`mallard backup` and `mallard restore`: a data folder to another one, and what came of it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from mallard.files import Files
from mallard.ingest.visitor import SECRET_FILE
from mallard.jobs import backup as jobs
from mallard.processes import give_way

# What a backup without the secret means, where there is one.
_LEFT_BEHIND = (
    "note: the secret is not in it; a restored server makes a new one, and late events of past "
    "days do not meet the visitors they were. --with-secret copies it."
)


def backup(data: Path, target: Path, *, with_secret: bool) -> int:
    """Make or bring up to date a backup; return the exit code, 1 when something was damaged.

    Raises StorageError when it cannot be made.
    """
    give_way()
    files, console = Files(), Console(highlight=False, soft_wrap=True)
    has_secret = SECRET_FILE in files.names(data)
    also = [SECRET_FILE] if with_secret and has_secret else []
    with console.status(f"Copying {data} ...") as status:

        def told(done: int, whole: int) -> None:
            status.update(f"Copying {data} ... {done * 100 // max(1, whole)} %")

        outcome = jobs.backup(data, target, files, also, told)
    if has_secret and not with_secret:
        console.print(_LEFT_BEHIND, markup=False)
    return _tell(console, outcome, target)


def restore(source: Path, data: Path) -> int:
    """Make a data folder of a backup; return the exit code, 1 when something was damaged.

    Raises StorageError when it cannot be made.
    """
    console = Console(highlight=False, soft_wrap=True)
    with console.status(f"Copying {source} ..."):
        outcome = jobs.restore(source, data, Files(), [SECRET_FILE])
    return _tell(console, outcome, data)


def _tell(console: Console, outcome: jobs.Outcome, target: Path) -> int:
    for note in outcome.notes:
        console.print(f"note: {note}", markup=False)
    for problem in outcome.problems:
        console.print(f"PROBLEM: {problem}", markup=False)
    console.print(
        f"{target} holds {outcome.part_rows:,} events in {outcome.files:,} files and "
        f"{outcome.log_events:,} in the log. {outcome.copied:,} files "
        f"({outcome.copied_bytes:,} bytes) were copied, {outcome.removed:,} old ones removed.",
        markup=False,
    )
    return 1 if outcome.problems else 0
