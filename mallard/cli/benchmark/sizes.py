"""What needs no load: what a flush over many sites costs, and how large the tracker is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median
from time import perf_counter

from mallard.cli.benchmark.processes import mallard
from mallard.cli.benchmark.rates import Setting
from mallard.cli.benchmark.rows import Pairs, Row, Target
from mallard.cli.benchmark.traffic import site_events
from mallard.config import BufferConfig, Config, ServerConfig
from mallard.ingest.payload import RawEvent, batch_from_json
from mallard.ingest.sender import Sender
from mallard.server import Server

FLUSH_EVENTS = 1_000
FLUSH_SITES = 300
FLUSH_PAIRS_PER_ROUND = 5
_SENDER = Sender(
    address="198.18.0.1",
    user_agent="Shop/4.2",
    origin=None,
    client_hints=None,
    language=None,
    privacy_signal=False,
    prefetch=False,
)


def flush(setting: Setting) -> Row:
    """Return the row of a flush over many sites against one over a single site."""
    folder = setting.folder
    pairs = asyncio.run(_flushes(folder, FLUSH_PAIRS_PER_ROUND * setting.rounds))
    return Row(
        f"flush of {FLUSH_EVENTS:,} events over {FLUSH_SITES} sites against 1 site",
        f"{median(pairs.first):.1f} ms : {median(pairs.second):.1f} ms ({pairs.spread})",
        pairs.ratio,
        Target(1.5, " x"),
    )


async def _flushes(folder: Path, count: int) -> Pairs:
    """Return what flushes took, in milliseconds: over many sites, over one."""
    many = batch_from_json(site_events(FLUSH_SITES, FLUSH_EVENTS))
    one = batch_from_json(site_events(1, FLUSH_EVENTS))
    pairs = Pairs([], [])
    servers = _quiet_server(folder / "many"), _quiet_server(folder / "one")
    for number in range(count):
        order = [(servers[0], many, pairs.first), (servers[1], one, pairs.second)]
        for server, raws, times in order[:: 1 if number % 2 else -1]:
            times.append(await _flush(server, raws))
    for server in servers:
        server.stop()
    return pairs


def _quiet_server(data: Path) -> Server:
    """Return a server that flushes only when it is told to."""
    buffer = BufferConfig(flush_events=100_000, flush_interval_seconds=86_400)
    server = Server(Config(server=ServerConfig(data=data), buffer=buffer))
    server.start()
    return server


async def _flush(server: Server, raws: list[RawEvent]) -> float:
    await server.pipeline.accept(raws, _SENDER, "batch")
    started = perf_counter()
    flushed = server.flusher.flush()
    took = perf_counter() - started
    assert flushed == len(raws), "the flush took something else along"
    return took * 1000


def tracker(setting: Setting) -> list[Row]:
    """Return the rows of the tracker's sizes as it is served, compressed."""
    rows: list[Row] = []
    with mallard(setting.folder / "tracker", setting.cores.all) as server:
        for what, path, limit in (
            ("every automatic feature", "/js/script.js", 1000),
            ("pageviews", "/js/script.pageviews.js", 700),
        ):
            status, body = server.get(path, {"Accept-Encoding": "gzip"})
            rows.append(
                Row(
                    f"tracker with {what}, gzipped",
                    f"GET {path}" if status == 200 else f"GET {path} answers {status}",
                    len(body),
                    Target(limit, " bytes"),
                    sound=status == 200,
                )
            )
    return rows
