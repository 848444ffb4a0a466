"""Strangers send anything: the server answers, stays small, and every stored row can be read."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from mallard.query.events import open_folder
from mallard.web.body import BODY_SECONDS_MAX
from mallard.web.collect import EVENT_BYTES_MAX
from mallard.web.connection import ANSWERED_BYTES_MAX, HEAD_BYTES_MAX, HEAD_SECONDS_MAX
from tests.end_to_end import hostile
from tests.end_to_end.load import AGENT, event
from tests.end_to_end.server import RunningServer, run
from tests.end_to_end.wire import Answer, Connection, message

BODY = orjson.dumps(event("honest"))
# Above what honest traffic took: caches of seen agents and URLs, one read of each connection,
# what the allocator keeps. One bomb or one endless body that is held whole is more.
GROWTH_BYTES_MAX = 64 * hostile.MIB
CHUNKED = b"POST /api/event HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[RunningServer]:
    """A server that believes its proxy's headers, and whatever happens says nothing of a fault."""
    settings = {"proxy.trusted": "loopback", "buffer.flush_events": "100", "log.level": "debug"}
    with RunningServer(tmp_path, settings) as server:
        yield server
        assert "Traceback" not in server.logs
        assert "a request failed with" not in server.logs


async def answer_to(server: RunningServer, data: bytes) -> Answer | None:
    """Send bytes on a connection of their own and end it; None where it is closed unanswered."""
    with contextlib.suppress(OSError, EOFError):
        async with await Connection.open(server.port) as connection:
            with contextlib.suppress(OSError):  # it may answer and close before all is sent
                await connection.send(data)
                connection.end()
            return await connection.answer()
    return None


async def post(connection: Connection) -> Answer:
    return await connection.request("POST", "/api/event", BODY, {"User-Agent": AGENT})


