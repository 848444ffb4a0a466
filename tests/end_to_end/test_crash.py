"""Killed at any moment, under load, over and over: what was acknowledged is stored exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from pathlib import Path

import psutil
import pytest

from mallard.files import Files
from mallard.jobs.flush import ROWS_BESIDE
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
# Every flush but the last one has so many events that a process beside the server writes it, and
# no other work has one.
BESIDE = {
    "buffer.flush_events": str(ROWS_BESIDE),
    "buffer.flush_interval_seconds": "3600",
    "buffer.free_bytes_min": "0",
    "store.merge_files": "1000",
}
AT_WORK = {psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP}


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


async def writer_at_work(
    server: RunningServer, maintenance: Maintenance, flushes: int
) -> psutil.Process:
    """Return the process that writes for a server, once it is seen at work after some flushes."""
    maintenance.look()
    goal, started = maintenance.done["flush"] + flushes, psutil.Process(server.pid)
    async with asyncio.timeout(60):
        while maintenance.done["flush"] < goal:
            await asyncio.sleep(0)
            maintenance.look()
        while True:
            for process in started.children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if process.status() in AT_WORK:
                        return process
            await asyncio.sleep(0)


async def crash_while_writing(
    server: RunningServer,
    ledger: Ledger,
    moment: random.Random,
    maintenance: Maintenance,
    *,
    writer_first: bool,
) -> None:
    """Kill the server while a process writes for it, or before that the process."""
    clients = start_clients(server.port, ledger, count=4)
    for kills_writer in [True, False] if writer_first else [False]:
        await ledger.more(moment.randrange(1, 10_000))
        # A writer that is killed leaves a flush to the server; one more is the next writer's.
        after_writer = writer_first and not kills_writer
        writer = await writer_at_work(server, maintenance, flushes=1 + after_writer)
        for _ in range(moment.randrange(20)):
            await asyncio.sleep(0)
        if kills_writer:
            writer.kill()
    server.kill9()
    await clients


async def writing_rounds(folder: Path, rounds: int, seed: int) -> str:
    """Crash so many times while events are written beside the server, and return the numbers."""
    ledger, moment = Ledger(sites=SITES, batches_alone_of=1_000), random.Random(seed)
    stored = 0
    server = RunningServer(folder, BESIDE)
    maintenance = Maintenance(server.data)
    with server:
        for number in range(rounds):
            writer_first = number % 2 == 0
            await crash_while_writing(
                server, ledger, moment, maintenance, writer_first=writer_first
            )
            stored = ledger.check(server.data)
            server.restart()
        # What a writer that was killed had to write, the server wrote, and said so; it may also do
        # so when it is stopped.
        maintenance.look()
        killed, here = (rounds + 1) // 2, server.logs.count("the server writes a flush itself")
        assert here == killed, server.logs
        assert server.terminate() == 0
    assert ledger.check(server.data) == stored
    assert maintenance.done["flush"] > here, "nothing was written beside the server"
    assert "Traceback" not in server.logs
    return (
        f"seed {seed}: {rounds} crashes of the server and {killed} of its writer while it wrote; "
        f"{len(ledger.acknowledged)} acknowledged, {stored} stored, none lost, none doubled; "
        f"{maintenance.done['flush']} flushes, {here} of them by the server"
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


async def test_an_acknowledged_event_survives_a_kill_while_it_is_written_beside(
    tmp_path: Path,
) -> None:
    print(await writing_rounds(tmp_path, 1, 1))


@pytest.mark.long
async def test_an_acknowledged_event_survives_a_dozen_kills_while_it_is_written_beside(
    tmp_path: Path,
) -> None:
    print(await writing_rounds(tmp_path, 12, int(os.environ.get("CRASH_SEED", "7"))))
