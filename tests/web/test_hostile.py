"""Whatever is sent: no 500, no traceback, and only rows that every later query can read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Message

from mallard.event import to_table
from mallard.server import Server
from mallard.web.app import Application
from tests.web.running import BROWSER

HOSTILE = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
KEYS = ["d", "n", "u", "r", "w", "p", "ra", "rc", "$", "i", "h", "sd", "e", "v", "domain", "props"]
STATUSES = {200, 202, 204, 400, 403, 404, 405, 408, 413, 415, 422, 429, 503}

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
mostly_right = st.fixed_dictionaries(
    {
        "d": st.sampled_from(["example.com", "a,b", "x:1", "..", "CON", "a b"]),
        "n": st.text(max_size=20) | st.sampled_from(["pageview", "engagement"]),
        "u": st.text(max_size=40) | st.sampled_from(["https://e.com/%00%ff?utm_source=%00", "//"]),
    },
    optional=dict.fromkeys(KEYS[3:14], any_json),
)
header_names = st.sampled_from(
    [
        *(b"user-agent", b"origin", b"content-type", b"content-encoding", b"content-length"),
        *(b"x-forwarded-for", b"forwarded", b"accept-language", b"sec-ch-ua", b"sec-purpose"),
        *(b"sec-ch-ua-platform", b"sec-ch-ua-mobile", b"x-debug-request", b"dnt", b"referer"),
        *(b"cookie", b"host", b"access-control-request-headers", b"x-forwarded-proto"),
    ]
)
header_values = st.binary(max_size=60) | st.sampled_from(
    [b"gzip", b"deflate", b"true", b"1", b"99999999999999999999", b"-1", b"null", b"https://e.com"]
)
headers = st.lists(st.tuples(header_names, header_values), max_size=6)


class Answer:
    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            assert self.status == 0
            self.status = message["status"]
            self.headers = dict(message["headers"])
        else:
            self.body += message.get("body", b"")


async def ask(
    app: Application,
    method: str,
    path: str,
    sent: bytes = b"",
    headers: list[tuple[bytes, bytes]] | None = None,
    query: bytes = b"",
) -> Answer:
    """Send a request past any client library that would refuse to write it."""
    answer = Answer()
    messages = [{"type": "http.request", "body": sent, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": headers if headers is not None else [(b"user-agent", BROWSER.encode())],
        "client": ("203.0.113.7", 1),
        "server": ("mallard.test", 80),
    }
    await app(scope, receive, answer.send)
    assert answer.status in STATUSES, (answer.status, answer.body)
    assert b"Traceback" not in answer.body
    if answer.status >= 400:
        problem = orjson.loads(answer.body)
        assert problem["error"]
        assert problem["detail"]
    return answer


@pytest.fixture
async def app(shared: tuple[Server, Application]) -> AsyncIterator[Application]:
    yield shared[1]


@pytest.fixture(scope="module", autouse=True)
def rows_can_be_read(shared: tuple[Server, Application]) -> Iterator[None]:
    """When all of this is over, read everything that was stored, column by column."""
    yield
    server = shared[0]
    frames = server.buffer.tail()
    assert sum(len(frame.events) for frame in frames) > 50
    stored = to_table(frames)
    with duckdb.connect() as connection:
        connection.register("stored", stored)
        for name in stored.column_names:
            connection.execute(f"SELECT count({name}), min({name}::VARCHAR) FROM stored").fetchall()
        connection.execute("SELECT json_extract(props, '$.a'), json_keys(props) FROM stored")
        connection.execute("SELECT sum(revenue_amount), sum(screen_width) FROM stored").fetchall()


@HOSTILE
@given(any_json | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), any_json))
async def test_any_json_is_answered(app: Application, value: Any) -> None:
    sent = json.dumps(value).encode()
    await ask(app, "POST", "/api/event", sent)
    await ask(app, "POST", "/api/event/batch", b"[" + sent + b"]")


@HOSTILE
@given(mostly_right, headers)
async def test_nearly_right_events_are_answered(
    app: Application, value: dict[str, Any], sent_headers: list[tuple[bytes, bytes]]
) -> None:
    sent = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
    await ask(app, "POST", "/api/event", sent)
    await ask(app, "POST", "/api/event", sent, sent_headers)
    await ask(app, "POST", "/api/event/batch", b"[%b,%b]" % (sent, sent), sent_headers)


@HOSTILE
@given(st.binary(max_size=200), headers)
async def test_any_bytes_and_headers_are_answered(
    app: Application, sent: bytes, sent_headers: list[tuple[bytes, bytes]]
) -> None:
    for path in ("/api/event", "/api/event/batch"):
        await ask(app, "POST", path, sent, sent_headers)
        await ask(app, "OPTIONS", path, b"", sent_headers)
    await ask(app, "GET", "/api/event", b"", sent_headers, query=sent)
    await ask(app, "GET", "/api/event", b"", sent_headers, query=b"d=e.com&u=/x&" + sent)
    await ask(app, "GET", "/", b"", sent_headers)


@HOSTILE
@given(st.text(max_size=30), st.sampled_from(["GET", "POST", "PUT", "DELETE", "TRACE", "X"]))
async def test_any_path_is_answered(app: Application, path: str, method: str) -> None:
    await ask(app, method, "/" + path.encode(errors="replace").decode())


@pytest.mark.parametrize(
    "sent",
    [
        *(b"", b"\0", b"[]", b"{}", b"null", b"\xff" * 100, b"\xef\xbb\xbf{}", b"{" * 65_000),
        *(b'{"d":' * 10_000, b"[" * 65_000, b'{"d":"e","n":"x","u":"/","p":' + b"[" * 60_000),
        b'{"d":"e","n":"x","u":"/","w":' + b"9" * 60_000 + b"}",
        b'{"d":"e","n":"x","u":"/","ra":1e400,"rc":"USD"}',
        b'{"d":"e","n":"x","u":"/","ra":"1e1000000000","rc":"USD"}',
        b'{"d":"e","n":"x","u":"/","p":"' + b'{\\"a\\":' * 800 + b'"}',
        b'{"d":"e","n":"\\ud800","u":"/"}',
        b'{"d":"e","n":"\\u0000","u":"/"}',
        b'{"d":"../../etc/passwd","n":"x","u":"/"}',
        b'{"d":"..","n":"x","u":"/"}',
        b'{"d":"e\\u0000","n":"x","u":"/"}',
        b'{"__proto__":{"d":1},"constructor":1}',
        b"{'d':'e'}",
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><x>&a;</x>",
    ],
)
async def test_known_bad_bodies_are_refused(app: Application, sent: bytes) -> None:
    answer = await ask(app, "POST", "/api/event", sent)
    assert answer.status in (400, 422)
    assert b"etc/passwd" not in answer.body


@pytest.mark.parametrize(
    "name",
    [
        "'; DROP TABLE events; --",
        "{{7*7}}",
        "<script>alert(1)</script>",
        "%s%n",
        "🦆" * 256,
        "\u202e",
    ],
)
async def test_odd_names_are_stored_as_they_are(
    app: Application, shared: tuple[Server, Application], name: str
) -> None:
    sent = orjson.dumps({"d": "e.com", "n": name, "u": "/" + name, "p": {name: name}})
    answer = await ask(app, "POST", "/api/event", sent)
    assert answer.status == 202
    assert shared[0].buffer.tail()[-1].events[-1].event_name == name
