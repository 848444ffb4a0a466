"""Who waits until the ring has room, and for how long."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mallard.buffer import room as room_module
from mallard.buffer.ring import Ring
from mallard.buffer.room import Room

CAPACITY = 100


async def turns() -> None:
    """Give every task its turn, and what each has called soon."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_finds_room_does_not_wait() -> None:
    ring = Ring(CAPACITY, 1_000)
    assert ring.reserve(80)
    assert await Room(ring).wait(20)


async def test_a_quarter_of_what_fits_is_enough_for_any() -> None:
    ring = Ring(CAPACITY, 1_000)
    assert ring.reserve(75)
    assert await Room(ring).wait(1_000)


async def test_as_many_are_let_in_as_there_is_room_for_and_the_first_first() -> None:
    ring = Ring(CAPACITY, 1_000)
    room = Room(ring)
    assert ring.reserve(CAPACITY)
    waiting = [asyncio.create_task(room.wait(10)) for _ in range(3)]
    await turns()
    assert not any(task.done() for task in waiting)
    ring.cancel(25)
    await turns()
    assert [task.done() for task in waiting] == [True, True, False]
    ring.cancel(10)
    await turns()
    assert [await task for task in waiting] == [True, True, True]


async def test_who_comes_later_waits_behind_the_others_but_not_who_was_let_in_before() -> None:
    ring = Ring(CAPACITY, 1_000)
    room = Room(ring)
    assert ring.reserve(85)
    large = asyncio.create_task(room.wait(20))
    await turns()
    small = asyncio.create_task(room.wait(15))
    await turns()
    assert not small.done()  # though there would be room
    assert await room.wait(15, again=True)
    assert ring.reserve(15)
    back = asyncio.create_task(room.wait(10, again=True))
    await turns()
    ring.cancel(15)
    await turns()
    assert [task.done() for task in (back, large, small)] == [True, False, False]
    ring.cancel(85)
    await turns()
    assert await large and await small


async def test_who_waits_in_vain_is_told_and_leaves_the_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ring = Ring(CAPACITY, 1_000)
    room = Room(ring)
    assert ring.reserve(CAPACITY)
    with monkeypatch.context() as patched:
        patched.setattr(room_module, "WAIT_SECONDS", 0)
        assert not await room.wait(1)
    follower = asyncio.create_task(room.wait(1))
    await turns()
    ring.cancel(1)
    assert await follower


async def test_who_stops_waiting_takes_nobodys_turn() -> None:
    ring = Ring(CAPACITY, 1_000)
    room = Room(ring)
    assert ring.reserve(CAPACITY)
    gone, stays = (asyncio.create_task(room.wait(10)) for _ in range(2))
    await turns()
    gone.cancel()
    await turns()
    ring.cancel(10)
    assert await stays


async def test_more_than_a_few_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "WAITERS_MAX", 1)
    ring = Ring(CAPACITY, 1_000)
    room = Room(ring)
    assert ring.reserve(CAPACITY)
    first = asyncio.create_task(room.wait(1))
    await turns()
    assert not await room.wait(1)
    ring.cancel(1)
    assert await first


async def test_room_that_another_thread_makes_is_noticed() -> None:
    ring = Ring(CAPACITY, 1_000)
    room = Room(ring)
    assert ring.reserve(CAPACITY)
    waiting = asyncio.create_task(room.wait(1))
    await turns()
    flusher = threading.Thread(target=ring.cancel, args=(1,))
    flusher.start()
    assert await waiting
    flusher.join()


async def test_at_the_end_nobody_waits() -> None:
    ring = Ring(CAPACITY, 1_000)
    room = Room(ring)
    assert ring.reserve(CAPACITY)
    waiting = asyncio.create_task(room.wait(1))
    await turns()
    room.close()
    assert await waiting
    assert await room.wait(1)
