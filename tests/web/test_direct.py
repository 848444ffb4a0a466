from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import orjson
import pytest
import uvicorn

from mallard.cli.uvicorn_settings import UVICORN
from mallard.config import Config, IngestConfig
from mallard.server import Server
from mallard.web.app import Application
from mallard.web.connection import Connection
from mallard.web.direct import DirectCycle, DirectRequests
from tests.end_to_end.wire import Answer, message
from tests.end_to_end.wire import Connection as Client
from tests.waiting import until
from tests.web.running import BROWSER, started

EVENT = {"d": "a.example", "n": "signup", "u": "https://a.example/x"}
BODIES = {
    "stored": EVENT,
    "two sites": {**EVENT, "d": "a.example,b.example"},
    "missing": {"d": "a.example"},
    "empty": {**EVENT, "n": ""},
    "too long": {**EVENT, "n": "x" * 257},
    "no object": [EVENT],
}
HEADERS: dict[str, dict[str, str]] = {
    "browser": {"User-Agent": BROWSER, "Origin": "https://a.example"},
    "bot": {"User-Agent": "Googlebot/2.1"},
    "prefetch": {"User-Agent": BROWSER, "Sec-Purpose": "prefetch"},
    "foreign": {"User-Agent": BROWSER, "Origin": "https://c.example"},
}
PLACES = Config(ingest=IngestConfig(site_ids=("a.example", "b.example")))


@asynccontextmanager
async def listening(app: Application, **more: Any) -> AsyncIterator[int]:
    """Serve an application on a socket and give the port; its rooms are started already."""
    settings = {**UVICORN, "http": Connection, "lifespan": "off", "port": 0, **more}
    server = uvicorn.Server(uvicorn.Config(app, **settings))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Server, int]]:
    with started(tmp_path, PLACES) as (server, app):
        async with listening(app) as port:
            yield server, port


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[DirectCycle]:
    """Every cycle that answered at once."""
    cycles: list[DirectCycle] = []
    start = DirectCycle.start

    def note(cycle: DirectCycle, *request: Any) -> None:
        cycles.append(cycle)
        start(cycle, *request)

    monkeypatch.setattr(DirectCycle, "start", note)
    return cycles


