"""Compacts a data folder, a process of its own: `python -m mallard.cli.benchmark.compact FOLDER`.

Says in JSON how many seconds that took, by how many bytes the process grew at most (0 where the
system hides it), and how many it may by its settings.
"""

from __future__ import annotations

import re
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
STATUS = Path("/proc/self/status")


def main() -> None:
    """Do it, once, without waiting for late events."""
    data, clock = Path(sys.argv[1]), Clock()
    store = LocalStore(data, Files(), clock)
    config = StoreConfig(close_after_seconds=0, late_merge_seconds=0)
    before, started = _memory("VmRSS"), perf_counter()
    compactor = Compactor(config, store, data, lambda: ROOM_BYTES, clock, Telemetry())
    compactor.run()
    took = perf_counter() - started
    store.close()
    if compactor.problems:
        raise SystemExit("; ".join(compactor.problems))
    told = {
        "seconds": took,
        "grown_bytes": _memory("VmHWM") - before,
        "memory_bytes": config.memory_bytes,
    }
    sys.stdout.buffer.write(orjson.dumps(told))


def _memory(what: str) -> int:
    """Return "VmRSS", what this process has in memory, or "VmHWM", the most it ever had, in bytes.

    Source: proc_pid_status(5).
    """
    try:
        found = re.search(rf"^{what}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    except FileNotFoundError:
        return 0
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    main()
