"""`mallard` in a hurry, for tests that kill it: `python -m tests.end_to_end.hasty serve ...`.

Its maintenance never rests, so that a kill falls into merges, compaction, sums and sweeps too; and
its clock is as many days ahead as the environment says, so that dates end while a test runs.
"""

from __future__ import annotations

import os
import time
from typing import Any

from mallard import server
from mallard.cli.main import main
from mallard.clock import MICROSECONDS_PER_DAY, Clock
from mallard.store import local

DAYS = "HASTY_DAYS_AHEAD"
PERIOD_SECONDS = 0.02


def hurry() -> None:
    """Make every wait of this process a short one, and its clock go ahead."""
    periods: dict[str, Any] = vars(server)
    for name in ("COMPACTION", "ERASURE", "EXPIRY", "ROLLUP", "SWEEP"):
        assert f"{name}_PERIOD_SECONDS" in periods, "a job has another name now"
        periods[f"{name}_PERIOD_SECONDS"] = PERIOD_SECONDS
    local.SWAP_SECONDS = PERIOD_SECONDS
    ahead_us = int(os.environ[DAYS]) * MICROSECONDS_PER_DAY

    def now_us(_: Clock) -> int:
        return time.time_ns() // 1000 + ahead_us

    clock: Any = Clock
    clock.now_us = now_us


if __name__ == "__main__":
    hurry()
    main()
