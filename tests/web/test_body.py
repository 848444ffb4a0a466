"""Bodies, bounded in bytes and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from starlette.types import Message

from mallard.errors import PayloadTooLarge, SlowRequest
from mallard.web.body import BodyReader


class Sending:
    """A client that sends these pieces and then, unless it is done, waits for ever."""

    def __init__(self, pieces: Sequence[bytes], done: bool = True) -> None:
        self.pieces = list(pieces)
        self.done = done
        self.asked = 0

    async def receive(self) -> Message:
        self.asked += 1
        if not self.pieces:
            await asyncio.Event().wait()
        piece = self.pieces.pop(0)
        more = bool(self.pieces) or not self.done
        return {"type": "http.request", "body": piece, "more_body": more}


async def test_pieces_are_put_together() -> None:
    client = Sending([b"ab", b"", b"cd"])
    assert await BodyReader().read({}, client.receive, 10) == b"abcd"


@pytest.mark.parametrize("length", [b"11", b"9" * 30])
async def test_what_is_announced_as_too_large_is_not_read(length: bytes) -> None:
    client = Sending([b"x"])
    with pytest.raises(PayloadTooLarge):
        await BodyReader().read({b"content-length": length}, client.receive, 10)
    assert client.asked == 0


async def test_reading_stops_where_an_unannounced_body_becomes_too_large() -> None:
    client = Sending([b"x" * 6] * 100)
    with pytest.raises(PayloadTooLarge):
        await BodyReader().read({}, client.receive, 10)
    assert client.asked == 2


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    for pieces in ([b"x" * 10], [b"x" * 5] * 2):
        assert await BodyReader().read({}, Sending(pieces).receive, 10) == b"x" * 10


@pytest.mark.parametrize("pieces", [[], [b"begin"]])
async def test_a_body_that_does_not_come_is_given_up(pieces: list[bytes]) -> None:
    reader = BodyReader(seconds_max=0.02)
    client = Sending(pieces, done=False)
    with pytest.raises(SlowRequest):
        await asyncio.wait_for(reader.read({}, client.receive, 10), 5)
    assert await reader.read({}, Sending([b"x"]).receive, 10) == b"x"
    with pytest.raises(SlowRequest):
        await asyncio.wait_for(reader.read({}, Sending([]).receive, 10), 5)


async def test_a_cancelled_request_is_cancelled_and_not_called_slow() -> None:
    task = asyncio.create_task(BodyReader().read({}, Sending([]).receive, 10))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_client_that_goes_away_leaves_nothing() -> None:
    async def gone() -> Message:
        return {"type": "http.disconnect"}

    assert await BodyReader().read({}, gone, 10) is None
