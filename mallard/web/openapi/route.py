"""Answers `/api/openapi.json`; the document is made when somebody asks for the first time."""

from __future__ import annotations

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mallard.config import TrackerConfig

PATH = "/api/openapi.json"


def routes(config: TrackerConfig) -> list[Route]:
    """Return the route. config: which paths take events and serve the script."""
    made: list[bytes] = []

    async def serve(request: Request) -> Response:
        if not made:
            from mallard.web.openapi.document import document  # noqa: PLC0415

            made.append(orjson.dumps(document(config)))
        return Response(made[0], media_type="application/json")

    return [Route(PATH, serve)]
