"""`mallard retention`: how long sites keep events, what the next run removes and others did."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mallard import settings
from mallard.clock import Clock, to_datetime, utc_date
from mallard.config import RetentionConfig
from mallard.files import Files
from mallard.jobs.expiry import REASON, REVIVED, Plan, plan, rows_by_site, spans
from mallard.store.manifest import Version
from mallard.store.part import Part
from mallard.store.reader import LocalReader
from mallard.store.snapshot import Retired

RUNS_SHOWN = 10


def retention(path: Path | None, data: str | None) -> None:
    """Print all that; path: the TOML file. Raises ConfigError, StorageError for no data folder."""
    config = settings.load(path, os.environ, {"server.data": data}).config
    console = Console(highlight=False, soft_wrap=True)
    for line in kept(config.retention):
        console.print(line, markup=False)
    clock = Clock()
    with LocalReader(config.server.data, Files()) as store:
        old = plan(store.snapshot(), config.retention, utc_date(clock.now_us()))
        rows = _rows(old, store)
        expired = [each for each in store.manifest.retired() if each.reason == REASON]
        versions = store.manifest.history()
    for line in (*due(old, rows), *done(versions), *waiting(expired)):
        console.print(line, markup=False)


def kept(config: RetentionConfig) -> list[str]:
    """Say what the settings are."""
    lines = [f"Sites keep {_days(config.days)}."]
    return lines + [f"{site} keeps {_days(days)}." for site, days in sorted(config.sites.items())]


def due(old: Plan, rows: dict[str, int]) -> list[str]:
    """Say what the next run removes; rows: by site."""
    if not old.days:
        return ["The next run removes nothing."]
    lines = [f"The next run removes {sum(rows.values()):,} events of {len(rows):,} sites:"]
    for site_id, (first, last) in spans(old.days).items():
        lines.append(f"  {site_id}: {rows[site_id]:,} events, {first} to {last}")
    return lines


def done(versions: Sequence[Version]) -> list[str]:
    """Say what the last runs did, as the store's history has it."""
    runs = [each for each in versions if each.reason in {REASON, REVIVED}]
    return [_did(each) for each in runs[-RUNS_SHOWN:]]


def waiting(expired: Sequence[Retired]) -> list[str]:
    """Say what left and could come back."""
    parts = [each for each in expired if isinstance(each.file, Part)]
    if not parts:
        return []
    rows = sum(each.file.rows for each in parts)
    until = to_datetime(min(each.remove_at for each in parts))
    return [
        f"{rows:,} events left already. Keeping more days brings them back, until "
        f"{until:%Y-%m-%d %H:%M} UTC, when the first of them are removed from the disk."
    ]


def _did(run: Version) -> str:
    at, rows = f"{to_datetime(run.committed_at):%Y-%m-%d %H:%M} UTC", run.detail["lost_rows"]
    if run.reason == REVIVED:
        return f"{at}: {-rows:,} events came back."
    sites: dict[str, list[str]] = run.detail["sites"]
    first = min(dates[0] for dates in sites.values())
    last = max(dates[1] for dates in sites.values())
    return f"{at}: {rows:,} events of {len(sites):,} sites left, {first} to {last}."


def _rows(old: Plan, store: LocalReader) -> dict[str, int]:
    rows: dict[str, int] = defaultdict(int)
    days = set(old.days)
    for part in (*old.whole, *old.mixed):
        for site_id, count in rows_by_site(part, store.source(part)).items():
            if (site_id, part.date) in days:
                rows[site_id] += count
    return rows


def _days(days: int) -> str:
    if not days:
        return "events for ever"
    return "today and the day before" if days == 1 else f"today and the {days:,} days before"