def chunked(body: bytes, headers: Mapping[str, str]) -> bytes:
    """The same request without a length, which goes the long way."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    start = f"POST /api/event HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{head}\r\n"
    return start.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def names(server: Server) -> list[tuple[str, str, str]]:
    return [
        (event.site_id, event.event_name, event.source)
        for frame in server.buffer.tail()
        for event in frame.events
    ]


def comparable(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    return answer.status, {k: v for k, v in answer.headers.items() if k != "date"}, answer.body


@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("body", [*BODIES, "no JSON"])
async def test_both_ways_give_the_same_answer_and_store_the_same(
    served: tuple[Server, int], direct: list[DirectCycle], body: str, headers: str
) -> None:
    server, port = served
    content = orjson.dumps(BODIES[body]) if body in BODIES else b"{"
    async with await Client.open(port) as client:
        at_once = await client.request("POST", "/api/event", content, HEADERS[headers])
        assert len(direct) == 1
        stored = names(server)
        refused, dropped = dict(server.telemetry.refused), dict(server.telemetry.dropped)
        await client.send(chunked(content, HEADERS[headers]))
        long_way = await client.answer()
    assert len(direct) == 1
    assert comparable(at_once) == comparable(long_way)
    assert names(server) == stored * 2
    assert {code: 2 * count for code, count in refused.items()} == server.telemetry.refused
    assert {key: 2 * count for key, count in dropped.items()} == server.telemetry.dropped


async def test_answers_keep_the_order_of_requests_sent_ahead(
    served: tuple[Server, int], direct: list[DirectCycle]
) -> None:
    server, port = served
    requests = [
        message("POST", "/api/event", orjson.dumps(EVENT | {"n": "1"})),
        message("GET", "/health/live"),
        message("POST", "/api/event", orjson.dumps({"d": "a.example"})),
        message("POST", "/api/event", orjson.dumps(EVENT | {"n": "2"})),
    ]
    async with await Client.open(port) as client:
        await client.send(b"".join(requests))
        assert [(await client.answer()).status for _ in requests] == [202, 200, 422, 202]
    assert direct == []  # what comes with others goes the long way
    assert [name for _, name, _ in names(server)] == ["1", "2"]


async def test_a_body_that_comes_in_pieces_goes_the_long_way(
    served: tuple[Server, int], direct: list[DirectCycle]
) -> None:
    server, port = served
    request = message("POST", "/api/event", orjson.dumps(EVENT))
    async with await Client.open(port) as client, await Client.open(port) as other:
        for size in (20, len(request) - 10, len(request) - 1):
            await client.send(request[:size])
            # When the other one has its answer, the first piece has been read too.
            assert (await other.request("GET", "/health/live")).status == 200
            await client.send(request[size:])
            assert (await client.answer()).status == 202
    assert direct == []
    assert len(names(server)) == 3


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Debug-Request": "true"},
        {"Expect": "100-continue"},
        {"Content-Encoding": "identity"},
        {"Upgrade": "h2c"},
        {"Connection": "keep-alive, Upgrade"},
        {"Proxy-Connection": "keep-alive"},
        {"Origin": "https://a.example", "ORIGIN": "https://a.example"},
        {f"X-Made-Up-{number}": "" for number in range(64)},
        {"Cookie": "x" * 8_192},
    ],
)
async def test_what_is_out_of_the_ordinary_goes_the_long_way(
    served: tuple[Server, int], direct: list[DirectCycle], headers: dict[str, str]
) -> None:
    _, port = served
    async with await Client.open(port) as client:
        await client.send(message("POST", "/api/event", orjson.dumps(EVENT), headers))
        status = (await client.answer()).status
        if status == 100:
            status = (await client.answer()).status
    assert status in (200, 202)
    assert direct == []


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Every connection of the server."""
    connections: list[Connection] = []
    connection_made = Connection.connection_made

    def note(connection: Connection, transport: asyncio.Transport) -> None:
        connections.append(connection)
        connection_made(connection, transport)

    monkeypatch.setattr(Connection, "connection_made", note)
    return connections


async def test_who_does_not_read_his_answers_waits_for_the_next_one_until_he_does(
    served: tuple[Server, int], direct: list[DirectCycle], made: list[Connection]
) -> None:
    server, port = served
    event = message("POST", "/api/event", orjson.dumps(EVENT))
    async with await Client.open(port) as client, await Client.open(port) as other:
        assert (await client.request("GET", "/health/live")).status == 200
        made[0].pause_writing()  # as asyncio does once too much waits to be sent
        await client.send(event)
        assert (await other.request("GET", "/health/live")).status == 200
        await asyncio.to_thread(until, lambda: len(names(server)) == 1, "the event")
        made[0].resume_writing()
        assert (await client.answer()).status == 202
    assert direct == []


@pytest.mark.parametrize("seconds", [0, 60])
async def test_a_connection_ends_when_nothing_comes_for_long_after_the_last_answer(
    tmp_path: Path, made: list[Connection], seconds: int
) -> None:
    event = message("POST", "/api/event", orjson.dumps(EVENT))
    with started(tmp_path, PLACES) as (_, app):
        async with (
            listening(app, timeout_keep_alive=seconds) as port,
            await Client.open(port) as client,
        ):
            await client.send(event)
            assert (await client.answer()).status == 202
            made[0].timeout_keep_alive_handler()  # as if an earlier answer had armed it
            if seconds:
                await client.send(event)
                assert (await client.answer()).status == 202
            else:
                with pytest.raises(EOFError):
                    await client.answer()


async def test_a_connection_ends_too_when_what_was_answered_early_has_come(
    served: tuple[Server, int], made: list[Connection]
) -> None:
    _, port = served
    async with await Client.open(port) as client:
        await client.send(b"GET /health/live HTTP/1.1\r\nHost: m\r\nContent-Length: 1\r\n\r\n")
        assert (await client.answer()).status == 200
        await client.send(b"x")
        await asyncio.to_thread(until, lambda: not made[-1]._in_message, "the body has come")
        assert made[-1].timeout_keep_alive_task is not None


