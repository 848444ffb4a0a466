"""The store at one instant, and what a change of it says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from mallard.store.part import Derived, Part

SiteDay = tuple[str, str]  # site, UTC date (ISO)


@dataclass(frozen=True, slots=True)
class Day:
    """A compacted site-day: its parts of level 1, in order of position, and its visits.

    sessions: made of exactly these parts; None when it has to be made again.
    """

    parts: tuple[Part, ...]
    sessions: Derived | None = None

    @property
    def version(self) -> str:
        """Names this content: another one has another version."""
        return day_version(self.parts)

    def is_as_of(self, instant_us: int | None) -> bool:
        """Whether all of it was stored by an instant; None is now."""
        return instant_us is None or all(part.last_loaded_at <= instant_us for part in self.parts)


def day_version(parts: tuple[Part, ...]) -> str:
    """Return the version of a site-day that has these parts of level 1, in order of position."""
    if len(parts) == 1:
        return parts[0].digest[:16]
    return sha256("".join(part.digest for part in parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Rule:
    """A change of history that every read applies until parts are rewritten accordingly.

    definition: JSON text, read by `query/rules.py`. last_position: it is about events up to that
    one, and no later ones. affected: the site-days that held such events when it was made.
    """

    rule_id: str
    created_at: int
    last_position: int
    definition: str
    affected: frozenset[SiteDay]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The store at one instant; it never changes.

    version: of the manifest. watermark: the last position that is in parts. last_loaded_at: the
    latest commit time of any event that was ever in parts, in microseconds. recent: the live parts
    of level 0, in order of date and position. days: the compacted site-days. rollups: by site and
    month (YYYY-MM). rules: what reads apply. quarantined: (part, reason) of those that cannot be
    read, whose events are missing from answers.
    """

    version: int = 0
    watermark: int = 0
    last_loaded_at: int = 0
    recent: tuple[Part, ...] = ()
    days: Mapping[SiteDay, Day] = field(default_factory=dict)
    rollups: Mapping[tuple[str, str], Derived] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    quarantined: tuple[tuple[Part, str], ...] = ()

    @property
    def parts(self) -> Iterator[Part]:
        """Every live part."""
        compacted = (part for day in self.days.values() for part in day.parts)
        return itertools.chain(self.recent, compacted)

    @property
    def derived(self) -> Iterator[Derived]:
        """Every file that can be made again, whether or not it is of its day's version."""
        visits = (day.sessions for day in self.days.values() if day.sessions)
        return itertools.chain(visits, self.rollups.values())

    @property
    def files(self) -> Iterator[Part | Derived]:
        """Every live file."""
        yield from self.parts
        yield from self.derived

    def is_settled(self, site_id: str, date: str) -> bool:
        """Whether a site-day's parts of level 1 are all of it, and no rule changes them.

        Only then `visit`, sessions and rollups say what reading its events would say.
        """
        return (
            (site_id, date) in self.days
            and not any(part.date == date and site_id in part.sites for part in self.recent)
            and not any((site_id, date) in rule.affected for rule in self.rules)
        )


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit of the manifest changes, all of it or nothing.

    reason: a word for the history. added, removed: parts or derived files; what is added was
    written by the store's writers. lost: parts' rows and sum of positions that are meant to go;
    beyond it no row may come or go. keep_seconds: how long the bytes of what is removed are kept,
    out of readers' sight. detail: for the history, JSON-able.
    """

    reason: str
    added: tuple[Part | Derived, ...] = ()
    removed: tuple[Part | Derived, ...] = ()
    lost_rows: int = 0
    lost_position_sum: int = 0
    rules_added: tuple[Rule, ...] = ()
    rules_removed: tuple[str, ...] = ()
    receipts: Mapping[str, str] = field(default_factory=dict)  # by rule, JSON text
    keep_seconds: float = 0.0
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retired:
    """A file that is no longer live and whose bytes are still there.

    version: of the manifest that removed it. remove_at: when its bytes go, in microseconds.
    """

    file: Part | Derived
    version: int
    retired_at: int
    remove_at: int
    reason: str


def applied(before: Snapshot, change: Change, watermark: int) -> Snapshot:
    """Return the snapshot that a change makes of another; the manifest would read the same."""
    gone = {file.location for file in change.removed}
    parts = [file for file in change.added if isinstance(file, Part)]
    recent = before.recent
    if any(part.level == 0 for part in (*parts, *_parts(change.removed))):
        kept = [part for part in recent if part.location not in gone]
        kept += [part for part in parts if part.level == 0]
        recent = tuple(sorted(kept, key=lambda part: (part.date, part.first_position)))
    return Snapshot(
        version=before.version + 1,
        watermark=watermark,
        last_loaded_at=max([before.last_loaded_at, *(part.last_loaded_at for part in parts)]),
        recent=recent,
        days=_days_after(before.days, change, gone),
        rollups=_rollups_after(before.rollups, change, gone),
        rules=(
            *(rule for rule in before.rules if rule.rule_id not in change.rules_removed),
            *change.rules_added,
        ),
        quarantined=tuple(each for each in before.quarantined if each[0].location not in gone),
    )


def _parts(files: tuple[Part | Derived, ...]) -> list[Part]:
    return [file for file in files if isinstance(file, Part)]


def _days_after(
    days: Mapping[SiteDay, Day], change: Change, gone: set[str]
) -> Mapping[SiteDay, Day]:
    visits = {
        (file.site_id, date): file
        for file in change.added
        if isinstance(file, Derived) and file.kind == "sessions"
        for date in file.sources
    }
    parts = [part for part in _parts((*change.added, *change.removed)) if part.level]
    lost = {
        (file.site_id, date)
        for file in change.removed
        if isinstance(file, Derived) and file.kind == "sessions"
        for date in file.sources
    }
    touched = {(part.sites[0], part.date) for part in parts} | set(visits) | lost
    if not touched:
        return days
    added: dict[SiteDay, list[Part]] = {}
    for part in _parts(change.added):
        if part.level:
            added.setdefault((part.sites[0], part.date), []).append(part)
    after = dict(days)  # a copy costs a fraction of a millisecond, even with years of site-days
    for key in touched:
        before = days.get(key, Day(()))
        kept = [part for part in before.parts if part.location not in gone]
        kept += added.get(key, [])
        ordered = tuple(sorted(kept, key=lambda part: part.first_position))
        if not ordered:
            after.pop(key, None)
            continue
        found = visits.get(key, before.sessions)
        version = day_version(ordered)
        whole = found and found.location not in gone and found.sources.get(key[1]) == version
        after[key] = Day(ordered, found if whole else None)
    return after


def _rollups_after(
    rollups: Mapping[tuple[str, str], Derived], change: Change, gone: set[str]
) -> Mapping[tuple[str, str], Derived]:
    added = [file for file in change.added if isinstance(file, Derived) and file.kind == "rollup"]
    removed = any(isinstance(file, Derived) and file.kind == "rollup" for file in change.removed)
    if not added and not removed:
        return rollups
    after = {key: file for key, file in rollups.items() if file.location not in gone}
    after |= {file.site_month: file for file in added}
    return after
