"""What operators and their tools ask: is it alive, can it work, what has it counted."""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mallard.server import Health
from mallard.telemetry import Telemetry

_NO_STORE = {"cache-control": "no-store"}


class Watched(Protocol):
    """What the probes look at: a `server.Server`."""

    telemetry: Telemetry

    def health(self) -> Health:
        """Look whether everything works; it reads from the disk."""


class Probes:
    """Answers /health/live, /health/ready and /metrics."""

    def __init__(self, server: Watched) -> None:
        self._server = server
        self._looking: asyncio.Task[Health] | None = None

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/health/live", self.live),
            Route("/health/ready", self.ready),
            Route("/metrics", self.metrics),
        ]

    async def live(self, request: Request) -> Response:
        """Answer 200 as long as the process answers at all; a reason to restart it if not."""
        return JSONResponse({"live": True}, headers=_NO_STORE)

    async def ready(self, request: Request) -> Response:
        """Answer 200 if events are taken and a part can be read, else 503; either way say why.

        Whoever asks while somebody else's look is under way gets the result of that one: a flood
        of questions does not become one of reads.
        """
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(asyncio.to_thread(self._server.health))
        try:
            health = await asyncio.shield(self._looking)
        except OSError as error:
            health = Health({"disk": error.strerror or "cannot be read"}, [])
        return JSONResponse(
            {"ready": health.ready, "checks": health.checks, "notes": health.notes},
            status_code=200 if health.ready else 503,
            headers=_NO_STORE,
        )

    async def metrics(self, request: Request) -> Response:
        """Answer with every counter in the Prometheus text format."""
        text = await asyncio.to_thread(self._server.telemetry.text)
        return Response(
            text, media_type="text/plain; version=0.0.4; charset=utf-8", headers=_NO_STORE
        )
