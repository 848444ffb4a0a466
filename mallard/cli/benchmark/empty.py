"""What Mallard is compared with: `python -m mallard.cli.benchmark.empty starlette|bare`.

An endpoint that reads nothing and answers 202 with an empty body, under uvicorn as `mallard serve`
sets it up. "starlette" is an application with this one route; "bare" is an ASGI function, the least
that any Python server on uvicorn can do.
"""

from __future__ import annotations

import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mallard.cli.benchmark.traffic import EVENT_PATH
from mallard.cli.uvicorn_settings import BACKLOG, UVICORN


async def _accept(request: Request) -> Response:
    return Response(status_code=202)


async def _bare(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def main() -> None:
    """Serve until killed; say where once it can be connected to."""
    starlette = Starlette(routes=[Route(EVENT_PATH, _accept, methods=["POST"])])
    app: ASGIApp = starlette if sys.argv[1] == "starlette" else _bare
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    print(f"{sys.argv[1]} serves http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, lifespan="off", **UVICORN)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
