"""Backups of a server that takes events and writes them to Parquet all the while."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from mallard.query.events import open_folder
from tests.end_to_end.load import Ledger, start_clients
from tests.end_to_end.server import RunningServer, run

# Small, so that a backup meets flushes, merges and trims of the log.
SETTINGS = {
    "buffer.flush_events": "50",
    "buffer.flush_interval_seconds": "0.05",
    "buffer.segment_bytes": "4096",
    "buffer.free_bytes_min": "0",
    "store.merge_files": "2",
}


def must(*arguments: str) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names_in(data: Path) -> Counter[str]:
    """The events of a folder, whose positions have no holes."""
    with open_folder(data) as connection:
        rows = connection.sql("SELECT event_name, position FROM events ORDER BY 2").fetchall()
    assert [position for _, position in rows] == list(range(1, len(rows) + 1))
    return Counter(name for name, _ in rows)


async def test_a_backup_under_load_holds_what_was_acknowledged_before_it_began(
    tmp_path: Path,
) -> None:
    ledger, target = Ledger(pixels=False), tmp_path / "backup"
    with RunningServer(tmp_path, SETTINGS) as server:
        clients = start_clients(server.port, ledger, count=4)
        for _ in range(3):
            await ledger.more(100)
            before = set(ledger.acknowledged)
            await asyncio.to_thread(must, "backup", str(target), "--data", str(server.data))
            found = names_in(target)
            assert before <= found.keys()
            assert max(found.values()) == 1
            await asyncio.to_thread(must, "verify", "--data", str(target))
        server.kill9()
        await clients

    # The machine is lost; another one goes on from the backup.
    restored = RunningServer(tmp_path / "other", SETTINGS)
    (tmp_path / "other").mkdir()
    must("restore", str(target), "--data", str(restored.data))
    assert names_in(restored.data) == found
    with restored:
        more = Ledger(pixels=False)
        clients = start_clients(restored.port, more, count=1)
        await more.more(10)
        restored.kill9()
        await clients
    assert sum(names_in(restored.data).values()) >= sum(found.values()) + 10
    must("verify", "--data", str(restored.data))
