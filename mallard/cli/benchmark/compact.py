"""Compacts a data folder, a process of its own: `python -m mallard.cli.benchmark.compact FOLDER`.

Says in JSON how many seconds that took and the process's peak memory in bytes.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from time import perf_counter

import orjson

from mallard.clock import Clock
from mallard.config import StoreConfig
from mallard.files import Files
from mallard.jobs.compaction import Compactor
from mallard.store.local import LocalStore
from mallard.telemetry import Telemetry

ROOM_BYTES = 2**40


def main() -> None:
    """Do it, once, without waiting for late events."""
    data, clock = Path(sys.argv[1]), Clock()
    store = LocalStore(data, Files(), clock)
    config = StoreConfig(close_after_seconds=0, late_merge_seconds=0)
    started = perf_counter()
    compactor = Compactor(config, store, data, lambda: ROOM_BYTES, clock, Telemetry())
    compactor.run()
    took = perf_counter() - started
    store.close()
    if compactor.problems:
        raise SystemExit("; ".join(compactor.problems))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.buffer.write(orjson.dumps({"seconds": took, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