def memory(server: RunningServer) -> int:
    """Return what the process has of the machine's memory (VmRSS), in bytes."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def read_everything(data: Path) -> int:
    """Run queries over all that is stored, in every column; return the number of rows."""
    with open_folder(data) as connection:
        rows = connection.execute("SELECT * FROM events").fetchall()
        asked = connection.execute(
            "SELECT json_extract(props, '$.a'), json_keys(props), json_valid(props), "
            "event_id::VARCHAR, strftime(timestamp, '%Y'), upper(url), sum(revenue_amount) OVER () "
            "FROM events"
        ).fetchall()
        connection.execute("SELECT site_id, pathname, count(*) FROM events GROUP BY ALL").fetchall()
    assert all(row[2] is not False for row in asked), "props that are not JSON"
    for row in rows:
        repr(row).encode()  # no half of a surrogate pair
    assert len(asked) == len(rows)
    return len(rows)


async def test_no_hostile_request_breaks_the_server_or_a_later_query(
    guarded: RunningServer,
) -> None:
    statuses: Counter[int] = Counter()
    async with await Connection.open(guarded.port) as honest:
        for _ in range(300):
            assert (await post(honest)).status == 202
        before = memory(guarded)
        sent = [message("POST", "/api/event", body) for body in hostile.json_bodies()]
        sent += [message("POST", "/api/event/batch", body) for body in hostile.batch_bodies()]
        sent += hostile.whole_requests()
        for start in range(0, len(sent), 16):
            asked = sent[start : start + 16]
            for data, answer in zip(
                asked,
                await asyncio.gather(*(answer_to(guarded, data) for data in asked)),
                strict=True,
            ):
                statuses[answer.status if answer else 0] += 1
                assert answer is None or answer.status < 500, (data[:300], answer)
        assert (await post(honest)).status == 202
    assert memory(guarded) - before < GROWTH_BYTES_MAX
    assert {200, 202, 204, 400, 404, 405, 413, 415, 422} <= statuses.keys()
    assert read_everything(guarded.data) > 300
    assert guarded.terminate() == 0
    assert read_everything(guarded.data) > 300
    verified = run("verify", "--data", str(guarded.data))
    assert verified.returncode == 0, verified.stdout


async def test_who_takes_his_time_is_answered_or_cut_off_in_bounded_time(
    guarded: RunningServer,
) -> None:
    async def drip(connection: Connection) -> Answer:
        """Send a byte a time, and look for an answer in between."""
        while True:
            await connection.send(b"x")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    return await connection.answer()

    async def slow(start: bytes, *, drips: bool = False) -> int:
        """Send the start of a request, and return how the server ends it; 0: unanswered."""
        async with await Connection.open(guarded.port) as connection:
            await connection.send(start)
            try:
                answer = await (drip(connection) if drips else connection.answer())
            except (OSError, EOFError):
                return 0
            return answer.status

    head = b"POST /api/event HTTP/1.1\r\nHost: x\r\n"
    starts = [
        (slow(b""), 0),
        (slow(b"PO"), 408),
        (slow(head), 408),
        (slow(head + b"X: ", drips=True), 408),
        (slow(message("GET", "/health/live") + head), 200),
        (slow(head + b"Content-Length: 100\r\n\r\n{"), 408),
        (slow(head + b"Content-Length: 9000\r\n\r\n{", drips=True), 408),
        (slow(CHUNKED + b"5\r\nab"), 408),
        (slow(CHUNKED + b"0\r\nX: ", drips=True), 408),
    ]
    async with asyncio.timeout(HEAD_SECONDS_MAX + BODY_SECONDS_MAX + 10):
        ended = await asyncio.gather(*(attempt for attempt, _ in starts))
    assert ended == [status for _, status in starts]


# What is sent first, then over and over; how many bytes must be allowed; the answer, if any.
ENDLESS = {
    "body": (CHUNKED, b"8000\r\n" + b"x" * 0x8000 + b"\r\n", ANSWERED_BYTES_MAX, 413),
    "chunk extension": (CHUNKED, b"1;" + b"e" * 0x8000 + b"\r\nx\r\n", EVENT_BYTES_MAX, 413),
    "header": (b"GET / HTTP/1.1\r\nX: ", b"x" * 0x8000, HEAD_BYTES_MAX, 431),
    "URL": (b"GET /?", b"x" * 0x8000, HEAD_BYTES_MAX, 431),
    "headers": (b"GET / HTTP/1.1\r\n", b"X: x\r\n" * 0x1000, HEAD_BYTES_MAX, 431),
    "trailers": (CHUNKED + b"0\r\n", b"X: x\r\n" * 0x1000, hostile.MIB, None),
    "trailer": (CHUNKED + b"0\r\nX: ", b"x" * 0x8000, hostile.MIB, None),
    "body of a GET": (
        CHUNKED.replace(b"POST /api/event", b"GET /health/live"),
        b"8000\r\n" + b"x" * 0x8000 + b"\r\n",
        ANSWERED_BYTES_MAX,
        200,
    ),
    "pipeline": (b"", message("GET", "/health/live") * 1000, HEAD_BYTES_MAX, 200),
}


async def test_what_never_ends_is_cut_off_before_it_costs_memory(guarded: RunningServer) -> None:
    for what, (start, piece, allowed, status) in ENDLESS.items():
        before = memory(guarded)
        sent = 0
        async with await Connection.open(guarded.port) as connection:
            with contextlib.suppress(OSError):
                await connection.send(start)
                while sent < 256 * hostile.MIB:
                    await connection.send(piece)
                    sent += len(piece)
            # The sockets hold some MiB.
            assert allowed < sent < allowed + 64 * hostile.MIB, what
            with contextlib.suppress(OSError, EOFError):  # a reset may overtake the answer
                assert (await connection.answer()).status == status, what
        assert memory(guarded) - before < GROWTH_BYTES_MAX, what
    async with await Connection.open(guarded.port) as honest:
        assert (await post(honest)).status == 202


async def test_requests_sent_ahead_of_their_answers_are_answered_in_turn(
    guarded: RunningServer,
) -> None:
    async with await Connection.open(guarded.port) as connection:
        await connection.send(message("POST", "/api/event", BODY, {"User-Agent": AGENT}) * 50)
        assert [(await connection.answer()).status for _ in range(50)] == [202] * 50
    assert read_everything(guarded.data) == 50


async def test_what_is_no_http_is_refused_in_the_one_shape_and_behind_earlier_answers(
    guarded: RunningServer,
) -> None:
    event = message("POST", "/api/event", BODY, {"User-Agent": AGENT})
    for sent, statuses in (
        (b"\x16\x03\x01\x02\r\n\r\n", [400]),
        (event + b"\x16\x03\x01\x02\r\n\r\n", [202]),
        (CHUNKED + b"no size\r\n", [400]),
        (message("GET", "/" + "x" * 65_536), [400]),
        (message("CONNECT", "/api/event"), [405]),
    ):
        async with await Connection.open(guarded.port) as connection:
            await connection.send(sent)
            for status in statuses:
                answer = await connection.answer()
                assert answer.status == status
                if status >= 400:
                    assert orjson.loads(answer.body).keys() == {"error", "detail"}
    assert "websockets" not in guarded.logs
    assert read_everything(guarded.data) == 1


async def test_a_client_that_offers_an_upgrade_is_served_without_one(
    guarded: RunningServer,
) -> None:
    offer = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAMAAABk",
    }
    async with await Connection.open(guarded.port) as connection:
        for _ in range(2):
            headers = {"User-Agent": AGENT, **offer}
            answer = await connection.request("POST", "/api/event", BODY, headers)
            assert answer.status == 202
    assert read_everything(guarded.data) == 2


async def test_a_client_that_ends_its_side_after_the_request_gets_the_answer(
    guarded: RunningServer,
) -> None:
    answer = await answer_to(guarded, message("POST", "/api/event", BODY, {"User-Agent": AGENT}))
    assert answer is not None
    assert (answer.status, answer.headers["connection"]) == (202, "close")


async def test_a_trailer_is_not_taken_for_a_header(guarded: RunningServer) -> None:
    head = CHUNKED[:-2] + b"X-Debug-Request: true\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n"
    chunk = b"%x\r\n%s\r\n" % (len(BODY), BODY)
    trailer = b"0\r\nX-Forwarded-For: 203.0.113.2\r\n\r\n"
    answer = await answer_to(guarded, head + chunk + trailer)
    assert answer is not None
    assert orjson.loads(answer.body)["client_address"] == "203.0.113.1"
