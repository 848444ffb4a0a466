"""Who writes the log: the event loop where the disk is quick, the thread otherwise."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from mallard.buffer import buffer as buffer_module
from mallard.buffer.commit import Receipt
from mallard.errors import Overloaded
from tests.buffer.rig import Rig, Rigs, names, until_true
from tests.factories import make_event


async def test_where_the_disk_is_quick_the_event_loop_writes_what_came_in_one_turn(
    rigs: Rigs,
) -> None:
    rig = rigs()
    await rig.quick()
    receipts = await asyncio.gather(*(rig.buffer.append([make_event()]) for _ in range(5)))
    assert [receipt.first_position for receipt in receipts] == [2, 3, 4, 5, 6]
    assert rig.files.writers == ["mallard-log", "MainThread"]
    assert tuple(rig.logged()) == rig.buffer.tail()


async def test_a_slow_disk_is_the_threads_and_the_loop_tries_it_again_later(rigs: Rigs) -> None:
    rig = rigs()
    await rig.quick()

    def take(seconds: float) -> None:
        assert rig.clock.seconds is not None
        rig.clock.seconds += seconds

    rig.files.meanwhile = partial(take, 0.005)
    for _ in range(6):
        await rig.buffer.append([make_event()])
    loop, thread = ["MainThread"], ["mallard-log"]
    assert rig.files.writers == thread + loop * 3 + thread * 3
    rig.thread_is_through()
    take(50 * 0.005)
    await rig.buffer.append([make_event()])
    assert rig.files.writers[7:] == loop
    rig.files.meanwhile = partial(take, 2.0)  # a single long stall is enough
    await rig.buffer.append([make_event()])
    rig.files.meanwhile = partial(take, 0.0)
    take(50 * 2.0 - 1)
    await rig.buffer.append([make_event()])
    rig.thread_is_through()
    take(2.0)
    await rig.buffer.append([make_event()])
    assert rig.files.writers[8:] == loop + thread + loop
    assert len(rig.logged()) == 11


async def test_a_batch_is_the_threads_where_its_sync_would_hold_the_loop_up(
    rigs: Rigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer_module, "LOOP_EVENTS_MAX", 2)
    rig = rigs()
    await rig.quick()
    for events in (2, 3, 1):
        await rig.buffer.append([make_event()] * events)
        rig.thread_is_through()
    batch = "mallard-log" if rig.files.beside is None else "MainThread"
    assert rig.files.writers[1:] == ["MainThread", batch, "MainThread"]


async def test_a_failure_on_the_loop_is_looked_after_by_the_thread(
    rigs: Rigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer_module, "PROBE_SECONDS", 0.01)
    rig = rigs()
    await rig.quick()
    rig.files.fail = {"sync"}
    with pytest.raises(Overloaded):
        await rig.buffer.append([make_event(event_name="refused")])
    assert rig.files.writers == ["mallard-log", "MainThread"]
    rig.files.fail = set()
    await until_true(lambda: rig.buffer.failure is None, "the probe clears the failure")
    assert set(rig.files.writers[2:]) == {"mallard-log"}
    assert (await rig.buffer.append([make_event()])).first_position == 2
    assert names(rig.logged()) == ["before", "pageview"]


async def test_closing_waits_for_a_write_on_the_loop(rigs: Rigs) -> None:
    rig = rigs()
    await rig.quick()
    closing = threading.Thread(target=rig.buffer.close)
    alive: list[bool] = []

    def close_meanwhile() -> None:
        rig.files.meanwhile = lambda: None
        closing.start()
        closing.join(0.05)
        alive.append(closing.is_alive())

    rig.files.meanwhile = close_meanwhile
    receipt = await rig.buffer.append([make_event(event_name="last")])
    closing.join()
    assert alive == [True]
    assert receipt.first_position == 2
    assert names(rig.logged()) == ["before", "last"]


async def test_a_trim_keeps_the_loop_from_writing_and_not_from_going_on(rigs: Rigs) -> None:
    rig = rigs()
    await rig.quick()
    with rig.buffer._committer.turn:
        waiting = asyncio.ensure_future(rig.buffer.append([make_event()]))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
    assert (await waiting).first_position == 2
    assert rig.files.writers == ["mallard-log", "mallard-log"]


async def test_a_flush_waits_for_no_turn_while_the_log_holds_more(rigs: Rigs) -> None:
    rig = rigs(segment_bytes=1)
    for _ in range(4):
        await rig.buffer.append([make_event()])
    assert rig.buffer.wal.segment_count == 4
    with rig.buffer._committer.turn:
        releasing = threading.Thread(target=rig.buffer.release, args=(2,))
        releasing.start()
        releasing.join(60)
        assert rig.buffer.wal.segment_count == 2
    rig.buffer.release(4)
    assert rig.buffer.wal.segment_count == 0


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, beside=True)
    yield rig
    rig.buffer.close()


async def under_way(rig: Rig, name: str) -> asyncio.Future[Receipt]:
    """Append an event and return while its sync is under way."""
    await rig.quick()
    rig.syncs.at_once = False
    waiting = asyncio.ensure_future(rig.buffer.append([make_event(event_name=name)]))
    for _ in range(3):
        await asyncio.sleep(0)
    assert rig.syncs.under_way
    return waiting


async def test_what_comes_during_a_sync_beside_the_loop_goes_with_the_next(beside: Rig) -> None:
    first = await under_way(beside, "first")
    others = [asyncio.ensure_future(beside.buffer.append([make_event()])) for _ in range(3)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert not first.done()
    assert names(beside.buffer.tail()) == ["before"]  # nothing is shown before it is durable
    beside.syncs.let_end()
    assert (await first).first_position == 2
    assert names(beside.buffer.tail()) == ["before", "first"]
    beside.syncs.let_end()
    assert [(await other).first_position for other in others] == [3, 4, 5]
    assert beside.files.writers == ["mallard-log", "MainThread", "MainThread"]


async def test_what_comes_during_a_sync_that_fails_is_stored_and_takes_its_numbers(
    beside: Rig,
) -> None:
    first = await under_way(beside, "refused")
    second = asyncio.ensure_future(beside.buffer.append([make_event(event_name="stored")]))
    await asyncio.sleep(0)
    assert not first.done()
    beside.files.fail = {"end_sync"}
    beside.syncs.let_end()
    with pytest.raises(Overloaded, match="Input/output error"):
        await first
    assert (await second).first_position == 2
    assert beside.files.writers[2:][-1] == "mallard-log"  # who looks after a log that failed
    assert names(beside.logged()) == ["before", "stored"]


@pytest.mark.parametrize("by", ["the loop", "a thread"])
async def test_closing_settles_those_whose_sync_is_under_way(by: str, beside: Rig) -> None:
    first = await under_way(beside, "first")
    last = asyncio.ensure_future(beside.buffer.append([make_event(event_name="last")]))
    await asyncio.sleep(0)
    beside.syncs.let_end()
    if by == "the loop":
        beside.buffer.close()
    else:
        await asyncio.to_thread(beside.buffer.close)
    assert [(await each).first_position for each in (first, last)] == [2, 3]
    assert names(beside.logged()) == ["before", "first", "last"]


def test_closing_waits_for_a_sync_whose_loop_is_gone(beside: Rig) -> None:
    async def leave() -> None:
        await under_way(beside, "first")

    asyncio.run(leave())
    beside.syncs.let_end()
    beside.buffer.close()
    assert names(beside.buffer.tail()) == ["before", "first"]


async def test_another_event_loop_goes_on_where_one_has_ended(beside: Rig) -> None:
    def elsewhere() -> None:
        async def append() -> None:
            await beside.buffer.append([make_event(event_name="there")])

        asyncio.run(append())

    await beside.quick()
    await asyncio.to_thread(elsewhere)
    await beside.buffer.append([make_event(event_name="here")])
    await asyncio.to_thread(elsewhere)
    assert names(beside.logged()) == ["before", "there", "here", "there"]
    assert not {"mallard-log", "MainThread"} & set(beside.files.writers[1::2])


@pytest.mark.parametrize(
    ("permitted", "said"),
    [(True, "is synced by io_uring"), (False, "without io_uring: .*not permitted")],
)
def test_the_server_says_how_its_log_is_synced(
    permitted: bool, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rig = Rig(tmp_path, beside=permitted)
    rig.buffer.close()
    assert re.search(said, caplog.text)
    assert rig.buffer.syncs_beside is permitted
