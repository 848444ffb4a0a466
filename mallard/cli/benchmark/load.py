"""The load client, a process of its own: `python -m mallard.cli.benchmark.load PLAN`.

It keeps connections open, sends requests that were made beforehand and times each answer. PLAN is
a `Plan` as JSON; the result goes to standard output as a `Result` in JSON.

Two ways. Closed (rate 0): each connection sends its next request when it has its answer, which
finds the top rate. Open: requests are due at a fixed rate whatever the server does, and a request
that finds no free connection is timed from when it was due, so that a server that stalls cannot
hide it. uvloop's timers tick in milliseconds, so due requests go out in bursts of one tick.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import sys
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from time import perf_counter_ns
from typing import cast

import orjson
import uvloop

from mallard.cli.benchmark import traffic

_NS = 1_000_000_000
TICK_SECONDS = 0.001
ANSWER_SECONDS_MAX = 30.0  # for those still under way at the end


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send. kind: "single" or "batch". rate: requests a second; 0 is as fast as answered.

    seconds: how long is measured, after warm_seconds that are not. events_per_visitor: so many
    times all requests are sent before they are other visitors'; 0: always the same ones'.
    """

    port: int
    kind: str
    connections: int
    seconds: float
    warm_seconds: float
    rate: float = 0.0
    events_per_visitor: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it, in the time that was measured.

    statuses: answers by status. seconds: the time. Latencies in microseconds, of 202 answers.
    busy: the part of a core that the client itself took; near 1 it would be what limits.
    answers: how many there were in all, the time before and after included.
    """

    statuses: dict[str, int]
    seconds: float
    p50_us: float
    p99_us: float
    busy: float
    answers: int

    @property
    def rate(self) -> float:
        """Accepted requests a second."""
        return self.statuses.get("202", 0) / self.seconds

    @property
    def refused(self) -> int:
        """How many answers were something else."""
        return sum(self.statuses.values()) - self.statuses.get("202", 0)


class _Load:
    """Shares requests out to connections and keeps the times of the answers."""

    def __init__(self, plan: Plan, requests: Iterator[bytes]) -> None:
        self.requests = requests
        self._paced = plan.rate > 0
        self._interval_ns = round(_NS / plan.rate) if self._paced else 0
        self._idle: list[_Connection] = []
        self._late: deque[int] = deque()
        self._plan = plan
        self.begin = self.end = self._next_due = 0
        self.latencies: list[int] = []
        self.statuses: Counter[int] = Counter()
        self.under_way = 0
        self.answers = 0
        # Once the time is over and every answer is there; fails with a lost connection.
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, connections: list[_Connection]) -> None:
        now = self._next_due = perf_counter_ns()
        self.begin = now + round(self._plan.warm_seconds * _NS)
        self.end = self.begin + round(self._plan.seconds * _NS)
        if not self._paced:
            for connection in connections:
                connection.send_next(perf_counter_ns())
            return
        self._idle = connections[:]
        self._tick()

    def settle(self, connection: _Connection, status: int, sent_at: int) -> None:
        now = perf_counter_ns()
        self.under_way -= 1
        self.answers += 1
        if self.begin <= now < self.end:
            self.statuses[status] += 1
            if status == 202:
                self.latencies.append(now - sent_at)
        elif now >= self.end:
            self.finish()
            return
        if not self._paced:
            connection.send_next(now)
        elif self._late:
            connection.send_next(self._late.popleft())
        else:
            self._idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        """Do without a connection that the server closed because nothing was sent for long."""
        if connection in self._idle:
            self._idle.remove(connection)

    def finish(self, error: Exception | None = None) -> None:
        if not self.done.done():
            if error:
                self.done.set_exception(error)
            elif not self.under_way:
                self.done.set_result(None)

    def _tick(self) -> None:
        now = perf_counter_ns()
        if now >= self.end:
            self.finish()
            return
        while self._next_due <= now:
            if self._idle:
                # The server's time, not that of our own timer: due means sent here.
                self._idle.pop().send_next(perf_counter_ns())
            else:
                self._late.append(self._next_due)
            self._next_due += self._interval_ns
        wait = max(TICK_SECONDS, (self._next_due - now) / _NS)
        asyncio.get_running_loop().call_later(wait, self._tick)


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    __slots__ = ("_load", "_rest", "_sent_at", "_transport", "_waits")

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._rest = b""
        self._sent_at = 0
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def send_next(self, due: int) -> None:
        load = self._load
        load.under_way += 1
        self._sent_at = due
        self._waits = True
        self._transport.write(next(load.requests))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        end = data.find(b"\r\n\r\n")
        if end < 0 or len(data) < end + 4 + _length(data, end):
            self._rest = data
            return
        self._rest = b""
        self._waits = False
        self._load.settle(self, int(data[9:12]), self._sent_at)

    def connection_lost(self, error: Exception | None) -> None:
        if self._waits:
            self._load.finish(error or ConnectionResetError("the server closed a connection"))
        else:
            self._load.forget(self)


def _length(head: bytes, end: int) -> int:
    """Return the bytes of an answer's body; the servers measured here always say how many."""
    start = head.index(b"content-length: ", 0, end) + 16
    stop = head.find(b"\r", start, end)
    return int(head[start : stop if stop >= 0 else end])


async def _run(plan: Plan) -> Result:
    made = traffic.batch_requests if plan.kind == "batch" else traffic.single_requests
    loop = asyncio.get_running_loop()
    requests = made(plan.port)
    others = traffic.of_others(requests, plan.events_per_visitor)
    load = _Load(plan, others if plan.events_per_visitor else itertools.cycle(requests))
    connections = [
        (await loop.create_connection(lambda: _Connection(load), "127.0.0.1", plan.port))[1]
        for _ in range(plan.connections)
    ]
    load.start(connections)
    busy = _processor_seconds()
    async with asyncio.timeout(plan.warm_seconds + plan.seconds + ANSWER_SECONDS_MAX):
        await load.done
    busy = _processor_seconds() - busy
    times = sorted(load.latencies) or [0]
    return Result(
        {str(status): count for status, count in load.statuses.items()},
        plan.seconds,
        times[len(times) // 2] / 1000,
        times[min(len(times) * 99 // 100, len(times) - 1)] / 1000,
        busy / (plan.seconds + plan.warm_seconds),
        load.answers,
    )


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Carry out the plan of the command line."""
    plan = Plan(**orjson.loads(sys.argv[1]))
    if plan.rate and sys.platform == "linux":
        # It stands for machines elsewhere, which do not interrupt a server to take an answer.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(_run(plan))
    print(orjson.dumps(asdict(result)).decode())


if __name__ == "__main__":
    main()
