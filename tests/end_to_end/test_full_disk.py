"""A disk that is really full: what was acknowledged stays, the rest is told to come again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.load import AGENT, Ledger, event, start_clients
from tests.end_to_end.server import RunningServer, run
from tests.waiting import until

DISK_BYTES = 8 * 1024 * 1024
# Small, so that the disk becomes full in flushes as well as in appends.
SETTINGS = {
    "buffer.flush_events": "50",
    "buffer.flush_interval_seconds": "0.05",
    "buffer.segment_bytes": "4096",
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder whose `data` is a small file system in memory."""
    data = tmp_path / "data"
    data.mkdir()
    options = f"size={DISK_BYTES},mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", options, "mallard-test", str(data)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(
            "**** NOT TESTED: a full disk. Only root may mount the small one it takes. ****"
        )
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(data)], check=True)


def fill(data: Path, free_bytes: int) -> None:
    """Leave so many bytes of the disk free, rounded to its blocks; a server may write meanwhile."""
    (data / "ballast").unlink(missing_ok=True)
    with (data / "ballast").open("wb") as ballast:
        while (size := free(data) - free_bytes) > 0:
            with contextlib.suppress(OSError):
                os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, size)


def free(data: Path) -> int:
    status = os.statvfs(data)
    return status.f_bavail * status.f_frsize


def empty(data: Path) -> None:
    (data / "ballast").unlink()


def health(server: RunningServer) -> tuple[int, dict[str, str]]:
    """Return the readiness probe's status and what it says of each check."""
    answer = httpx.get(f"{server.url}/health/ready")
    checks: dict[str, str] = answer.json()["checks"]
    return answer.status_code, checks


def post(server: RunningServer, name: str) -> httpx.Response:
    return httpx.post(f"{server.url}/api/event", json=event(name), headers={"User-Agent": AGENT})


def failures(server: RunningServer, operation: str) -> float:
    """Return how many operations of a kind the server says have failed."""
    name = f'mallard_failures_total{{operation="{operation}"}} '
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


async def see(look: Callable[[], bool], what: str) -> None:
    """Wait for a sight while the clients go on."""
    await asyncio.to_thread(until, look, what)


def test_a_disk_that_is_nearly_full_is_refused_with_503_and_recovers_by_itself(disk: Path) -> None:
    with RunningServer(disk, {**SETTINGS, "buffer.free_bytes_min": "1048576"}) as server:
        assert post(server, "before").status_code == 202
        fill(server.data, 512 * 1024)
        refused = post(server, "refused")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"] == "overloaded"
        assert "disk" in refused.json()["detail"]
        status, checks = health(server)
        assert status == 503
        assert "disk" in checks["log"]
        assert checks["disk"] != "ok"
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        pixel = f"{server.url}/api/event?d=example.com&u=https://example.com/"
        assert httpx.get(pixel, headers={"User-Agent": AGENT}).status_code == 200
        empty(server.data)
        until(lambda: health(server)[0] == 200, "the server is ready again, though nobody asked it")
        assert post(server, "after").status_code == 202
        assert server.terminate() == 0
        assert server.shell("SELECT event_name FROM events ORDER BY position") == [
            ["before"],
            ["after"],
        ]
        assert "Traceback" not in server.logs


async def test_a_disk_that_fills_to_the_last_byte_under_load_loses_and_doubles_nothing(
    disk: Path,
) -> None:
    ledger, amount = Ledger(), random.Random(5)
    ended = asyncio.Event()
    with RunningServer(disk, {**SETTINGS, "buffer.free_bytes_min": "0"}) as server:
        clients = start_clients(server.port, ledger, lambda: not ended.is_set(), count=8)
        for _ in range(5):
            await ledger.more(100)
            fill(server.data, amount.choice([0, 4096, 20_000, 60_000, 150_000]))
            ledger.statuses.clear()
            await see(lambda: ledger.statuses[503] > 0, "events are refused")
            await see(lambda: health(server)[0] == 503, "the server is not ready")
            empty(server.data)
            await see(lambda: health(server)[0] == 200, "the server is ready again")
        await ledger.more(100)
        ended.set()
        await clients
        for operation in ("append", "flush"):
            assert failures(server, operation) > 0, f"no {operation} met the full disk"
        assert ledger.check(server.data) >= 600
        assert server.terminate() == 0
        assert "Traceback" not in server.logs
    ledger.check(server.data)
    verified = run("verify", "--data", str(server.data))
    assert verified.returncode == 0, verified.stdout


def test_a_server_that_starts_on_a_full_disk_has_what_it_had_and_recovers_by_itself(
    disk: Path,
) -> None:
    in_log = {**SETTINGS, "buffer.free_bytes_min": "0", "buffer.flush_interval_seconds": "3600"}
    with RunningServer(disk, in_log) as server:
        assert [post(server, f"event {number}").status_code for number in range(20)] == [202] * 20
        server.kill9()
        server.settings["buffer.flush_interval_seconds"] = "0.05"
        fill(server.data, 0)
        server.spawn()
        until(lambda: answers(server), "the server answers")
        assert post(server, "refused").status_code == 503
        assert health(server)[0] == 503
        empty(server.data)
        until(lambda: health(server)[0] == 200, "the server is ready again")
        assert post(server, "event 20").status_code == 202
        assert server.shell("SELECT event_name FROM events ORDER BY position") == [
            [f"event {number}"] for number in range(21)
        ]


def answers(server: RunningServer) -> bool:
    try:
        return httpx.get(f"{server.url}/health/live").status_code == 200
    except httpx.TransportError:
        return False
