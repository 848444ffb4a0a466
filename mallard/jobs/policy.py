"""Which parts become one, and when: a pure function of the manifest's newest part of it.

Invariants: the work follows the parts of level 0, never how many site-days there are; of parts of
about one size a date has fewer than `merge_files` afterwards, so that a row is written again once a
tier; no site-day is in two pieces of work.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, groupby

from mallard.clock import MICROSECONDS_PER_DAY, utc_date
from mallard.config import StoreConfig
from mallard.store.part import Part
from mallard.store.snapshot import Snapshot

# Parts with fewer rows are of one tier: what a file costs to open is more than what they cost.
SMALL_ROWS = 1_024
# What a row takes while it is sorted: a merge takes what fits in memory, and larger parts stay as
# they are until their date is over, so that files are bounded by events where not by tiers.
SORT_ROW_BYTES = 1_024


@dataclass(frozen=True, slots=True)
class Merge:
    """Parts of level 0 and one date that become one of them."""

    date: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Settle:
    """A date's parts of level 0 that become one part of level 1 for each site.

    compacted: the parts of level 1 that these sites have on that date; they go in with the rest.
    """

    date: str
    parts: tuple[Part, ...]
    compacted: tuple[Part, ...]


def plan(snapshot: Snapshot, now_us: int, config: StoreConfig) -> list[Merge | Settle]:
    """Return what to do at an instant, the most urgent first; nothing when all is well."""
    of_dates = groupby(snapshot.recent, key=lambda part: part.date)
    dates = {date: tuple(parts) for date, parts in of_dates}
    settles = [
        settle
        for date, parts in dates.items()
        if (settle := settle_of(snapshot, date, parts)) and _is_due(settle, now_us, config)
    ]
    settled = {settle.date for settle in settles}
    merges = [
        Merge(date, fitting)
        for date, parts in dates.items()
        if date not in settled
        for some in _tiers(parts, config.merge_files)
        if len(some) >= config.merge_files
        if len(fitting := _fitting(some, config.memory_bytes // SORT_ROW_BYTES)) > 1
    ]
    # Merges are the shorter ones, and keep what a query reads bounded.
    return [*merges, *settles]


def settle_of(snapshot: Snapshot, date: str, parts: tuple[Part, ...]) -> Settle:
    """Return what compacts a date whose parts of level 0 are these."""
    sites = sorted({site for part in parts for site in part.sites})
    days = (snapshot.days.get((site, date)) for site in sites)
    return Settle(date, parts, tuple(part for day in days if day for part in day.parts))


def _is_due(settle: Settle, now_us: int, config: StoreConfig) -> bool:
    end_us = _start_us(settle.date) + MICROSECONDS_PER_DAY
    if now_us < end_us + int(config.close_after_seconds * 1e6):
        return False
    # What was compacted is written again: the more events for it, the better.
    late = bool(settle.compacted)
    wait_seconds = config.late_merge_seconds if late else config.close_after_seconds
    oldest_us = min(part.last_loaded_at for part in settle.parts)
    return now_us >= oldest_us + int(wait_seconds * 1e6)


def _start_us(date: str) -> int:
    days = datetime.date.fromisoformat(date).toordinal() - utc_date(0).toordinal()
    return days * MICROSECONDS_PER_DAY


def _tiers(parts: Iterable[Part], factor: int) -> list[tuple[Part, ...]]:
    """Return parts by size, a tier being `factor` times as large as the one below."""
    tiers: dict[int, list[Part]] = defaultdict(list)
    for part in parts:
        tiers[_tier(part.rows, factor)].append(part)
    return [tuple(tiers[number]) for number in sorted(tiers)]


def _fitting(parts: tuple[Part, ...], rows_max: int) -> tuple[Part, ...]:
    """Return the smallest of parts that have no more rows together."""
    ordered = sorted(parts, key=lambda part: part.rows)
    totals = accumulate(part.rows for part in ordered)
    return tuple(part for part, total in zip(ordered, totals, strict=True) if total <= rows_max)


def _tier(rows: int, factor: int) -> int:
    tier, limit = 0, SMALL_ROWS
    while rows >= limit:
        tier, limit = tier + 1, limit * factor
    return tier
