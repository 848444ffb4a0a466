"""Clients that send events as fast as they are answered, and a ledger of what became of them."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import orjson

from tests.beside import looking_at
from tests.end_to_end.wire import Answer, Connection

# A browser's, so that nothing is dropped as a bot's.
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"
CLIENTS = 32


class Ledger:
    """What was sent and what was acknowledged, each event under a name of its own.

    sent: names that may have reached the server. acknowledged: answered 202. unanswered: sent,
    and the connection ended first. statuses: how many answers had which one.
    """

    def __init__(
        self, *, pixels: bool = True, sites: int = 20, batches_alone_of: int | None = None
    ) -> None:
        # Whether images are sent too, whose answers acknowledge nothing.
        self.doors = ("post",) * 6 + ("batch",) + ("pixel",) * pixels
        if batches_alone_of:
            self.doors = ("batch",)
        self.batch_events = batches_alone_of or 3
        self.sites = sites  # of how many the events are
        self.sent: set[str] = set()
        self.acknowledged: set[str] = set()
        self.unanswered: set[str] = set()
        self.statuses: Counter[int] = Counter()
        self._numbers = itertools.count()
        self._goal = 0
        self._reached = asyncio.Event()

    def new_names(self, count: int) -> list[str]:
        """Return names that no event had yet, and note that they are being sent."""
        names = [f"event {next(self._numbers)}" for _ in range(count)]
        self.sent.update(names)
        return names

    def settle(self, names: list[str], answer: Answer) -> None:
        """Note an answer; only a 202 acknowledges."""
        self.statuses[answer.status] += 1
        if answer.status == 202:
            self.acknowledged.update(names)
            if len(self.acknowledged) >= self._goal:
                self._reached.set()

    async def more(self, count: int) -> None:
        """Return once so many more events are acknowledged."""
        self._goal = len(self.acknowledged) + count
        self._reached.clear()
        async with asyncio.timeout(60):
            await self._reached.wait()

    def check(self, data: Path) -> int:
        """Assert that a data folder holds these events exactly once; return how many.

        What was not acknowledged may be stored or not, and may not be stored twice.
        """
        with looking_at(data) as connection:
            rows = connection.execute(
                "SELECT event_name, position, event_id, loaded_at FROM events ORDER BY position"
            ).fetchall()
        stored = Counter(row[0] for row in rows)
        assert self.acknowledged - stored.keys() == set(), "acknowledged and not stored"
        assert stored.keys() - self.sent == set(), "stored and never sent"
        assert [name for name, times in stored.items() if times > 1] == [], "stored twice"
        assert [row[1] for row in rows] == list(range(1, len(rows) + 1)), "positions have holes"
        assert len({row[2] for row in rows}) == len(rows), "event ids repeat"
        instants = [row[3] for row in rows]
        assert instants == sorted(instants), "loaded_at went back"
        return len(rows)


def event(name: str, site: str = "example.com") -> dict[str, object]:
    """Return an event as 003 prints it, as large as events are."""
    return {
        "d": site,
        "n": name,
        "u": f"https://{site}/pricing",
        "r": "https://www.google.com/",
        "w": 1920,
        "p": '{"plan": "pro", "text": "zwölf Boxkämpfer"}',
        "ra": 99.00,
        "rc": "USD",
    }


async def send_one(connection: Connection, ledger: Ledger, door: str, site: str) -> None:
    """Send by a door of 003 (post, batch or pixel) and note the answer."""
    names = ledger.new_names(ledger.batch_events if door == "batch" else 1)
    headers = {"User-Agent": AGENT, "Content-Type": "text/plain"}
    try:
        if door == "batch":
            body = orjson.dumps([event(name, site) for name in names])
            answer = await connection.request("POST", "/api/event/batch", body, headers)
        elif door == "pixel":
            path = f"/api/event?d={site}&u=https://{site}/&n={quote(names[0])}"
            answer = await connection.request("GET", path, headers=headers)
        else:
            body = orjson.dumps(event(names[0], site))
            answer = await connection.request("POST", "/api/event", body, headers)
    except (OSError, EOFError):
        ledger.unanswered.update(names)
        raise
    ledger.settle(names, answer)
    # An image is 200 whether it was stored or not.
    assert answer.status == (200 if door == "pixel" else 202) or (
        answer.status == 503 and door != "pixel"
    ), answer


async def client(port: int, ledger: Ledger, go_on: Callable[[], bool], seed: int) -> None:
    """Send events over one connection after another until nobody listens, or `go_on` says no."""
    choice = random.Random(seed).choice
    while go_on():
        try:
            async with await Connection.open(port) as connection:
                while go_on():
                    site = f"site-{choice(range(ledger.sites))}.example"
                    await send_one(connection, ledger, choice(ledger.doors), site)
        except ConnectionRefusedError:
            return
        except (OSError, EOFError):
            continue


def start_clients(
    port: int, ledger: Ledger, go_on: Callable[[], bool] = lambda: True, count: int = CLIENTS
) -> asyncio.Future[list[None]]:
    """Start clients that run until the server is gone or `go_on` says no; await them all."""
    return asyncio.gather(*(client(port, ledger, go_on, seed) for seed in range(count)))
