"""What every answer has in common, and the life of the server around the application."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.types import Message

from mallard.config import BufferConfig, Config, ServerConfig, TrackerConfig
from mallard.errors import ConfigError, StorageError
from mallard.event import Frame, to_table
from mallard.server import Server
from mallard.web.app import create_app
from tests.factories import make_event
from tests.web.running import VISITOR_ADDRESS, Running

BODY = '{"d":"example.com","n":"x","u":"https://example.com/?token=secret"}'


async def test_unknown_paths_and_methods_have_the_one_error_shape(mallard: Running) -> None:
    for method, path, status, code in (
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/api/event/", 404, "not_found"),
        ("POST", "/", 405, "method_not_allowed"),
        ("DELETE", "/health/live", 405, "method_not_allowed"),
        ("GET", "/js/script.nonsense.js", 404, "not_found"),
    ):
        answer = await mallard.client.request(method, path)
        assert (answer.status_code, answer.json()["error"]) == (status, code)
        assert answer.json()["detail"]
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("setting", "paths"),
    [
        ("event_paths", ("/api/event", "/metrics")),
        ("event_paths", ("/mallard.js",)),
        ("script_paths", ("/mallard.js", "/")),
        ("script_paths", ("/a.js", "/a.js")),
    ],
)
async def test_a_path_that_is_taken_stops_the_start(
    mallard: Running, monkeypatch: pytest.MonkeyPatch, setting: str, paths: tuple[str, ...]
) -> None:
    tracker = replace(TrackerConfig(), **{setting: paths})
    monkeypatch.setattr(mallard.server, "config", Config(tracker=tracker))
    with pytest.raises(ConfigError, match=f"^tracker.{setting}: {paths[-1]} is "):
        create_app(mallard.server)


async def test_pages_carry_headers_that_keep_others_out(mallard: Running) -> None:
    answer = await mallard.get("/")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/api/event", "/health/ready"])
async def test_a_failure_of_ours_is_a_500_that_tells_nothing(
    mallard: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    quoted = f"token=secret {VISITOR_ADDRESS}"  # not in the line below, which is logged

    def fail(*_: object) -> None:
        raise ZeroDivisionError(quoted)

    monkeypatch.setattr(mallard.server.buffer, "submit", fail)
    monkeypatch.setattr(mallard.server, "health", fail)
    with caplog.at_level(logging.INFO):
        if path == "/api/event":
            answer = await mallard.post(BODY, user_agent="Marked/1.0")
            assert answer.headers["access-control-allow-origin"] == "*"
        else:
            answer = await mallard.get(path + "?token=secret", user_agent="Marked/1.0")
    assert answer.status_code == 500
    assert answer.json()["error"] == "internal_error"
    assert "Zero" not in answer.text
    ours = [record for record in caplog.records if record.name.startswith("mallard")]
    assert [record.levelname for record in ours] == ["ERROR"]
    assert "ZeroDivisionError" in ours[0].getMessage()
    assert "test_app.py" in ours[0].getMessage()
    for marked in ("secret", VISITOR_ADDRESS, "Marked"):
        assert marked not in ours[0].getMessage()


async def test_a_storage_error_is_masked_too(
    mallard: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("/srv/data/manifest is gone")

    monkeypatch.setattr(mallard.server.buffer, "submit", fail)
    answer = await mallard.post(BODY)
    assert (answer.status_code, "/srv" in answer.text) == (500, False)


async def test_the_lifespan_starts_and_stops_the_server(tmp_path: Path) -> None:
    server = Server(Config(server=ServerConfig(data=tmp_path / "data")))
    app = create_app(server)
    asked: asyncio.Queue[Message] = asyncio.Queue()
    told: asyncio.Queue[Message] = asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan", "state": {}}, asked.get, told.put))
    await asked.put({"type": "lifespan.startup"})
    assert (await told.get())["type"] == "lifespan.startup.complete"
    assert server.health().ready
    await asked.put({"type": "lifespan.shutdown"})
    assert (await told.get())["type"] == "lifespan.shutdown.complete"
    await life
    # The folder is free again.
    with_lock = Server(Config(server=ServerConfig(data=tmp_path / "data")))
    with_lock.start()
    with_lock.stop()


def test_a_damaged_newest_file_is_told_once_and_then_noted_and_a_full_disk_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(
        Config(server=ServerConfig(data=tmp_path / "data"), buffer=BufferConfig(free_bytes_min=0))
    )
    server.start()
    for position in (1, 2):
        table = to_table([Frame(position, position, server.store.node, (make_event(),))])
        server.store.publish(table, position)
    newest = server.store.snapshot().recent[-1]
    path = server.data / newest.location
    path.write_bytes(path.read_bytes()[:-4] + b"none")

    def full(*_: object) -> None:
        raise StorageError("The manifest could not be written.")

    with monkeypatch.context() as disk:
        disk.setattr(server.store, "check", full)
        assert server.health().checks["store"] == "The manifest could not be written."
    told, noted = server.health(), server.health()
    assert (told.ready, noted.ready) == (False, True)
    assert newest.location in told.checks["store"]
    assert [newest.location in note for note in noted.notes] == [True]
    server.stop()


async def test_the_first_page_shows_a_snippet_for_this_server(mallard: Running) -> None:
    page = (await mallard.get("/", host="stats.example.com:8443", x_forwarded_proto="https")).text
    assert "src=&quot;https://stats.example.com:8443/js/script.js&quot;" in page
    assert "https://stats.example.com:8443/api/event" in page
    script = await mallard.get("/js/script.js")
    assert script.status_code == 200


@pytest.mark.parametrize("host", ["<script>", '"', "a b", "x" * 300, "a:b:c"])
async def test_a_strange_host_is_not_repeated(mallard: Running, host: str) -> None:
    page = (await mallard.get("/", host=host, x_forwarded_proto="javascript")).text
    assert "http://your-server.example/js/script.js" in page


async def test_crawlers_are_sent_away(mallard: Running) -> None:
    assert (await mallard.get("/robots.txt")).text == "User-agent: *\nDisallow: /\n"
