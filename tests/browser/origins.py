"""The two origins of a browser test: a site with pages, and a collector that keeps what comes."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from playwright.sync_api import Page

from mallard.web.pages import Tracker
from tests.waiting import until


@dataclass(frozen=True)
class Received:
    """One request to the collector."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


class Origin(ABC):
    """An HTTP server of the test, on a free port, in threads of its own.

    url: with a name that the test's browser finds here, and that is not localhost.
    """

    name = "origin.example"

    def __init__(self) -> None:
        origin = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                origin.answer(self)

            do_POST = do_OPTIONS = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://{self.name}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @abstractmethod
    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request; in any thread."""


class Collector(Origin):
    """Serves the tracker, and keeps what is sent to it instead of storing it."""

    name = "stats.example"

    def __init__(self) -> None:
        super().__init__()
        self._tracker = Tracker("/api/event")
        self._requests: list[Received] = []

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Serve the script, say which events came, or keep one and answer as Mallard would."""
        name = urlsplit(request.path).path.removeprefix("/js/script").removesuffix(".js")
        if request.path.startswith("/js/"):
            script = self._tracker.script(frozenset(filter(None, name.split("."))))
            _respond(request, 200, "text/javascript", script.plain)
            return
        if request.path == "/names":
            names = [received.body.get("n") for received in self._requests]
            _respond(request, 200, "application/json", json.dumps(names).encode())
            return
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        self._requests.append(
            Received(
                request.command, request.path, dict(request.headers), json.loads(body or b"{}")
            )
        )
        _respond(request, 202, "text/plain", b"")

    def received(self, count: int) -> list[Received]:
        """Return the requests so far once there are `count`."""
        until(lambda: len(self._requests) >= count, f"{count} requests", seconds=15)
        return list(self._requests)

    def events(self, count: int) -> list[dict[str, Any]]:
        """Return the bodies so far once there are `count`."""
        return [request.body for request in self.received(count)]

    def named(self, name: str, count: int) -> list[dict[str, Any]]:
        """Return the events of a name once there are `count` of them."""

        def found() -> list[dict[str, Any]]:
            return [request.body for request in self._requests if request.body.get("n") == name]

        until(
            lambda: len(found()) >= count,
            f"{count} of {name!r} among {[request.body.get('n') for request in self._requests]}",
            seconds=15,
        )
        return found()

    def event(self, name: str) -> dict[str, Any]:
        """Return the one event of a name, once it is here."""
        (event,) = self.named(name, 1)
        return event


class Site(Origin):
    """Serves every path the same page, whose script tag the test chooses.

    script: in the file's name. attributes, head, body: HTML. `{collector}` in them is its URL.
    """

    name = "shop.example"

    def __init__(self, collector_url: str) -> None:
        super().__init__()
        self._collector_url = collector_url
        self.script = "script.js"
        self.attributes = ""
        self.head = ""
        self.body = "<h1>Ducks</h1>"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Serve the page; a HTML document for whatever path."""
        html = f"""<!doctype html><html><head><link rel="icon" href="data:,">{self.head}
            <script defer src="{{collector}}/js/{self.script}" {self.attributes}></script>
            </head><body>{self.body}</body></html>"""
        html = html.replace("{collector}", self._collector_url)
        _respond(request, 200, "text/html; charset=utf-8", html.encode())


def nothing_but(page: Page, collector: Collector, names: list[str]) -> None:
    """Fail unless these are all events that the page has sent until now, however long it waits."""
    page.clock.run_for(5000)
    asked = sum(request.body["n"] == "the end" for request in collector.received(0))
    # What was sent before left the browser before, and has had the time of a whole exchange.
    page.evaluate(
        """url => fetch(url, {method: "POST", body: '{"n": "the end"}'}).then(() => 1)""",
        collector.url + "/api/event",
    )
    seen = [request.body["n"] for request in collector.received(asked + 1 + len(names))]
    assert sorted(seen) == sorted([*names, *["the end"] * (asked + 1)])


def _respond(request: BaseHTTPRequestHandler, status: int, kind: str, body: bytes) -> None:
    request.send_response(status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    request.send_header("Access-Control-Allow-Origin", "*")
    request.send_header("Access-Control-Allow-Headers", "*")
    request.end_headers()
    request.wfile.write(body)
