"""The manifest's tables in SQLite, and how their rows become parts, days and rules."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from mallard.store.part import Derived, Part
from mallard.store.snapshot import Day, Rule, SiteDay, day_version

_LIFE = """
    added_in INTEGER NOT NULL,
    retired_in INTEGER,
    retired_at INTEGER,
    remove_at INTEGER,
    retired_because TEXT
"""
TABLES = f"""
CREATE TABLE manifest_format (version INTEGER NOT NULL);
CREATE TABLE manifest_node (node INTEGER NOT NULL);
CREATE TABLE manifest_version (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    committed_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    watermark INTEGER NOT NULL,
    last_loaded_at INTEGER NOT NULL,
    detail TEXT NOT NULL
);
CREATE TABLE manifest_part (
    location TEXT PRIMARY KEY,
    level INTEGER NOT NULL,
    date TEXT NOT NULL,
    sites TEXT NOT NULL,
    rows INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    first_position INTEGER NOT NULL,
    last_position INTEGER NOT NULL,
    position_sum TEXT NOT NULL,
    first_timestamp INTEGER NOT NULL,
    last_timestamp INTEGER NOT NULL,
    last_loaded_at INTEGER NOT NULL,
    schema_version INTEGER NOT NULL,
    digest TEXT NOT NULL,
    quarantined_because TEXT,
    {_LIFE}
);
CREATE TABLE manifest_derived (
    location TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    site_id TEXT NOT NULL,
    sources TEXT NOT NULL,
    rows INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    format INTEGER NOT NULL,
    digest TEXT NOT NULL,
    {_LIFE}
);
CREATE TABLE manifest_rule (
    rule_id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    last_position INTEGER NOT NULL,
    definition TEXT NOT NULL,
    affected TEXT NOT NULL
);
CREATE TABLE manifest_receipt (
    rule_id TEXT PRIMARY KEY,
    committed_at INTEGER NOT NULL,
    receipt TEXT NOT NULL
);
CREATE INDEX manifest_part_retired ON manifest_part (remove_at) WHERE retired_in IS NOT NULL;
CREATE INDEX manifest_derived_retired ON manifest_derived (remove_at) WHERE retired_in IS NOT NULL;
"""
_File = TypeVar("_File", Part, Derived)
TABLE_OF: dict[type[Part] | type[Derived], str] = {
    Part: "manifest_part",
    Derived: "manifest_derived",
}
# By kind, the columns that are fields of a file, in order.
NAMES: dict[type[Part] | type[Derived], tuple[str, ...]] = {
    kind: tuple(each.name for each in fields(kind)) for kind in TABLE_OF
}
# SQLite has no lists, and no integer past 64 bits, which a sum of positions may be.
_JSON = {"sites", "sources"}
_TEXT = {"position_sum"}
_READ: dict[str, Callable[[str], object]] = {
    "sites": lambda text: tuple(json.loads(text)),
    "sources": json.loads,
    "position_sum": int,
}


def stored(name: str, value: object) -> object:
    """Return a field of a file as SQLite keeps it."""
    if name in _JSON:
        return json.dumps(value)
    return str(value) if name in _TEXT else value


def file_of(kind: type[_File], row: sqlite3.Row) -> _File:
    """Return the file that a row of its table tells of."""
    values: list[Any] = [
        _READ[name](row[name]) if name in _READ else row[name] for name in NAMES[kind]
    ]
    return kind(*values)


def days_of(parts: Sequence[Part], derived: Sequence[Derived]) -> dict[SiteDay, Day]:
    """Return the site-days that parts of level 1 make, each with the visits made from it."""
    of_day: dict[SiteDay, list[Part]] = {}
    for part in parts:
        of_day.setdefault((part.sites[0], part.date), []).append(part)
    visits = {
        (each.site_id, date): (version, each)
        for each in derived
        if each.kind == "sessions"
        for date, version in each.sources.items()
    }
    days: dict[SiteDay, Day] = {}
    for key, found in of_day.items():
        ordered = tuple(sorted(found, key=lambda part: part.first_position))
        version, sessions = visits.get(key, ("", None))
        days[key] = Day(ordered, sessions if version == day_version(ordered) else None)
    return days


def rule_of(row: tuple[Any, ...]) -> Rule:
    """Return the rule that a row of manifest_rule tells of."""
    rule_id, created_at, last_position, definition, affected = row
    days = frozenset((site_id, date) for site_id, date in json.loads(affected))
    return Rule(rule_id, created_at, last_position, definition, days)
