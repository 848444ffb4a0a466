"""`mallard serve`: the server's process, from settings to a graceful end."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import FrameType

import uvicorn

from mallard import settings
from mallard.cli import logs
from mallard.cli.uvicorn_settings import UVICORN
from mallard.config import Config, ServerConfig
from mallard.errors import ConfigError, StorageError
from mallard.processes import take_short_turns
from mallard.server import Server
from mallard.web.app import create_app
from mallard.web.connection import Connection

# Of Python's search for cycles: after how many new objects, and every how many of those searches
# among older ones. An event is a dozen objects and no cycle, so what comes and goes with events
# needs no search. What lives as long as the process is frozen, which spares the search walking it.
# Both together once measured 90-98 us of processor time a request instead of 100-106.
GC_THRESHOLDS = (10_000, 20, 100)
# How long a thread keeps Python's interpreter from one that waits for it. The flusher lets go of it
# dozens of times a flush: with Python's own 5 ms, 20,000 events beside batches that come in took
# 1.1 s to be in Parquet, and 0.4 s with 1 ms (and more batches came in); 0.5 ms were no better.
# Measured when all flushes ran in this process; large ones are written beside it now.
SWITCH_SECONDS = 0.001

_log = logging.getLogger(__name__)


def serve(path: Path | None, flags: Mapping[str, str | None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted and return.

    path: the TOML file. flags: by "table.key". Raises ConfigError, also for an address that
    cannot be listened on, and StorageError, also for a data folder that another server has.
    """
    loaded = settings.load(path, os.environ, flags)
    config = loaded.config
    logs.set_up(config.log)
    os.umask(0o077)  # DuckDB makes folders of its own for what does not fit in memory
    # uvicorn hands the signal back once it has stopped gracefully; that is a good end, not a kill.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    listener = _listen(config.server)
    try:
        try:
            _Uvicorn(_Started(config), listener).run(sockets=[listener])
        except ConfigError as error:
            raise loaded.located(error) from error
        except OSError as error:
            raise StorageError(
                f"{config.server.data} cannot be used: {error.strerror}: {error.filename}."
            ) from error
    finally:
        listener.close()


class _Started(Server):
    """Keeps what went wrong in the start, of which the lifespan's end tells the text alone."""

    failure: Exception | None = None

    def start(self) -> None:
        try:
            super().start()
        except Exception as error:
            self.failure = error
            raise


class _Uvicorn(uvicorn.Server):
    """Says where the server is once it answers there, and stops what it started."""

    def __init__(self, server: _Started, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(server),
                lifespan="on",
                timeout_graceful_shutdown=server.config.server.shutdown_timeout_seconds,
                **{**UVICORN, "http": Connection},
            )
        )
        self._mallard = server
        self._listener = listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        told = logging.getLogger("uvicorn.error")
        told.disabled = True  # what fails here is raised, and said once, by `main`
        try:
            await super().startup(sockets)
        except SystemExit:  # uvicorn's way to say that the lifespan failed
            raise self._mallard.failure or StorageError("The server did not start.") from None
        finally:
            told.disabled = False
        gc.collect()
        gc.freeze()  # what a server is made of stays: no need to search it again and again
        gc.set_threshold(*GC_THRESHOLDS)
        gc.enable()
        sys.setswitchinterval(SWITCH_SECONDS)
        take_short_turns()
        print(banner(self._mallard.config, self._listener.getsockname()[1]), flush=True)
        _log.info("started, process %d", os.getpid())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _log.info("stopping: what was accepted is answered and stored")
        await super().shutdown(sockets)
        gc.unfreeze()  # or DuckDB's binding takes what is left at the end for leaks, and says so
        if self.force_exit:
            # A second Ctrl-C is impatient with open connections, and uvicorn then leaves out the
            # rooms' own end. What was accepted is stored all the same.
            await self.lifespan.shutdown()
            await self._leave_connections()
        _log.info("stopped")

    async def _leave_connections(self) -> None:
        """End what clients still keep open, and the requests that wait for them."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if self.server_state.tasks:
            await asyncio.wait(list(self.server_state.tasks), timeout=1)


def banner(config: Config, port: int) -> str:
    """Return what the start prints: where things are, and the snippet for a page."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.server.host, config.server.host)  # noqa: S104
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    base = f"http://{host}:{port}"
    return f"""\
Mallard {version("mallard")} serves {base}
  events   {base}{config.tracker.event_paths[0]}
  health   {base}/health/ready
  metrics  {base}/metrics
  stored   {config.server.data.absolute()}
  snippet  <script defer data-domain="example.com" src="{base}{config.tracker.script_paths[0]}">\
</script>"""


def _listen(config: ServerConfig) -> socket.socket:
    """Return a socket bound to the configured address; uvicorn begins to listen on it.

    It is bound before the data folder is touched, so that a start that cannot succeed is short.
    """
    where = f"{config.host}:{config.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        is_strange = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        right = (
            "server.host must be an address of this machine; 0.0.0.0 is each of them."
            if is_strange
            else "Another program may have the port; --port and --host choose another."
        )
        raise ConfigError(
            f"cannot listen on {where}: {error.strerror}. {right}",
            field="server.host" if is_strange else "server.port",
        ) from error
    return listener


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
