"""Lets requests that bring many events wait until the ring has room for them.

Invariants: who comes first is let in first. No more are let in at a time than there is room for,
and no more than `WAITERS_MAX` wait; who finds that many, or waits `WAIT_SECONDS` in vain, is told
that there is none. Nobody looks again and again: the ring says when it has let go of events.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import NamedTuple

from mallard.buffer.ring import Ring

# A flush makes room for twenty batches each tenth of a second or so; to wait for it costs little,
# and to refuse what is sent again at once costs the writing still more.
WAIT_SECONDS = 2.0
# Mostly of requests that are not read yet; if all were, of 1 MiB each.
WAITERS_MAX = 64


class _Waiter(NamedTuple):
    events: int
    let_in: asyncio.Future[bool]


class Room:
    """The line before a ring; it belongs to the event loop, but for `made`."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._line: deque[_Waiter] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        ring.tell(self.made)

    async def wait(self, count: int, *, again: bool = False) -> bool:
        """Return whether so many events, or a quarter of what fits, would be taken now.

        again: for who was let in before and found that others had taken the room meanwhile.
        """
        count = min(count, self._ring.capacity_events // 4)
        if (again or not self._line) and self._is_free(count):
            return True
        if len(self._line) >= WAITERS_MAX:
            return False
        self._loop = asyncio.get_running_loop()
        waiter = _Waiter(count, self._loop.create_future())
        if again:
            self._line.appendleft(waiter)
        else:
            self._line.append(waiter)
        timer = self._loop.call_later(WAIT_SECONDS, _tell, waiter.let_in, False)
        self._let_in()  # what was let go of before it stood in line told nobody
        try:
            return await waiter.let_in
        finally:
            timer.cancel()
            with contextlib.suppress(ValueError):  # who was let in left the line
                self._line.remove(waiter)

    def made(self) -> None:
        """Let in who finds room now; any thread may call it."""
        loop = self._loop
        if loop is not None and self._line:
            with contextlib.suppress(RuntimeError):  # a loop that is closed has nobody who waits
                loop.call_soon_threadsafe(self._let_in)

    def close(self) -> None:
        """Let everybody in, to be told that nothing is taken any more."""
        self._closed = True
        self.made()

    def _is_free(self, count: int) -> bool:
        return self._closed or count <= self._ring.free_events

    def _let_in(self) -> None:
        taken = 0
        while self._line and self._is_free(taken + self._line[0].events):
            waiter = self._line.popleft()
            taken += waiter.events
            _tell(waiter.let_in, True)


def _tell(let_in: asyncio.Future[bool], there_is_room: bool) -> None:
    if not let_in.done():
        let_in.set_result(there_is_room)
