"""Killed at any moment, under load, over and over: what was acknowledged is stored exactly once."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from mallard.files import Files
from mallard.store.reader import LocalReader
from tests.end_to_end import hasty
from tests.end_to_end.load import Ledger, start_clients
from tests.end_to_end.server import RunningServer, run
from tests.waiting import until

# Small, so that a kill falls into flushes, new segments and trims as often as into appends.
SETTINGS = {
    "buffer.flush_events": "20",
    "buffer.flush_interval_seconds": "0.05",
    "buffer.segment_bytes": "4096",
    "buffer.free_bytes_min": "0",
    "store.merge_files": "2",
    "store.close_after_seconds": "0",
    "store.late_merge_seconds": "0",
}
# Few: compaction costs by the site-day, and has to be done for some before the next kill.
SITES = 3
ROUNDS_A_DAY = 5


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


class Maintenance:
    """What a folder's maintenance has done, each change counted once."""

    def __init__(self, data: Path) -> None:
        self.done: Counter[str] = Counter()
        self._data = data
        self._seen = 0

    def look(self) -> None:
        """Count the changes since the last look."""
        with LocalReader(self._data, Files()) as reader:
            history = reader.manifest.history()
        self.done.update(each.reason for each in history if each.version > self._seen)
        self._seen = max((each.version for each in history), default=0)


async def crash_rounds(
    folder: Path, rounds: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Crash so many times, check after each, and return the numbers."""
    ledger, moment = Ledger(sites=SITES), random.Random(seed)
    stored = while_starting = 0
    monkeypatch.setenv(hasty.DAYS, "0")
    server = RunningServer(folder, SETTINGS, hasty.__name__)
    maintenance = Maintenance(server.data)
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
            maintenance.look()
            # Now and then on another date, so that those before are over and due to be compacted;
            # else merges, sums and sweeps would never have their turn before the next kill.
            days_ahead = (number + 1) // ROUNDS_A_DAY + (number == rounds - 1)
            monkeypatch.setenv(hasty.DAYS, str(days_ahead))
            server.restart()
        assert ledger.check(server.data) == stored
        until(lambda: is_settled(server.data), "all is compacted, with visits and sums", 120)
        assert ledger.check(server.data) == stored
        assert server.terminate() == 0
    assert ledger.check(server.data) == stored
    verified = run("verify", "--data", str(server.data))
    assert verified.returncode == 0, verified.stdout
    maintenance.look()
    done = maintenance.done
    # A few rounds may have no time for merges; all else, the last one waits for.
    for reason in ("flush", "compaction", "rollup", *(["merge"] if rounds >= 20 else [])):
        assert done[reason] > 0, f"no {reason} in {done}"
    assert "Traceback" not in server.logs
    assert set(ledger.statuses) <= {200, 202}
    return (
        f"seed {seed}: {rounds} crashes under load, {while_starting} while starting; "
        f"{len(ledger.sent)} events sent, {len(ledger.acknowledged)} acknowledged, "
        f"{stored} stored, none lost, none doubled; beside them {done['flush']} flushes, "
        f"{done['merge']} merges, {done['compaction']} compactions, {done['rollup']} rollups"
    )


def is_settled(data: Path) -> bool:
    """Whether every event is in a part of one site-day, which has its visits and sums."""
    with LocalReader(data, Files()) as reader:
        snapshot = reader.snapshot()
        left = reader.manifest.retired()
    summed = {
        (site_id, date) for (site_id, _), file in snapshot.rollups.items() for date in file.sources
    }
    return (
        not snapshot.recent
        and not left
        and all(day.sessions and len(day.parts) == 1 for day in snapshot.days.values())
        and summed == snapshot.days.keys()
    )


async def test_an_acknowledged_event_survives_kill_9_exactly_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(await crash_rounds(tmp_path, 3, 1, monkeypatch))


@pytest.mark.long
async def test_an_acknowledged_event_survives_a_hundred_kills_exactly_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds, seed = (
        int(os.environ.get("CRASH_ROUNDS", "100")),
        int(os.environ.get("CRASH_SEED", "7")),
    )
    print(await crash_rounds(tmp_path, rounds, seed, monkeypatch))
