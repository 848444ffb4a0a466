"""Who writes the log: the event loop where the disk is quick, the thread otherwise."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from mallard.buffer import buffer as buffer_module
from mallard.errors import Overloaded
from tests.buffer.rig import Rigs, names, until_true
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


async def test_a_batch_is_the_threads(rigs: Rigs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer_module, "LOOP_EVENTS_MAX", 2)
    rig = rigs()
    await rig.quick()
    for events in (2, 3, 1):
        await rig.buffer.append([make_event()] * events)
        rig.thread_is_through()
    assert rig.files.writers[1:] == ["MainThread", "mallard-log", "MainThread"]


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
