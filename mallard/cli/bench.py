"""`mallard bench`: how fast this Mallard is on this machine, as ratios, in one run.

Nothing is kept from run to run, and what is compared is measured in turn in the same run, so that
a ratio says something on a machine that is busy or slow. Absolute numbers stand beside it.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic, perf_counter

from rich import box
from rich.console import Console
from rich.table import Table

from mallard.cli.benchmark.answers_rows import answers_rows, asking
from mallard.cli.benchmark.answers_store import copy_of, stored_year
from mallard.cli.benchmark.processes import Cores
from mallard.cli.benchmark.rates import Setting, acknowledgement, rates
from mallard.cli.benchmark.rows import Row
from mallard.cli.benchmark.served_rows import memory, polled
from mallard.cli.benchmark.sizes import flush, tracker
from mallard.cli.benchmark.starts import after_kill, first_accepted
from mallard.cli.benchmark.store_rows import growth, sizes

TABLE_CHARACTERS = 150  # where no terminal says how wide it is
SYNC_BYTES = 16 * 1024  # about what a group commit of 20 events writes
SYNCS = 200


def bench(data_root: Path, seconds: float, rounds: int, events: int, site_days: int) -> int:
    """Measure everything, print the table, and return the exit code.

    data_root: where the servers' data folders are made, and removed again. seconds: of each
    measurement of a rate. rounds: how often each is repeated. events: in the log at kill -9.
    site_days: stored beside flushes and starts. The code is 1 when an event was lost or doubled,
    or an answer was wrong. A target that is missed is shown and is no failure: the machine may be
    to blame.
    """
    return _bench(
        data_root, seconds, rounds, lambda setting, say: measure(setting, events, site_days, say)
    )


def bench_answers(data_root: Path, seconds: float, rounds: int, events: int) -> int:
    """Measure answers over a year of events as `bench` does the rest; return the exit code."""
    return _bench(
        data_root,
        seconds,
        rounds,
        lambda setting, say: measure_answers(setting, stored_year(data_root, events, say), say),
    )


def _bench(
    data_root: Path,
    seconds: float,
    rounds: int,
    measured: Callable[[Setting, Callable[[str], None]], list[Row]],
) -> int:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = TABLE_CHARACTERS
    progress = Console(stderr=True, highlight=False)
    started = monotonic()
    with tempfile.TemporaryDirectory(prefix=".mallard-bench-", dir=data_root) as folder:
        setting = Setting(Path(folder), Cores(), seconds, rounds)
        console.print(_machine(setting), markup=False, soft_wrap=True)
        with progress.status("") as status:
            rows = measured(setting, status.update)
    console.print(table_of(rows))
    console.print(
        f"{seconds:g} s a measurement, {rounds} rounds in turn, medians of pairs (in brackets the "
        f"least and the greatest ratio); {monotonic() - started:.0f} s in all.",
        soft_wrap=True,
    )
    return 0 if all(row.sound for row in rows) else 1


def measure(setting: Setting, events: int, site_days: int, say: Callable[[str], None]) -> list[Row]:
    """Return every row, in order. say: is told what is measured next."""
    say("Top rates ...")
    rows = rates(setting)
    say("Acknowledgements under load ...")
    rows.append(acknowledgement(setting))
    say("Flushes ...")
    rows.append(flush(setting))
    say("Starts ...")
    rows += [after_kill(setting, events), first_accepted(setting), *tracker(setting)]
    say("The store ...")
    return [*rows, *sizes(setting), *growth(setting, site_days)]


def measure_answers(setting: Setting, data: Path, say: Callable[[str], None]) -> list[Row]:
    """Return every row about answers, in order; data: a folder of `answers_store.stored_year`."""
    with asking(copy_of(data, setting.folder / "asked")) as asker:
        rows = list(answers_rows(asker, say))
    say("Memory ...")
    rows += memory(data, setting)
    say("Dashboards that poll while events come in ...")
    return [*rows, *polled(data, setting)]


def table_of(rows: list[Row]) -> Table:
    """Return what is printed of the rows."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("what", ratio=5)
    table.add_column("measured", ratio=6)
    table.add_column("result", justify="right", no_wrap=True)
    table.add_column("target", justify="right", no_wrap=True)
    table.add_column("met", no_wrap=True)
    words = {True: "yes", False: "NO", None: ""}
    for row in rows:
        target = str(row.target) if row.target else ""
        table.add_row(row.what, row.measured, row.shown, target, words[row.met])
    return table


def _machine(setting: Setting) -> str:
    """Return what the numbers were measured on."""
    kind = _file_system(setting.folder)
    free_sync = " (in memory: a sync costs nothing here)" if kind == "tmpfs" else ""
    busy = f"load {os.getloadavg()[0]:.1f} before"
    return (
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; data on {kind}{free_sync}, a write and sync of "
        f"{SYNC_BYTES // 1024} KiB {_sync_ms(setting.folder):.2f} ms; {setting.cores}; {busy}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system(folder: Path) -> str:
    """Return the type of the file system that a folder lies on, if the system tells."""
    try:
        mounts = [line.split(" ") for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return f"an unknown file system of {sys.platform}"
    here = folder.resolve()
    around = [mount for mount in mounts if here.is_relative_to(mount[1])]
    return max(around, key=lambda mount: len(mount[1]))[2] if around else "an unknown file system"


def _sync_ms(folder: Path) -> float:
    """Return the median of a write and a sync, as the log does them."""
    descriptor = os.open(folder / "sync", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    times: list[float] = []
    try:
        for _ in range(SYNCS):
            started = perf_counter()
            os.write(descriptor, bytes(SYNC_BYTES))
            os.fdatasync(descriptor)
            times.append(perf_counter() - started)
    finally:
        os.close(descriptor)
    return sorted(times)[SYNCS // 2] * 1000
