"""`mallard rebuild`: visits and sums are dropped, and made again from the events."""

from __future__ import annotations

import os
import time
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console

from mallard import settings
from mallard.accounts.accounts import Accounts
from mallard.buffer.wal import first_logged
from mallard.clock import Clock
from mallard.config import Config
from mallard.errors import StorageError
from mallard.files import Files, FolderLock
from mallard.jobs.database import remove_spilled
from mallard.jobs.rollup import Rollups
from mallard.query.shell_script import ShellScript
from mallard.store.local import LocalStore
from mallard.store.reader import DATABASE
from mallard.telemetry import Telemetry


def rebuild(path: Path | None, folder: str | None) -> int:
    """Do it and print what was done; return the exit code, 1 when something could not be made.

    path: the TOML file. folder: the data folder, if not the configured one. Raises ConfigError, and
    StorageError for what is no data folder or has a server running on it.
    """
    config = settings.load(path, os.environ, {"server.data": folder}).config
    data = config.server.data
    if not (data / DATABASE).is_file():
        raise StorageError(f"{data} is not a Mallard data folder: it has no {DATABASE}.")
    lock = FolderLock(data)
    try:
        remove_spilled(data)
        files, clock = Files(), Clock()
        script = ShellScript(data, files, clock)
        store = LocalStore(data, files, clock, script.tell, first_logged(data, files))
        try:
            return _rebuild(config, store, files)
        finally:
            store.close()
    finally:
        lock.release()


def _rebuild(config: Config, store: LocalStore, files: Files) -> int:
    console = Console(highlight=False, soft_wrap=True)
    data, started = config.server.data, time.monotonic()
    zones = _zones(data)
    job = Rollups(
        config.store,
        store,
        data,
        lambda: files.free_bytes(data) - config.buffer.free_bytes_min,
        Clock(),
        Telemetry(),
        lambda: zones,
    )
    dropped = sum(1 for _ in store.snapshot().derived)
    with console.status(f"Reading {data} ..."):
        made = job.rebuild()
        store.sweep(hurry=True)
    seconds = time.monotonic() - started
    visits = sum(file.kind == "sessions" for file in made)
    console.print(f"Dropped {dropped:,} files.")
    console.print(
        f"Made the visits of {visits:,} site-days and the sums of {len(made) - visits:,} "
        f"site-months in {seconds:.1f} seconds."
    )
    dates = {part.date for part in store.snapshot().recent}
    if dates:
        console.print(f"{len(dates):,} dates wait for compaction, which makes theirs.")
    for problem in job.problems:
        console.print(f"PROBLEM: {problem}", markup=False)
    return 1 if job.problems else 0


def _zones(data: Path) -> dict[str, ZoneInfo]:
    accounts = Accounts(data / DATABASE, Clock())
    try:
        return accounts.directory_now().zones
    finally:
        accounts.close()
