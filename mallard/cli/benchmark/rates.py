"""How many events a second, and how soon each is acknowledged: the rows with a load client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from mallard.cli.benchmark.load import Plan, Result
from mallard.cli.benchmark.processes import Cores, Process, Reader, empty, mallard, run_load
from mallard.cli.benchmark.rows import Pairs, Row, Target
from mallard.cli.benchmark.traffic import BATCH_EVENTS, batch_requests

CONNECTIONS = 64
BATCH_CONNECTIONS = 4  # 4,000 events under way are plenty; more would only fill the ring
IDLE_RATE = 50.0  # requests a second
PRELOADED_BATCHES = 20
ATTEMPTS = 6  # of a measurement, each twice as long: a busy machine may answer nothing in the first
MIB = 1024 * 1024
_COUNT = rb"^mallard_%s_seconds_count (\S+)$"
# Every event is flushed within the time that is measured, or right behind it.
FLUSH_SOON = {"buffer.flush_interval_seconds": "1"}


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how long. seconds: of one measurement; rounds: how often each is repeated."""

    folder: Path
    cores: Cores
    seconds: float
    rounds: int

    def load(self, port: int, kind: str = "single") -> Result:
        """Return the top rate of a server."""
        connections = BATCH_CONNECTIONS if kind == "batch" else CONNECTIONS
        plan = Plan(port, kind, connections, self.seconds, min(0.5, self.seconds / 2))
        return measured(plan, self.cores.client)


def measured(plan: Plan, cores: set[int]) -> Result:
    """Run a load and return a result with 202s in it; raises TimeoutError when none come."""
    for attempt in range(ATTEMPTS):
        result = run_load(replace(plan, seconds=plan.seconds * 2**attempt), cores)
        if result.rate:
            return result
    raise TimeoutError(f"The server on port {plan.port} accepted nothing.")


def rates(setting: Setting) -> list[Row]:
    """Return the rows of top rates and of memory."""
    folder, cores = setting.folder, setting.cores.all
    with ExitStack() as stack:
        servers = {
            kind: stack.enter_context(empty(kind, folder, cores)) for kind in ("starlette", "bare")
        }
        for level in ("fsync", "os", "memory"):
            settings = {"buffer.durability": level, **FLUSH_SOON}
            server = mallard(folder / level, cores, settings)
            servers[level] = stack.enter_context(server)
        servers["batch"] = stack.enter_context(mallard(folder / "batch", cores, FLUSH_SOON))
        idle = servers["fsync"].peak_bytes()
        results: dict[str, list[Result]] = {kind: [] for kind in servers}
        costs: dict[str, list[float]] = {kind: [] for kind in servers}
        for round_number in range(setting.rounds):
            # There and back: a machine that slows down steadily slows both of a pair.
            for kind in list(servers)[:: 1 if round_number % 2 else -1]:
                server = servers[kind]
                before = server.processor_seconds()
                result = setting.load(server.port, "batch" if kind == "batch" else "single")
                results[kind].append(result)
                if kind not in {"starlette", "bare"}:
                    server.drain()
                costs[kind].append((server.processor_seconds() - before) / result.answers * 1e6)
        peaks = servers["fsync"].peak_bytes(), servers["batch"].peak_bytes()
    return [*_rate_rows(results), _cost_row(costs), *_memory_rows(idle, *peaks)]


def _cost_row(costs: dict[str, list[float]]) -> Row:
    """Return the row that a busy machine changes least: what the processors did, not how soon."""
    pairs = Pairs(costs["starlette"], costs["fsync"])
    per_event = median(costs["batch"]) / BATCH_EVENTS
    return Row(
        "processor time of the empty Starlette endpoint against that of a single POST, flush "
        "included",
        f"{median(pairs.first):.0f} us : {median(pairs.second):.0f} us ({pairs.spread}); bare ASGI "
        f"{median(costs['bare']):.0f} us; an event of a batch {per_event:.0f} us",
        pairs.ratio,
        None,
        " x",
    )


