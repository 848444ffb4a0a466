"""A year of a server's events as they lie after compaction, made once and used again by later runs.

The folder is never written to by what is measured: who writes takes a copy, of hard links.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import orjson
import pyarrow as pa

from mallard.accounts.access import Scope
from mallard.accounts.accounts import Accounts
from mallard.cli.benchmark.history import History
from mallard.clock import Clock
from mallard.config import StoreConfig
from mallard.errors import StorageError
from mallard.files import Files
from mallard.jobs.compaction import Compactor
from mallard.jobs.rollup import Rollups
from mallard.store.local import LocalStore
from mallard.store.reader import DATABASE
from mallard.telemetry import Telemetry

FIRST_DAY = date(2025, 3, 1)
DAYS = 365
SITES = 3  # the first has more than half of the events
SITE = "site-0.example"
ZONE = "America/New_York"  # that site's
ROOM_BYTES = 2**40
# Not what a server has, but nothing is measured here.
_CONFIG = StoreConfig(memory_bytes=2**30, close_after_seconds=0, late_merge_seconds=0)
_MADE = "history.json"


def stored_year(root: Path, events: int, say: Callable[[str], None]) -> Path:
    """Return a data folder with about so many events; makes it where no earlier run has.

    root: holds folders of such histories, which are kept.
    """
    wanted = {"events": events, "sites": SITES, "days": DAYS, "first": FIRST_DAY.isoformat()}
    folder = root / f".mallard-bench-year-{events}"
    data = folder / "data"
    made = folder / _MADE
    if not made.exists() or orjson.loads(made.read_bytes()) != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        data.mkdir(parents=True)
        _make(data, History(SITES, events // DAYS, FIRST_DAY), say)
        made.write_bytes(orjson.dumps(wanted))
        say("Its sums ...")
    sum_up(data)  # nothing, unless it was just made, or by an older version
    return data


def sum_up(data: Path) -> None:
    """Make what sums a data folder lacks, of a site that is in ZONE; no server may run on it.

    Raises StorageError.
    """
    clock = Clock()
    accounts = Accounts(data / DATABASE, clock)
    store = LocalStore(data, Files(), clock)
    try:
        accounts.change_now(lambda control: control.sites.set(SITE, {"timezone": ZONE}))
        zones = accounts.directory_now().zones
        room, telemetry = (lambda: ROOM_BYTES), Telemetry()
        job = Rollups(_CONFIG, store, data, room, clock, telemetry, lambda: zones)
        job.run()
        if job.problems:
            raise StorageError("; ".join(job.problems))
    finally:
        store.close()
        accounts.close()


def copy_of(data: Path, copy: Path) -> Path:
    """Return a data folder with the same contents, for what writes to it."""

    def link(source: str, target: str) -> None:
        # Files of the store are never written to again; the database is.
        if source.endswith(".parquet"):
            os.link(source, target)
        else:
            shutil.copy2(source, target)

    shutil.copytree(data, copy, copy_function=link)
    return copy


def reading_key(data: Path) -> str:
    """Return the token of a new key that may read a folder's statistics; no server may run on it.

    As the servers of the benchmark stand behind a proxy, they answer nobody without.
    """
    accounts = Accounts(data / DATABASE, Clock())
    try:
        fields = {"name": "bench", "scopes": [Scope.STATS.value], "sites": "*"}
        _, token = accounts.change_now(lambda control: control.keys.create(fields))
    finally:
        accounts.close()
    return token


def _make(data: Path, history: History, say: Callable[[str], None]) -> None:
    clock, telemetry = Clock(), Telemetry()
    store = LocalStore(data, Files(), clock)
    compactor = Compactor(_CONFIG, store, data, lambda: ROOM_BYTES, clock, telemetry)
    for number, (table, last) in enumerate(_ahead(history.days(DAYS))):
        say(f"A year of events: {FIRST_DAY + timedelta(days=number)} ...")
        store.publish(table, last)
        compactor.run()
    store.close()
    if compactor.problems:
        raise StorageError("; ".join(compactor.problems))


def _ahead(days: Iterator[tuple[pa.Table, int]]) -> Iterator[tuple[pa.Table, int]]:
    """Yield each day while the next is being made on another core."""
    with ThreadPoolExecutor(1) as maker:
        following = maker.submit(next, days, None)
        while (day := following.result()) is not None:
            following = maker.submit(next, days, None)
            yield day
