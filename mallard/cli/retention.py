"""`mallard retention`: how long sites keep events, and what the next run of the job removes."""

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
from mallard.jobs.expiry import REASON, Plan, plan, rows_by_site, spans
from mallard.store.part import Part
from mallard.store.reader import LocalReader
from mallard.store.snapshot import Retired


def retention(path: Path | None, data: str | None) -> None:
    """Print both; path: the TOML file. Raises ConfigError, and StorageError for no data folder."""
    config = settings.load(path, os.environ, {"server.data": data}).config
    console = Console(highlight=False, soft_wrap=True)
    for line in kept(config.retention):
        console.print(line, markup=False)
    clock = Clock()
    with LocalReader(config.server.data, Files()) as store:
        old = plan(store.snapshot(), config.retention, utc_date(clock.now_us()))
        rows = _rows(old, store)
        expired = [each for each in store.manifest.retired() if each.reason == REASON]
    for line in (*due(old, rows), *waiting(expired)):
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
