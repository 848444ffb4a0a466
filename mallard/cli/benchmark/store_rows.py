"""What the store takes on disk, and what flushes and starts cost as its history grows."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mallard.cli.benchmark.history import History
from mallard.cli.benchmark.processes import first_answer, mallard
from mallard.cli.benchmark.pruning import shares_read
from mallard.cli.benchmark.rates import MIB, Setting
from mallard.cli.benchmark.rows import Pairs, Row, Target
from mallard.clock import Clock
from mallard.event import Event, Frame, to_table
from mallard.files import Files
from mallard.query.shell_script import ShellScript
from mallard.store.local import LocalStore

DAY = date(2026, 3, 2)
DAY_EVENTS = 200_000  # about the fewest that are cut by path too
MIDDLE_DAY_EVENTS = 500_000
LARGE_DAY_EVENTS = 1_000_000  # whose row groups have the size that large parts have
OTHERS_BETWEEN = 9  # a tenth of a server's events: positions then have gaps, which cost
SLICE_EVENTS = 10_000  # of one flush
FEW_SITE_DAYS = 10
SITES_MAX = 100
FLUSH_EVENTS = 1_000
FLUSH_PAIRS_PER_ROUND = 5
COLUMN_SHOWN = 0.2  # bytes an event


def sizes(setting: Setting) -> list[Row]:
    """Return the rows of a site-day and of larger ones, compacted."""
    return [
        *_sizes(setting.folder / "site-day", DAY_EVENTS),
        *_sizes(setting.folder / "middle-site-day", MIDDLE_DAY_EVENTS),
        *_sizes(setting.folder / "large-site-day", LARGE_DAY_EVENTS),
    ]


def _sizes(data: Path, events: int) -> list[Row]:
    store = _open(data)
    table = History(1, events, DAY, others_between=OTHERS_BETWEEN).day(DAY)
    for first in range(0, table.num_rows, SLICE_EVENTS):
        some = table.slice(first, SLICE_EVENTS)
        store.publish(some, some["position"][-1].as_py())
    store.close()
    told = _compact(data)
    (part,) = (data / "events").rglob("*.parquet")
    rows = table.num_rows
    shares = shares_read(part)
    visits = sum(path.stat().st_size for path in (data / "sessions").rglob("*.parquet"))
    return [
        Row(
            f"stored bytes an event, a site-day of {rows:,}, compacted, all columns",
            _columns(part),
            part.stat().st_size / rows,
            Target(15, " bytes"),
        ),
        Row(
            "of its part a filter reads, most",
            ", ".join(f"on {what} {share:.0%}" for what, share in shares.items()),
            100 * max(shares.values()),
            Target(50, " %"),
        ),
        Row("its visits, bytes an event", "", visits / rows, None, " bytes"),
        Row(
            "compaction of that site-day, events a second",
            f"{told['seconds']:.1f} s",
            rows / told["seconds"],
            None,
            "/s",
        ),
        Row(
            "growth of the process meanwhile against store.memory_bytes",
            f"{told['grown_bytes'] / MIB:.0f} : {told['memory_bytes'] / MIB:.0f} MiB",
            told["grown_bytes"] / told["memory_bytes"],
            Target(1, " x"),
        ),
    ]


def _columns(part: Path) -> str:
    """Return what each of the larger columns takes."""
    columns: Counter[str] = Counter()
    metadata = pq.read_metadata(part)
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(number)
            columns[chunk.path_in_schema] += chunk.total_compressed_size
    each = ((name, size / metadata.num_rows) for name, size in columns.most_common())
    return ", ".join(f"{name} {size:.2f}" for name, size in each if size >= COLUMN_SHOWN)


def growth(setting: Setting, most: int) -> list[Row]:
    """Return the rows of flushes, and of a start, beside ever more site-days, up to `most`."""
    counts = sorted({min(FEW_SITE_DAYS, most), max(1, most // 10), most})
    folders = {count: setting.folder / f"site-days-{count}" for count in counts}
    for count, data in folders.items():
        _fill(data, count)
    stores = {count: _open(data) for count, data in folders.items()}
    times: dict[int, list[float]] = {count: [] for count in counts}
    today = date.today()
    for number in range(FLUSH_PAIRS_PER_ROUND * setting.rounds):
        for count in counts[:: 1 if number % 2 else -1]:
            first = stores[count].snapshot().watermark + 1
            table = _events(first, [today] * FLUSH_EVENTS, 20)
            started = perf_counter()
            stores[count].publish(table, first + FLUSH_EVENTS - 1)
            times[count].append((perf_counter() - started) * 1000)
    for store in stores.values():
        store.close()
    pairs = Pairs(times[most], times[counts[0]])
    with mallard(folders[most], setting.cores.all) as server:
        answered = first_answer(server)
    shown = ", ".join(f"{count:,}: {median(some):.1f} ms" for count, some in times.items())
    return [
        Row(
            f"flush of {FLUSH_EVENTS:,} events beside {most:,} site-days against {counts[0]:,}",
            f"{shown} ({pairs.spread})",
            pairs.ratio,
            Target(1.5, " x"),
        ),
        Row(f"start with {most:,} parts, to first 202", "", answered, Target(1.5, " s")),
    ]


def _fill(data: Path, count: int) -> None:
    """Make a folder with so many compacted site-days, an event each."""
    sites = min(SITES_MAX, count)
    store = _open(data)
    for number in range(count // sites):
        day = DAY - timedelta(days=number)
        first = number * sites + 1
        store.publish(_events(first, [day] * sites, sites), first + sites - 1)
    store.close()
    _compact(data)


def _events(first: int, days: list[date], sites: int) -> pa.Table:
    """Return an event at noon of each day, of one site after the other."""
    midnight = date(1970, 1, 1)
    events = [
        Event(
            f"site-{number % sites}.example",
            (day - midnight).days * 86_400_000_000 + 43_200_000_000 + number * 1000,
            "pageview",
            "page",
            visitor_id=number,
            url=f"https://site-{number % sites}.example/",
            hostname=f"site-{number % sites}.example",
            pathname="/",
        )
        for number, day in enumerate(days)
    ]
    return to_table([Frame(first, events[-1].timestamp, 1, events)])


def _open(data: Path) -> LocalStore:
    data.mkdir(exist_ok=True)
    files, clock = Files(), Clock()
    return LocalStore(data, files, clock, ShellScript(data, files, clock).tell)


def _compact(data: Path) -> dict[str, float]:
    """Compact a folder in a process of its own; return what it tells: see `compact`."""
    command = [sys.executable, "-m", "mallard.cli.benchmark.compact", str(data)]
    done = subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own module
    told: dict[str, float] = orjson.loads(done.stdout)
    return told
