"""Killed at any moment, under load, over and over: what was acknowledged is stored exactly once."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests.end_to_end.load import Ledger, start_clients
from tests.end_to_end.server import RunningServer, run
from tests.waiting import until

# Small, so that a kill falls into flushes, new segments and trims as often as into appends.
SETTINGS = {
    "buffer.flush_events": "50",
    "buffer.flush_interval_seconds": "0.05",
    "buffer.segment_bytes": "4096",
    "buffer.free_bytes_min": "0",
}


async def crash_under_load(server: RunningServer, ledger: Ledger, moment: random.Random) -> None:
    """Kill the server after some acknowledgements and some turns of this event loop."""
    clients = start_clients(server.port, ledger)
    await ledger.more(moment.randrange(1, 400))
    for _ in range(moment.choice([0, 0, moment.randrange(60)])):
        await asyncio.sleep(0)
    server.kill9()
    await clients


def crash_while_starting(server: RunningServer, looks: int) -> None:
    """Kill a server that has taken the folder and begins to recover, after some looks at it."""
    server.spawn()
    lock = server.data / "lock"
    until(lambda: lock.read_text() == f"{server.pid}\n", "the server takes the folder")
    for _ in range(looks):
        lock.read_text()
    server.kill9()


async def crash_rounds(folder: Path, rounds: int, seed: int) -> str:
    """Crash so many times, check after each, and return the numbers."""
    ledger, moment = Ledger(), random.Random(seed)
    stored = while_starting = 0
    server = RunningServer(folder, SETTINGS)
    with server:
        for number in range(rounds):
            # The two differ in how long events stand between the log and their answer.
            server.settings["buffer.durability"] = "os" if number % 3 == 2 else "fsync"
            await crash_under_load(server, ledger, moment)
            stored = ledger.check(server.data)  # as the crash left it, before any recovery
            if number % 4 == 1:
                crash_while_starting(server, moment.randrange(2_000))
                assert ledger.check(server.data) == stored
                while_starting += 1
            server.restart()
        assert ledger.check(server.data) == stored
        assert server.terminate() == 0
    assert ledger.check(server.data) == stored
    verified = run("verify", "--data", str(server.data))
    assert verified.returncode == 0, verified.stdout
    assert "Traceback" not in server.logs
    assert set(ledger.statuses) <= {200, 202}
    return (
        f"seed {seed}: {rounds} crashes under load, {while_starting} while starting; "
        f"{len(ledger.sent)} events sent, {len(ledger.acknowledged)} acknowledged, "
        f"{stored} stored, none lost, none doubled"
    )


async def test_an_acknowledged_event_survives_kill_9_exactly_once(tmp_path: Path) -> None:
    print(await crash_rounds(tmp_path, rounds=3, seed=1))


@pytest.mark.long
async def test_an_acknowledged_event_survives_a_hundred_kills_exactly_once(tmp_path: Path) -> None:
    rounds, seed = (
        int(os.environ.get("CRASH_ROUNDS", "100")),
        int(os.environ.get("CRASH_SEED", "7")),
    )
    print(await crash_rounds(tmp_path, rounds, seed))
