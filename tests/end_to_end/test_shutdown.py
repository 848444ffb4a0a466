"""Asked to stop under load, the server answers what it took and leaves everything in Parquet."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from tests.end_to_end.load import AGENT, Ledger, event, start_clients
from tests.end_to_end.server import RunningServer, run
from tests.end_to_end.wire import Connection, message

# Only what shutting down flushes is in Parquet at its end.
SETTINGS = {"buffer.flush_events": "100000", "buffer.flush_interval_seconds": "3600"}


def names_in_parquet(data: Path) -> list[str]:
    """Return the names of all events in the files, by no help of Mallard's."""
    names: list[str] = []
    for path in data.glob("recent/*.parquet"):
        with pq.ParquetFile(path) as file:
            names += file.read(columns=["event_name"])["event_name"].to_pylist()
    return names


def assert_clean(server: RunningServer, ledger: Ledger) -> None:
    """Assert that a stopped server's folder holds each event once, all of them in Parquet."""
    stored = ledger.check(server.data)
    names = names_in_parquet(server.data)
    assert len(names) == len(set(names)) == stored
    assert list((server.data / "wal").iterdir()) == []
    verified = run("verify", "--data", str(server.data))
    assert verified.returncode == 0, verified.stdout
    assert f"{stored:,} events in 1 parts" in verified.stdout
    assert "Traceback" not in server.logs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_what_is_stored_at_the_end_is_what_was_answered(
    tmp_path: Path, number: signal.Signals
) -> None:
    ledger = Ledger(pixels=False)
    with RunningServer(tmp_path, SETTINGS) as server:
        clients = start_clients(server.port, ledger)
        await ledger.more(random.Random(number).randrange(300, 600))
        os.kill(server.pid, number)
        await clients
        assert server.wait() == 0
    assert set(ledger.statuses) <= {202, 503}
    # Not one more: who was not answered was not accepted either, and may send it again.
    assert set(names_in_parquet(server.data)) == ledger.acknowledged
    assert_clean(server, ledger)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_costs_nothing_that_was_answered(
    tmp_path: Path, first: signal.Signals, second: signal.Signals
) -> None:
    ledger = Ledger()
    with RunningServer(tmp_path, SETTINGS) as server:
        clients = start_clients(server.port, ledger)
        await ledger.more(200)
        os.kill(server.pid, first)
        for _ in range(random.Random(first * second).randrange(200)):
            await asyncio.sleep(0)
        os.kill(server.pid, second)
        await clients
        assert server.wait() == 0
    assert_clean(server, ledger)


async def test_a_request_under_way_is_answered_and_an_idle_connection_is_closed(
    tmp_path: Path,
) -> None:
    request = message("POST", "/api/event", orjson.dumps(event("late")), {"User-Agent": AGENT})
    with RunningServer(tmp_path, SETTINGS) as server:
        idle, late = await Connection.open(server.port), await Connection.open(server.port)
        async with idle, late:
            await late.send(request[:-1])
            await is_heard(server.port)
            os.kill(server.pid, signal.SIGTERM)
            with pytest.raises(EOFError):
                await idle.answer()
            await late.send(request[-1:])
            assert (await late.answer()).status == 202
        assert server.wait() == 0
    assert names_in_parquet(server.data) == ["late"]


async def test_a_second_ctrl_c_gives_up_slow_clients_and_not_the_data(tmp_path: Path) -> None:
    ledger = Ledger()
    with RunningServer(tmp_path, SETTINGS) as server:
        async with await Connection.open(server.port) as slow:
            await slow.send(message("POST", "/api/event", b"{}")[:-1])
            clients = start_clients(server.port, ledger, count=4)
            await ledger.more(100)
            os.kill(server.pid, signal.SIGINT)
            await clients  # nobody listens any more, and the server waits for the slow client
            os.kill(server.pid, signal.SIGINT)
            assert server.wait() == 0
    assert_clean(server, ledger)


async def is_heard(port: int) -> None:
    """Return once the server has read what was sent before on other connections."""
    for _ in range(2):
        async with await Connection.open(port) as connection:
            assert (await connection.request("GET", "/health/live")).status == 200