async def test_a_client_that_asks_for_it_is_hung_up_on(served: tuple[Server, int]) -> None:
    _, port = served
    async with await Client.open(port) as client:
        answer = await client.request(
            "POST", "/api/event", orjson.dumps(EVENT), {"Connection": "close"}
        )
        assert (answer.status, answer.headers["connection"]) == (202, "close")
        with pytest.raises(EOFError):
            await client.answer()


async def test_a_client_that_has_gone_costs_nothing_and_its_event_is_stored(
    served: tuple[Server, int],
) -> None:
    server, port = served
    async with await Client.open(port) as client:
        await client.send(message("POST", "/api/event", orjson.dumps(EVENT)))
    async with await Client.open(port) as client:
        answer = await client.request("POST", "/api/event", orjson.dumps(EVENT))
        assert answer.status == 202
    await asyncio.to_thread(until, lambda: len(names(server)) == 2, "both events")


async def test_a_failure_of_ours_is_a_500_that_tells_nothing(
    served: tuple[Server, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server, port = served

    quoted = "".join(("sec", "ret"))  # not in the line below, which is logged

    def fail(*_: object) -> None:
        raise ZeroDivisionError(quoted)

    monkeypatch.setattr(server.buffer, "submit", fail)
    async with await Client.open(port) as client:
        answer = await client.request("POST", "/api/event", orjson.dumps(EVENT))
        assert answer.status == 500
        assert orjson.loads(answer.body)["error"] == "internal_error"
        assert (await client.request("GET", "/health/live")).status == 200
    (record,) = [record for record in caplog.records if record.name.startswith("mallard")]
    assert "ZeroDivisionError" in record.getMessage()
    assert "secret" not in record.getMessage()


@pytest.mark.parametrize("more", ["", "Content-Length: 2\r\n", "no header\r\n"])
def test_nothing_of_a_request_stays_where_it_was_taken_apart(more: str) -> None:
    address = b"203.0.113.77"
    reader = DirectRequests({b"/api/event": lambda *_: None})
    request = b"POST /api/event HTTP/1.1\r\nX-Forwarded-For: %s\r\n%sContent-Length: 2\r\n\r\n{}"
    answer = reader.read(request % (address, more.encode()))
    assert (answer is None) == bool(more)
    if answer is not None:
        assert answer[1][b"x-forwarded-for"] == address
    del answer
    assert address not in reachable_bytes(reader)


@pytest.mark.parametrize(
    "body", [b"{}", b"{}\r\n\r\n", b"{\r\n\r\n}", b"\r\n\r\n{}", b"\n\r\n\r\n"]
)
@pytest.mark.parametrize("following", [b"{}", b"[\r\n\r\n]", b""])
def test_nothing_but_one_whole_request_is_taken_apart(body: bytes, following: bytes) -> None:
    line = b"POST /api/event HTTP/1.1\r\n"
    head = line + b"Host: a.example\r\nContent-Length: %d\r\n\r\n"
    first, second = head % len(body) + body, head % len(following) + following
    for cut in range(len(first + second) + 1):
        reader = DirectRequests({b"/api/event": lambda *_: None})
        taken = reader.read((first + second)[:cut])
        if cut == len(first) and b"\r\n\r\n" not in body:
            assert taken is not None
            assert taken[2] == body
        else:
            assert taken is None


def reachable_bytes(thing: object) -> list[bytes]:
    """Every bytes object that can be reached from a thing, through any container of its own."""
    found, seen, wait = [], set[int](), [thing]
    while wait:
        each = wait.pop()
        if id(each) in seen or isinstance(each, type | FunctionType | ModuleType):
            continue
        seen.add(id(each))
        if isinstance(each, bytes):
            found.append(each)
        wait += gc.get_referents(each)
    return found
