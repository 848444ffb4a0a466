"""Limits of requests, over a real socket: whoever sends too much is answered and let go."""

from __future__ import annotations

import gzip

import orjson
import pytest

from tests.end_to_end.server import RunningServer
from tests.end_to_end.wire import Connection

EVENT = b'{"d":"example.com","n":"x","u":"/"}'
ANNOUNCED = b"POST /api/event HTTP/1.1\r\nHost: m\r\nContent-Length: 99999999\r\n\r\n"
CHUNKED = b"POST /api/event HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_body_that_is_too_large_is_answered_before_it_is_all_there(
    server: RunningServer,
) -> None:
    async with await Connection.open(server.port) as connection:
        await connection.send(ANNOUNCED)
        answer = await connection.answer()
        assert answer.status == 413
        assert orjson.loads(answer.body)["error"] == "payload_too_large"


@pytest.mark.parametrize("mebibytes", [4, 50])
async def test_who_sends_all_of_a_body_that_is_too_large_gets_the_answer_and_may_go_on(
    server: RunningServer, mebibytes: int
) -> None:
    async with await Connection.open(server.port) as connection:
        large = EVENT[:-1] + b',"x":"' + b"x" * mebibytes * 1024 * 1024 + b'"}'
        answer = await connection.request("POST", "/api/event", large)
        assert (answer.status, orjson.loads(answer.body)["error"]) == (413, "payload_too_large")
        assert (await connection.request("POST", "/api/event", EVENT)).status == 202


async def test_a_body_without_a_length_is_cut_off_at_the_limit(server: RunningServer) -> None:
    async with await Connection.open(server.port) as connection:
        await connection.send(CHUNKED)
        for _ in range(5):
            await connection.send(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        # The last chunk never comes, and the answer does.
        assert (await connection.answer()).status == 413


async def test_chunked_and_compressed_events_are_taken(server: RunningServer) -> None:
    async with await Connection.open(server.port) as connection:
        half = len(EVENT) // 2
        pieces = (EVENT[:half], EVENT[half:])
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        await connection.send(CHUNKED + chunks + b"0\r\n\r\n")
        assert (await connection.answer()).status == 202
        packed = {"Content-Encoding": "gzip"}
        answer = await connection.request("POST", "/api/event", gzip.compress(EVENT), packed)
        assert answer.status == 202
