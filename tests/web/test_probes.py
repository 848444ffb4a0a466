"""What operators ask."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mallard.server import Health
from tests.web.running import Running

BODY = '{"d":"probed.example","n":"x","u":"/"}'
BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


async def test_a_process_that_answers_is_alive(mallard: Running) -> None:
    answer = await mallard.get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"live": True})


async def test_ready_says_what_was_looked_at(mallard: Running) -> None:
    answer = await mallard.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["ready"] is True
    assert set(answer.json()["checks"].values()) == {"ok"}
    assert {"log", "disk", "store"} <= answer.json()["checks"].keys()
    assert answer.headers["cache-control"] == "no-store"


async def test_not_ready_is_503_and_says_why(
    mallard: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    sick = Health({"log": "No space left on device", "store": "ok"}, ["look at this"])
    monkeypatch.setattr(mallard.server, "health", lambda: sick)
    answer = await mallard.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "checks": sick.checks, "notes": sick.notes}


async def test_a_disk_that_cannot_be_asked_is_not_ready(
    mallard: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Health:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(mallard.server, "health", fail)
    answer = await mallard.get("/health/ready")
    assert (answer.status_code, answer.json()["checks"]) == (503, {"disk": "Input/output error"})


async def test_many_who_ask_at_once_share_one_look(
    mallard: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    everybody_asked = threading.Event()

    def look() -> Health:
        nonlocal looks
        looks += 1
        assert everybody_asked.wait(10)
        return Health({"log": "ok"}, [])

    monkeypatch.setattr(mallard.server, "health", look)
    asking = [asyncio.create_task(mallard.get("/health/ready")) for _ in range(20)]
    for _ in range(20):
        await asyncio.sleep(0)
    everybody_asked.set()
    assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}
    assert looks == 1
    await mallard.get("/health/ready")
    assert looks == 2


async def test_metrics_count_what_was_accepted_refused_and_dropped(mallard: Running) -> None:
    await mallard.post(BODY)
    await mallard.post(BODY, user_agent=BOT)
    await mallard.post("{}")
    answer = await mallard.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    assert 'mallard_events_dropped_total{reason="bot",site="probed.example"} 1.0' in lines
    assert 'mallard_events_accepted_total{door="post"} 1.0' in lines
    assert 'mallard_requests_refused_total{reason="missing_field"} 1.0' in lines
    for name in ("mallard_ring_fill_ratio", "mallard_append_seconds_count", "mallard_parts "):
        assert any(line.startswith(name) for line in lines)
