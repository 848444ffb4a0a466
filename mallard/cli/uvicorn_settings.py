"""How uvicorn is set up: for `mallard serve`, and for what `mallard bench` compares it with."""

from __future__ import annotations

from typing import Any

# Connections that wait to be accepted; the kernel lowers it to its own limit.
BACKLOG = 2048

UVICORN: dict[str, Any] = {
    "loop": "uvloop",
    "http": "httptools",
    "ws": "none",
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,  # ingest reads them itself, from trusted proxies only
    "backlog": BACKLOG,
}