def _rate_rows(results: dict[str, list[Result]]) -> Iterator[Row]:
    rate = {kind: [result.rate for result in some] for kind, some in results.items()}
    events = [batches * BATCH_EVENTS for batches in rate["batch"]]
    single, busy = results["fsync"], median(result.busy for result in results["starlette"])
    pairs = Pairs(rate["fsync"], rate["starlette"])
    yield Row(
        f"single POST, fsync and enrichment, {CONNECTIONS} connections, "
        "against an empty Starlette endpoint",
        f"{_rate(rate['fsync'])} : {_rate(rate['starlette'])} ({pairs.spread}); p50 "
        f"{_ms(median(r.p50_us for r in single))}, p99 {_ms(median(r.p99_us for r in single))}; "
        f"client busy {busy:.0%} at most{_refused(single)}",
        pairs.ratio,
        Target(0.6, " x", at_least=True),
    )
    pairs = Pairs(rate["fsync"], rate["bare"])
    yield Row(
        "the same against a bare ASGI function",
        f"{_rate(rate['fsync'])} : {_rate(rate['bare'])} ({pairs.spread})",
        pairs.ratio,
        None,
        " x",
    )
    pairs = Pairs(events, rate["fsync"])
    yield Row(
        f"batches of {BATCH_EVENTS:,}, {BATCH_CONNECTIONS} connections, against single, in events",
        f"{_rate(events)} : {_rate(rate['fsync'])} ({pairs.spread}); client busy "
        f"{median(result.busy for result in results['batch']):.0%}{_refused(results['batch'])}",
        pairs.ratio,
        Target(10, " x", at_least=True),
    )
    for level, target in (("memory", Target(0.7, " x", at_least=True)), ("os", None)):
        pairs = Pairs(rate["fsync"], rate[level])
        yield Row(
            f'durability "fsync" against "{level}", {CONNECTIONS} connections',
            f"{_rate(rate['fsync'])} : {_rate(rate[level])} ({pairs.spread})"
            f"{_refused(results[level])}",
            pairs.ratio,
            target,
            " x",
        )


def _memory_rows(idle: int, single: int, batch: int) -> Iterator[Row]:
    yield Row("peak memory, idle after the start", "", idle / MIB, Target(150, " MiB"))
    yield Row(
        "peak memory after the single POSTs",
        "with the process that writes",
        single / MIB,
        None,
        " MiB",
    )
    yield Row(
        "peak memory after the batches", "with the process that writes", batch / MIB, None, " MiB"
    )


def acknowledgement(setting: Setting) -> Row:
    """Return the row of the 99th percentile at half of the top rate, among all that goes on.

    The top rate is that of the same seconds: an hour's may be twice as much on a shared machine.
    A flush comes every second, as it would at these rates by the number of events as shipped;
    merges come eight times as often, so that there is one in most rounds. Server, client and
    queries share all cores here: on a core of its own the client would take one from the other two.

    Rounds are as short as those permit, and many: a shared machine is at times half as fast for a
    second or two, and half of the top rate of before is then all that it can do. So there are few
    such changes within a round, and what they spoil are single ones.
    """
    data, cores = setting.folder / "busy", setting.cores
    settings = {"store.merge_files": "2", **FLUSH_SOON}
    brief = replace(setting, seconds=setting.seconds / 2)
    idle: list[Result] = []
    busy: list[Result] = []
    top: list[float] = []
    asked = 0
    warm = min(0.5, brief.seconds / 2)
    with mallard(data, cores.all, settings) as server:
        requests = batch_requests(server.port)
        for number in range(PRELOADED_BATCHES):
            server.send(requests[number % len(requests)])
        for _ in range(4 * setting.rounds):
            server.drain()
            plan = Plan(server.port, "single", 1, brief.seconds, warm, IDLE_RATE)
            idle.append(measured(plan, cores.all))
            top.append(brief.load(server.port).rate)
            server.drain()
            with Reader(data, cores.all) as reader:
                plan = Plan(server.port, "single", CONNECTIONS, setting.seconds, warm, top[-1] / 2)
                busy.append(measured(plan, cores.all))
            asked += reader.asked
        flushes, merges = _count(server, b"flush"), _count(server, b"compaction")
    pairs = Pairs([result.p99_us for result in busy], [result.p50_us for result in idle])
    return Row(
        "p99 acknowledgement at half of the top rate, flushing, compacting and querying, "
        "against idle p50",
        f"{_ms(median(pairs.first))} : {_ms(median(pairs.second))} ({pairs.spread}); "
        f"{median(result.rate for result in busy):,.0f}/s of {median(top):,.0f}/s, "
        f"{flushes} flushes, {merges} merges, "
        f"{asked} queries{_refused(busy)}",
        pairs.ratio,
        Target(10, " x"),
    )


def _count(server: Process, what: bytes) -> int:
    _, text = server.get("/metrics")
    found = re.search(_COUNT % what, text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def _rate(values: list[float]) -> str:
    return f"{median(values):,.0f}/s"


def _ms(microseconds: float) -> str:
    return f"{microseconds / 1000:.2f} ms"


def _refused(results: list[Result]) -> str:
    refused = sum(result.refused for result in results)
    answered = refused + sum(result.statuses.get("202", 0) for result in results)
    return f"; {refused:,} of {answered:,} refused" if refused else ""
