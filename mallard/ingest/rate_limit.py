"""One token bucket for each site.

Invariants: a site that spends more than its rate is refused, whatever others do: no flood of
made-up sites makes the table forget it. What the table does not hold has a full bucket.
Form: the generic cell rate algorithm (ITU-T I.371), which keeps one number for each bucket: the
time at which it will be full again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from mallard.clock import Clock
from mallard.config import IngestConfig
from mallard.errors import RateLimited

SITES_MAX = 20_000  # buckets that are not full; about 4 MB
SWEEP_SECONDS = 1.0  # between two looks through a full table
_CROWD = ""  # no site is named so: the bucket that newcomers share while the table is full


class RateLimit:
    """Says whether a site may have more events now."""

    def __init__(self, config: IngestConfig, clock: Clock) -> None:
        self._clock = clock
        rate = config.rate_limit_per_site
        self._seconds_per_event = 1 / rate if rate else 0.0
        self._burst = config.rate_limit_burst or rate
        self._full_at: dict[str, float] = {}
        self._swept_at = -math.inf

    @property
    def is_on(self) -> bool:
        """Whether there is a limit at all."""
        return self._seconds_per_event > 0

    def take(self, counts: Mapping[str, int]) -> None:
        """Take events out of each site's bucket: out of all of them, or out of none.

        counts: events by site. Raises RateLimited. A batch larger than a bucket passes when the
        bucket is full, and the site pays for it afterwards; it could never pass otherwise.
        """
        if not self._seconds_per_event:
            return
        now = self._clock.monotonic()
        wait = max(self._wait(self._bucket(site), count, now) for site, count in counts.items())
        if wait > 0:
            raise RateLimited(
                "There are too many events for this site.",
                field="d",
                rule=f"at most {1 / self._seconds_per_event:.0f} events a second for each site",
                retry_after_seconds=math.ceil(wait),
            )
        for site, count in counts.items():
            bucket = self._room(site, now)
            full_at = max(self._full_at.get(bucket, now), now)
            self._full_at[bucket] = full_at + count * self._seconds_per_event

    def wait_seconds(self, counts: Mapping[str, int]) -> float:
        """Return how long `take` would have one wait, and take nothing; 0 if it would not."""
        if not self._seconds_per_event:
            return 0.0
        now = self._clock.monotonic()
        waits = (self._wait(self._bucket(site), count, now) for site, count in counts.items())
        return max(0.0, *waits)

    def _wait(self, bucket: str, count: int, now: float) -> float:
        """Return the seconds until a bucket holds `count` events, or as many as it can."""
        missing = max(self._full_at.get(bucket, now) - now, 0.0)
        may_miss = (self._burst - min(count, self._burst)) * self._seconds_per_event
        wait = missing - may_miss
        return wait if wait > 1e-9 else 0.0  # rounding of the sums is not a wait

    def _bucket(self, site: str) -> str:
        if site in self._full_at or len(self._full_at) < SITES_MAX:
            return site
        return _CROWD

    def _room(self, site: str, now: float) -> str:
        """Return the bucket of a site; one of its own if need be, as long as there is room.

        Full buckets say nothing and are swept out. The others stay: whoever could push one out
        with made-up sites would have it refilled.
        """
        if site in self._full_at or len(self._full_at) < SITES_MAX:
            return site
        if now - self._swept_at >= SWEEP_SECONDS:
            self._swept_at = now
            self._full_at = {name: at for name, at in self._full_at.items() if at > now}
        return self._bucket(site)
