"""The doors for events, over the real application."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from mallard.buffer import room
from mallard.config import (
    BufferConfig,
    Config,
    IngestConfig,
    PrivacyConfig,
    ProxyConfig,
    TrackerConfig,
)
from mallard.errors import Overloaded
from mallard.ingest.address import AddressReader
from mallard.web.body import BodyReader
from mallard.web.collect import PIXEL, Collector
from tests.web.running import BROWSER, Running, running

EVENT = {"d": "example.com", "n": "signup", "u": "https://example.com/a"}
BODY = json.dumps(EVENT)
PIXEL_PATH = "/api/event?d=example.com&u=https://example.com/mail"
BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
TYPES = ["application/json", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "x/y"]


def body(**fields: Any) -> str:
    return json.dumps(EVENT | fields)


@pytest.mark.parametrize("content_type", TYPES)
async def test_any_content_type_is_read_as_json(mallard: Running, content_type: str) -> None:
    assert (await mallard.post(BODY, content_type=content_type)).status_code == 202
    assert len(mallard.stored()) == 1


async def test_a_body_without_a_content_type_is_read_as_json(mallard: Running) -> None:
    answer = await mallard.client.post("/api/event", content=BODY.encode())
    assert "content-type" not in answer.request.headers
    assert answer.status_code == 202


async def test_an_event_for_two_sites_is_two_rows_of_one_frame(mallard: Running) -> None:
    assert (await mallard.post(body(d="a.com,www.b.com"))).status_code == 202
    assert [event.site_id for event in mallard.stored()] == ["a.com", "b.com"]
    assert len(mallard.server.buffer.tail()[-1].events) == 2


async def test_an_event_says_through_which_door_and_client_it_came(mallard: Running) -> None:
    await mallard.post(BODY, origin="https://example.com")
    await mallard.post(BODY)
    await mallard.get(PIXEL_PATH)
    await mallard.client.post("/api/event/batch", content=f"[{BODY}]")
    assert [(event.source, event.ingest_api) for event in mallard.stored()] == [
        ("Snippet", "post"),
        ("API", "post"),
        ("Pixel", "pixel"),
        ("API", "batch"),
    ]


# --- encodings and sizes ---


def deflate_bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(BODY.encode(), mtime=0)),
        ("X-GZIP", gzip.compress(BODY.encode(), mtime=0)),
        ("deflate", zlib.compress(BODY.encode())),
        ("deflate", deflate_bare(BODY.encode())),
        ("identity", BODY.encode()),
    ],
)
async def test_compressed_bodies_are_read(mallard: Running, encoding: str, packed: bytes) -> None:
    assert (await mallard.post(packed, content_encoding=encoding)).status_code == 202
    assert mallard.event().event_name == "signup"


@pytest.mark.parametrize(
    ("encoding", "sent", "status"),
    [
        ("br", b"x", 415),
        ("gzip, gzip", b"x", 415),
        ("gzip", BODY.encode(), 400),
        ("gzip", gzip.compress(BODY.encode(), mtime=0)[:-3], 400),
        ("gzip", gzip.compress(BODY.encode(), mtime=0) + b"more", 400),
        ("gzip", b"", 400),
        ("deflate", b"\xff" * 20, 400),
    ],
)
async def test_an_encoding_that_is_not_what_it_says_is_refused(
    mallard: Running, encoding: str, sent: bytes, status: int
) -> None:
    answer = await mallard.post(sent, content_encoding=encoding)
    assert answer.status_code == status
    assert answer.json()["field"] == "Content-Encoding"
    assert mallard.stored() == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_is_413(mallard: Running, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    bomb = pack(b" " * 50_000_000)
    assert len(bomb) < 65_536
    answer = await mallard.post(bomb, content_encoding=encoding)
    assert (answer.status_code, answer.json()["error"]) == (413, "payload_too_large")


# --- drops ---


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"user_agent": BOT}, "bot"),
        ({"user_agent": BROWSER.replace("Chrome/", "HeadlessChrome/")}, "automation"),
        ({"sec_purpose": "prefetch;prerender"}, "prefetch"),
        ({"purpose": "prefetch"}, "prefetch"),
        ({"x_moz": "prefetch"}, "prefetch"),
        ({"x_purpose": "preview"}, "prefetch"),
    ],
)
async def test_a_drop_is_answered_like_the_rest_and_counted(
    mallard: Running, headers: dict[str, str], reason: str
) -> None:
    dropped = mallard.server.telemetry.dropped
    before = dropped["example.com", reason]
    answer = await mallard.post(BODY, **headers)
    assert (answer.status_code, answer.content) == (202, b"")
    assert answer.headers["x-plausible-dropped"] == "1"
    assert answer.headers["x-mallard-dropped"] == reason
    assert "x-plausible-dropped" in answer.headers["access-control-expose-headers"]
    image = await mallard.get(PIXEL_PATH, **headers)
    assert (image.status_code, image.content) == (200, PIXEL)
    assert image.headers["x-mallard-dropped"] == reason
    assert dropped["example.com", reason] == before + 2
    assert mallard.stored() == []


async def test_spam_referrers_are_dropped_on_host_boundaries(tmp_path: Path) -> None:
    config = Config(ingest=IngestConfig(blocked_referrers=("spam.example",)))
    async with running(tmp_path, config) as mallard:
        spam = await mallard.post(body(r="https://www.spam.example/x"))
        assert spam.headers["x-mallard-dropped"] == "spam_referrer"
        assert (
            "x-plausible-dropped"
            not in (await mallard.post(body(r="https://notspam.example/"))).headers
        )
        assert len(mallard.stored()) == 1


@pytest.mark.parametrize("signal", [{"sec_gpc": "1"}, {"dnt": "1"}])
@pytest.mark.parametrize(
    ("setting", "stored", "known"),
    [("anonymous", 1, False), ("drop", 0, False), ("ignore", 1, True)],
)
async def test_privacy_signals_are_treated_as_the_setting_says(
    tmp_path: Path, signal: dict[str, str], setting: str, stored: int, known: bool
) -> None:
    config = Config(privacy=PrivacyConfig(privacy_signals=setting))
    async with running(tmp_path, config) as mallard:
        answer = await mallard.post(BODY, **signal)
        assert answer.status_code == 202
        assert ("x-plausible-dropped" in answer.headers) == (not stored)
        assert [event.visitor_id is not None for event in mallard.stored()] == [known] * stored
        await mallard.post(BODY, **dict.fromkeys(signal, "0"))
        assert mallard.stored()[-1].visitor_id is not None


# --- refusals ---


async def test_a_refusal_is_counted_once_by_its_code(mallard: Running) -> None:
    refused = mallard.server.telemetry.refused
    before = refused.copy()
    await mallard.post(body(d="a b"))
    await mallard.get("/api/event")
    await mallard.get("/api/event?d=a%20b&u=x")
    assert refused - before == {"invalid_input": 2, "missing_field": 1}


async def test_a_refused_pixel_is_still_an_image_and_says_why(mallard: Running) -> None:
    for query in ("d=a%20b&u=x", "d=a&u=x&w=wide", "d=a&u=" + "x" * 2049):
        answer = await mallard.get(f"/api/event?{query}")
        assert (answer.status_code, answer.content) == (200, PIXEL)
        assert answer.headers["x-mallard-dropped"] == "invalid_input"
    assert mallard.stored() == []


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://example.com", True),
        ("http://www.example.com", True),
        ("https://example.com:8443", True),
        ("HTTPS://EXAMPLE.COM", True),
        ("http://localhost:3000", True),
        ("http://localhost:3001", False),
        ("http://localhost", False),
        ("https://sub.example.com", False),
        ("https://example.com.evil.net", False),
        ("https://notexample.com", False),
        ("null", False),
        ("", False),
        ("example.com", False),
    ],
)
async def test_an_origin_is_compared_by_its_host(
    tmp_path: Path, origin: str, allowed: bool
) -> None:
    sites = ("www.example.com", "localhost:3000")
    async with running(tmp_path, Config(ingest=IngestConfig(site_ids=sites))) as mallard:
        answer = await mallard.post(BODY, origin=origin)
        assert answer.status_code == (202 if allowed else 403)
        assert len(mallard.stored()) == allowed


async def test_site_ids_hold_for_the_site_itself_too(tmp_path: Path) -> None:
    config = Config(ingest=IngestConfig(site_ids=("example.com",)))
    async with running(tmp_path, config) as mallard:
        refused = await mallard.post(body(d="other.example"))
        assert (refused.status_code, refused.json()["field"]) == (403, "d")
        assert (await mallard.post(body(d="example.com,other.example"))).status_code == 403
        image = await mallard.get("/api/event?d=other.example&u=x")
        assert (image.status_code, image.headers["x-mallard-dropped"]) == (200, "forbidden")
        assert mallard.stored() == []
        assert (await mallard.post(body(d="www.example.com"))).status_code == 202


async def test_a_rate_is_not_spent_by_bots_and_refusals(tmp_path: Path) -> None:
    config = Config(ingest=IngestConfig(rate_limit_per_site=1))
    async with running(tmp_path, config) as mallard:
        for _ in range(3):
            await mallard.post(BODY, user_agent=BOT)
            await mallard.post(body(n=""))
        assert (await mallard.post(BODY)).status_code == 202
        assert (await mallard.post(BODY)).status_code == 429
        image = await mallard.get(PIXEL_PATH)
        assert (image.status_code, image.headers["x-mallard-dropped"]) == (200, "rate_limited")


async def test_what_the_buffer_does_not_take_is_503_and_an_image_all_the_same(
    mallard: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Overloaded("No room.", retry_after_seconds=3)

    monkeypatch.setattr(mallard.server.buffer, "submit", full)
    answer = await mallard.post(BODY)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
    assert answer.json() == {"error": "overloaded", "detail": "No room."}
    image = await mallard.get(PIXEL_PATH)
    assert (image.status_code, image.headers["x-mallard-dropped"]) == (200, "overloaded")


async def test_a_batch_waits_for_room_and_is_refused_only_when_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = json.dumps([EVENT] * 1000)
    async with running(tmp_path) as mallard:

        async def send() -> int:
            return (await mallard.client.post("/api/event/batch", content=batch)).status_code

        assert mallard.server.buffer.ring.reserve(BufferConfig().capacity_events - 1000)
        assert await send() == 202
        with monkeypatch.context() as patched:
            patched.setattr(room, "WAIT_SECONDS", 0)
            assert await send() == 503
        assert mallard.server.telemetry.failures["ring_full"] == 1
        waiting = asyncio.create_task(send())
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()
        mallard.server.flusher.flush()
        assert await waiting == 202


async def test_a_batch_is_not_read_while_it_waits_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "WAIT_SECONDS", 0)
    pieces: list[bytes] = []

    async def pieces_of_body() -> AsyncIterator[bytes]:
        pieces.append(b"[]")
        yield pieces[-1]

    async with running(tmp_path) as mallard:
        assert mallard.server.buffer.ring.reserve(BufferConfig().capacity_events)
        answer = await mallard.client.post("/api/event/batch", content=pieces_of_body())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert pieces == []


# --- methods and CORS ---


async def test_a_head_of_the_pixel_stores_nothing(mallard: Running) -> None:
    answer = await mallard.client.head(PIXEL_PATH)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "43"
    assert mallard.stored() == []


async def test_other_methods_are_405(mallard: Running) -> None:
    for method, path in (("PUT", "/api/event"), ("GET", "/api/event/batch")):
        answer = await mallard.client.request(method, path)
        assert (answer.status_code, answer.json()["error"]) == (405, "method_not_allowed")
        assert "POST" in answer.headers["allow"]


async def test_a_preflight_of_a_json_beacon_may_carry_credentials(mallard: Running) -> None:
    headers = {
        "origin": "https://example.com",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
        "access-control-request-private-network": "true",
        "sec-fetch-mode": "cors",
    }
    for path in ("/api/event", "/api/event/batch"):
        answer = await mallard.client.options(path, headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == "https://example.com"
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["access-control-allow-private-network"] == "true"
        assert "x-debug-request" in answer.headers["access-control-allow-headers"]


async def test_event_paths_can_be_named_in_the_settings(tmp_path: Path) -> None:
    config = Config(tracker=TrackerConfig(event_paths=("/e", "/api/event")))
    async with running(tmp_path, config) as mallard:
        for path in ("/e", "/api/event", "/e/batch"):
            content = f"[{BODY}]" if path.endswith("batch") else BODY
            assert (await mallard.client.post(path, content=content)).status_code == 202
        assert len(mallard.stored()) == 3


# --- debugging ---


async def test_a_debug_request_tells_and_stores_nothing(mallard: Running) -> None:
    telemetry = mallard.server.telemetry
    before = (telemetry.accepted.copy(), telemetry.refused.copy(), telemetry.dropped.copy())
    answer = await mallard.post(
        body(d="a.com,b.com", ra="1.5", rc="usd"), x_debug_request="true", origin="https://a.com"
    )
    assert answer.status_code == 200
    told = answer.json()
    assert (told["verdict"], told["client_address"]) == ("accepted", "203.0.113.7")
    assert told["sites"] == ["a.com", "b.com"]
    first, second = told["events"]
    assert first["visitor_id"] != second["visitor_id"]
    assert len(first["visitor_id"]) == 16
    assert (first["browser"], first["revenue_amount"]) == ("Chrome", "1.50")
    bot = (await mallard.post(BODY, x_debug_request="true", user_agent=BOT)).json()
    assert (bot["verdict"], bot["reason"], bot["events"]) == ("dropped", "bot", [])
    wrong = (await mallard.post(body(n=""), x_debug_request="1")).json()
    assert (wrong["verdict"], wrong["status"], wrong["field"]) == ("refused", 400, "n")
    image = await mallard.get(PIXEL_PATH, x_debug_request="true")
    assert image.json()["verdict"] == "accepted"
    batch = await mallard.client.post(
        "/api/event/batch", content=f"[{BODY}]", headers={"x-debug-request": "true"}
    )
    assert batch.json()[0]["verdict"] == "accepted"
    assert mallard.stored() == []
    assert before == (telemetry.accepted, telemetry.refused, telemetry.dropped)


async def test_a_debug_request_tells_of_refusals_and_spends_no_rate(tmp_path: Path) -> None:
    config = Config(ingest=IngestConfig(site_ids=("example.com",), rate_limit_per_site=1))
    async with running(tmp_path, config) as mallard:
        for _ in range(3):
            told = (await mallard.post(BODY, x_debug_request="true")).json()
            assert told["verdict"] == "accepted"
        told = (await mallard.post(body(d="x"), x_debug_request="true")).json()
        assert (told["verdict"], told["reason"]) == ("refused", "forbidden")
        await mallard.post(BODY)
        told = (await mallard.post(BODY, x_debug_request="true")).json()
        assert (told["verdict"], told["reason"]) == ("refused", "rate_limited")


async def test_the_address_comes_from_a_header_only_through_a_trusted_proxy(
    tmp_path: Path, mallard: Running
) -> None:
    headers = {"x_forwarded_for": "198.51.100.1", "x_debug_request": "true"}
    told = (await mallard.post(BODY, **headers)).json()
    assert told["client_address"] == "203.0.113.7"
    config = Config(proxy=ProxyConfig(trusted=("203.0.113.0/24",)))
    async with running(tmp_path, config) as behind:
        told = (await behind.post(BODY, **headers)).json()
        assert told["client_address"] == "198.51.100.1"


# --- batches ---


async def test_a_batch_is_one_frame(mallard: Running) -> None:
    events = [EVENT | {"n": f"e{number}"} for number in range(1000)]
    answer = await mallard.client.post("/api/event/batch", content=json.dumps(events))
    assert (answer.status_code, answer.content) == (202, b"")
    assert [event.event_name for event in mallard.stored()] == [event["n"] for event in events]
    assert len(mallard.server.buffer.tail()[-1].events) == 1000


async def test_a_batch_with_one_mistake_stores_nothing(mallard: Running) -> None:
    events = [EVENT, EVENT | {"u": ""}]
    answer = await mallard.client.post("/api/event/batch", content=json.dumps(events))
    assert (answer.status_code, answer.json()["field"]) == (400, "[1].u")
    answer = await mallard.client.post("/api/event/batch", content='[{"d": "x"}]')
    assert answer.status_code == 422
    assert mallard.stored() == []


async def test_a_batch_over_a_mebibyte_is_413(mallard: Running) -> None:
    content = json.dumps([EVENT]) + " " * 2**20
    answer = await mallard.client.post("/api/event/batch", content=content)
    assert answer.status_code == 413


async def test_a_batch_stores_what_is_admitted_and_tells_of_the_rest(tmp_path: Path) -> None:
    config = Config(ingest=IngestConfig(blocked_referrers=("spam.example",)))
    async with running(tmp_path, config) as mallard:
        events = [EVENT, EVENT | {"r": "https://spam.example/"}]
        answer = await mallard.client.post("/api/event/batch", content=json.dumps(events))
        assert answer.headers["x-mallard-dropped"] == "spam_referrer"
        assert len(mallard.stored()) == 1


# --- time ---


async def test_a_body_that_does_not_arrive_is_408(mallard: Running) -> None:
    server = mallard.server
    addresses = AddressReader(server.config.proxy)
    hasty = Collector(server.pipeline, addresses, server.telemetry, BodyReader(seconds_max=0.02))
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("nothing ever comes")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/event", "headers": []}
    await asyncio.wait_for(hasty.event(scope, receive, send), 5)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert (b"access-control-allow-origin", b"*") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["error"] == "request_timeout"
