"""Screens that poll a server, a process: `python -m mallard.cli.benchmark.dashboards PLAN`.

PLAN is a `Screens` as JSON; the result goes to standard output as a `Polled` in JSON. A screen asks
for its panels one after the other on one connection, then rests until it is due again.
"""

from __future__ import annotations

import http.client
import sys
import threading
from dataclasses import asdict, dataclass
from datetime import date
from time import monotonic, perf_counter

import orjson

from mallard.cli.benchmark import panels

PATH = "/api/v2/query"


@dataclass(frozen=True, slots=True)
class Screens:
    """How many, for how long, how often; first: the day that they begin with, which ends today.

    token: of an API key that may read statistics.
    """

    port: int
    token: str
    count: int
    seconds: float
    period_seconds: float
    first: str


@dataclass(frozen=True, slots=True)
class Polled:
    """What came of it. Latencies of single questions, in milliseconds."""

    answers: int
    failed: int
    p50_ms: float
    p95_ms: float


def ask(connection: http.client.HTTPConnection, token: str, body: bytes) -> bool:
    """Ask one question; return whether it was answered."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    connection.request("POST", PATH, body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status == 200


def _screen(plan: Screens, number: int, end: float, times: list[float], failed: list[int]) -> None:
    asked = panels.dashboard(date.fromisoformat(plan.first), date.today())
    bodies = [orjson.dumps(panel.document) for panel in asked]
    connection = http.client.HTTPConnection("127.0.0.1", plan.port, timeout=60)
    due = monotonic() + number * plan.period_seconds / plan.count
    rest = threading.Event()
    while (now := monotonic()) < end:
        rest.wait(min(max(0.0, due - now), end - now))
        due += plan.period_seconds
        for body in bodies:
            if monotonic() >= end:
                break
            started = perf_counter()
            if ask(connection, plan.token, body):
                times.append((perf_counter() - started) * 1000)
            else:
                failed.append(number)
    connection.close()


def main() -> None:
    """Carry out the plan of the command line."""
    plan = Screens(**orjson.loads(sys.argv[1]))
    times: list[float] = []
    failed: list[int] = []
    end = monotonic() + plan.seconds
    threads = [
        threading.Thread(target=_screen, args=(plan, number, end, times, failed))
        for number in range(plan.count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ordered = sorted(times) or [0.0]
    last = ordered[min(len(ordered) * 95 // 100, len(ordered) - 1)]
    result = Polled(len(times), len(failed), ordered[len(ordered) // 2], last)
    print(orjson.dumps(asdict(result)).decode())


if __name__ == "__main__":
    main()
