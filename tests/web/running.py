"""The real application over a folder of its own, asked without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx

from mallard.clock import Clock
from mallard.config import BufferConfig, Config, ServerConfig
from mallard.event import Event
from mallard.server import Server
from mallard.web.app import Application, create_app

BROWSER = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/124.0.0.0 Safari/537.36"
)
VISITOR_ADDRESS = "203.0.113.7"


class Running:
    """A started server, and a client whose requests come from `VISITOR_ADDRESS`."""

    def __init__(self, server: Server, client: httpx.AsyncClient) -> None:
        self.server = server
        self.client = client
        self._first = len(_events(server))

    async def post(self, body: bytes | str, **headers: str) -> httpx.Response:
        """Send a body as it is to /api/event; underscores in header names become dashes."""
        return await self.client.post("/api/event", content=body, headers=_named(headers))

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers=_named(headers))

    def stored(self) -> list[Event]:
        """Return every event that was accepted since this client began, from the buffer."""
        return _events(self.server)[self._first :]

    def event(self) -> Event:
        """Return the one event that was accepted."""
        (event,) = self.stored()
        return event


@asynccontextmanager
async def running(
    data: Path, config: Config | None = None, clock: Clock | None = None
) -> AsyncIterator[Running]:
    """Run a server of its own settings, and a client of it."""
    with started(data, config, clock) as (server, app):
        async with talking_to(server, app) as mallard:
            yield mallard


@contextmanager
def started(
    data: Path, config: Config | None = None, clock: Clock | None = None
) -> Iterator[tuple[Server, Application]]:
    """Run a server that does not flush until it stops; durability is that of `os`."""
    config = config or Config()
    server = Server(
        Config(
            server=ServerConfig(data=data / "data"),
            ingest=config.ingest,
            privacy=config.privacy,
            proxy=config.proxy,
            buffer=BufferConfig(durability="os", flush_interval_seconds=3600),
            tracker=config.tracker,
            query=config.query,
        ),
        clock=clock,
    )
    app = create_app(server)
    server.start()
    try:
        yield server, app
    finally:
        server.stop()


@asynccontextmanager
async def talking_to(server: Server, app: Application) -> AsyncIterator[Running]:
    """Make a client of a server that runs."""
    transport = httpx.ASGITransport(app, client=(VISITOR_ADDRESS, 4711))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://mallard.test", headers={"user-agent": BROWSER}
    ) as client:
        yield Running(server, client)


def _events(server: Server) -> list[Event]:
    return [event for frame in server.buffer.tail() for event in frame.events]


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
