"""What the server counts of itself, for `/metrics`.

Counting is a dictionary's work, so that it costs the ingestion path next to nothing; the
Prometheus text is made when somebody asks for it.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

# Upper bounds in seconds: a fast disk syncs in 0.1 ms, a stalled one in seconds.
LATENCY_BUCKETS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)
SITES_MAX = 1_000  # sites with a label of their own; a stranger can invent any number
OTHER_SITES = "(other)"
# Each is shown before its first event, as 0: how much a series has grown that was not there
# before, Prometheus cannot tell.
DOORS = ("post", "pixel", "batch")


class Latency:
    """A histogram of durations in seconds; one thread at a time observes, any thread reads."""

    def __init__(self) -> None:
        self._counts = [0] * (len(LATENCY_BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float, count: int = 1) -> None:
        """Count a duration, as often as it was measured."""
        self._counts[bisect_left(LATENCY_BUCKETS, seconds)] += count
        self._sum += seconds * count

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return cumulative (upper bound, count) pairs and the sum of all durations."""
        total = 0
        pairs: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, LATENCY_BUCKETS), "+Inf"), self._counts, strict=True):
            total += count
            pairs.append((bound, total))
        return pairs, self._sum


class Telemetry(Collector):
    """Counters, gauges and latencies, and their Prometheus text."""

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()  # events by door, one of DOORS
        self.refused: Counter[str] = Counter()  # requests by error code
        self.dropped: Counter[tuple[str, str]] = Counter()  # events by (site, reason)
        self.append_seconds = Latency()  # from the first of its turn of the loop to durable
        self.sync_seconds = Latency()  # one write and sync of the log
        self.flush_seconds = Latency()  # one flush, buffer to manifest
        self.compaction_seconds = Latency()  # parts of one date, read, written and committed
        self.compacted: Counter[str] = Counter()  # events by kind: merge, compaction
        self.failures: Counter[str] = Counter()  # by what failed: append, flush, ...
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._dropped_sites: set[str] = set()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def drop(self, site_id: str, reason: str) -> None:
        """Count an event that was answered and not stored."""
        if site_id not in self._dropped_sites:
            if len(self._dropped_sites) >= SITES_MAX:
                site_id = OTHER_SITES
            self._dropped_sites.add(site_id)
        self.dropped[site_id, reason] += 1

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Show a number that is read when asked for; the name carries its unit last."""
        self._gauges[name] = (help_text, read)

    def collect(self) -> Iterable[Metric]:
        """Yield every metric, for the Prometheus client."""
        accepted = Counter({door: self.accepted[door] for door in DOORS})
        yield _counter("mallard_events_accepted", "Events stored, by door.", "door", accepted)
        yield _counter("mallard_requests_refused", "Requests refused.", "reason", self.refused)
        yield _counter("mallard_failures", "Operations that failed.", "operation", self.failures)
        yield _counter(
            "mallard_events_compacted", "Events written again, by kind.", "kind", self.compacted
        )
        dropped = CounterMetricFamily(
            "mallard_events_dropped",
            "Events answered as accepted and not stored, by site and reason.",
            labels=["site", "reason"],
        )
        for (site_id, reason), count in list(self.dropped.items()):
            dropped.add_metric([site_id, reason], count)
        yield dropped
        for name, help_text, latency in (
            ("mallard_append_seconds", "From accepted to durable.", self.append_seconds),
            ("mallard_log_sync_seconds", "One write and sync of the log.", self.sync_seconds),
            ("mallard_flush_seconds", "One flush of the buffer to Parquet.", self.flush_seconds),
            ("mallard_compaction_seconds", "Parts of one date made one.", self.compaction_seconds),
        ):
            buckets, total = latency.buckets()
            yield HistogramMetricFamily(name, help_text, buckets=buckets, sum_value=total)
        for name, (help_text, read) in self._gauges.items():
            # A disk that fails must not take the other numbers along; this one is left out.
            with contextlib.suppress(OSError):
                yield GaugeMetricFamily(name, help_text, value=read())

    def text(self) -> bytes:
        """Return all of it in the Prometheus text format 0.0.4."""
        return generate_latest(self._registry)


def _counter(name: str, help_text: str, label: str, counts: Counter[str]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value, count in list(counts.items()):
        family.add_metric([value], count)
    return family
