"""What a server process takes for a year's dashboards, and how it takes events meanwhile."""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import orjson

from mallard.cli.benchmark import dashboards, panels
from mallard.cli.benchmark.answers_rows import FILTER, YEAR
from mallard.cli.benchmark.answers_store import FIRST_DAY, copy_of, reading_key
from mallard.cli.benchmark.dashboards import Polled, Screens
from mallard.cli.benchmark.load import Plan, Result
from mallard.cli.benchmark.processes import Process, mallard, run_load
from mallard.cli.benchmark.rates import CONNECTIONS, FLUSH_SOON, MIB, Setting
from mallard.cli.benchmark.rows import Row, Target
from mallard.errors import MallardError
from mallard.query.dimensions import Dimension

SCREENS = 10
POLL_SECONDS = 10.0  # a screen that is looked at asks about so often
ASKED_SECONDS = 120.0
# Who never leaves would have more events each day than anyone has.
EVENTS_PER_VISITOR = 6


def memory(data: Path, setting: Setting) -> Iterator[Row]:
    """Yield the rows of memory: a server with its default settings, data written to by nobody."""
    copy = copy_of(data, setting.folder / "memory")
    token = reading_key(copy)
    with mallard(copy, setting.cores.all) as server:
        server.get("/health/live")
        yield Row("peak memory of a server over the year, idle", "", *_mib(server, 150))
        bodies = [orjson.dumps(panel.document) for panel in panels.dashboard(*YEAR)]
        filtered = panels.breakdown(Dimension.PAGE, *YEAR).document
        filtered["filters"] = [["is", FILTER.by.value, list(FILTER.values)]]
        with ThreadPoolExecutor(len(bodies)) as screen:
            answered = [
                list(screen.map(lambda body: _ask(server, token, body), bodies)) for _ in range(3)
            ]
        yield Row(
            f"the same after its dashboard, {len(bodies)} questions at once",
            "all answered" if all(map(all, answered)) else "not all answered",
            *_mib(server, 512),
            sound=all(map(all, answered)),
        )
        sound = _ask(server, token, orjson.dumps(filtered))
        yield Row(
            "the same after a filtered breakdown of the year",
            "answered" if sound else "not answered",
            *_mib(server, 512),
            sound=sound,
        )


def polled(data: Path, setting: Setting) -> Iterator[Row]:
    """Yield the rows of a server that takes events while screens poll it."""
    copy = copy_of(data, setting.folder / "polled")
    token = reading_key(copy)
    with mallard(copy, setting.cores.all, FLUSH_SOON) as server:
        top = setting.load(server.port)
        server.drain()
        plan = Plan(
            server.port,
            "single",
            CONNECTIONS,
            max(2 * POLL_SECONDS, setting.seconds),
            1.0,
            top.rate / 2,
            EVENTS_PER_VISITOR,
        )
        alone = run_load(plan, setting.cores.all)
        server.drain()
        # Questions of the day before are kept by then, as on a server that runs.
        _poll(server, token, 1, POLL_SECONDS)
        with ThreadPoolExecutor(1) as other:
            seconds = plan.seconds + plan.warm_seconds
            polling = other.submit(_poll, server, token, SCREENS, seconds)
            busy = run_load(plan, setting.cores.all)
            asked = polling.result()
    yield Row(
        f"p99 acknowledgement at half of the top rate while {SCREENS} dashboards of the year and "
        f"today poll every {POLL_SECONDS:g} s, against none",
        f"{_ms(busy)} : {_ms(alone)}; {busy.rate:,.0f}/s of {top.rate:,.0f}/s at most"
        f"{_refused(busy)}",
        busy.p99_us / alone.p99_us,
        None,
        " x",
        sound=busy.rate > 0,
    )
    yield Row(
        "p95 of their questions meanwhile",
        f"p50 {asked.p50_ms:.0f} ms; {asked.answers} answered, {asked.failed} not",
        asked.p95_ms,
        None,
        " ms",
        sound=not asked.failed and asked.answers > 0,
    )


def _mib(server: Process, limit: float) -> tuple[float, Target]:
    return server.peak_bytes() / MIB, Target(limit, " MiB")


def _ask(server: Process, token: str, body: bytes) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ASKED_SECONDS)
    try:
        return dashboards.ask(connection, token, body)
    finally:
        connection.close()


def _poll(server: Process, token: str, count: int, seconds: float) -> Polled:
    plan = Screens(server.port, token, count, seconds, POLL_SECONDS, FIRST_DAY.isoformat())
    done = subprocess.run(  # noqa: S603 - ourselves
        [
            *(sys.executable, "-m", "mallard.cli.benchmark.dashboards"),
            orjson.dumps(asdict(plan)).decode(),
        ],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise MallardError(f"the dashboards failed:\n{done.stderr.decode()[-2000:]}")
    return Polled(**orjson.loads(done.stdout))


def _ms(result: Result) -> str:
    return f"{result.p99_us / 1000:.1f} ms"


def _refused(result: Result) -> str:
    return f"; {result.refused:,} refused" if result.refused else ""
