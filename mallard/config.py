"""The tree of settings: one frozen dataclass per TOML table, with its defaults and checks.

`settings.py` reads the tree from a file, the environment and flags, and applies the checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mallard.errors import InvalidInput
from mallard.site import read_site_id

GIB = 1024**3
# With derived salts nothing but the secret keeps addresses from being tried one by one.
DERIVING_SECRET_LENGTH_MIN = 16


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting's value must be beyond its type. says: continues "must be"."""

    says: str
    holds: Callable[[Any], bool]
    secret: bool = False  # the value is shown to nobody, not even in an error


def _setting(default: Any, rule: Rule) -> Any:
    return field(default=default, metadata={"rule": rule})


def _between(low: float, high: float) -> Rule:
    return Rule(f"from {low} to {high}", lambda value: low <= value <= high)


def _one_of(*words: str) -> Rule:
    return Rule("one of " + ", ".join(f'"{word}"' for word in words), lambda value: value in words)


def names_site(text: str) -> bool:
    """Tell whether a text is the name of a site, with "www." before it or not."""
    try:
        read_site_id(text)
    except InvalidInput:
        return False
    return True


_NOT_EMPTY = Rule("not empty", bool)
_SITES = Rule(
    'each the name of a site, such as "example.com"', lambda sites: all(map(names_site, sites))
)
_HOSTS = Rule(
    'each a host, such as "spam.example"',
    lambda hosts: all(re.fullmatch(r"[^\s/:?#@*]+", host) for host in hosts),
)
_PATHS = Rule(
    'one or more paths that start with "/" and have no "?", "#" or space',
    lambda paths: bool(paths) and all(re.fullmatch(r"/[^\s?#]*", path) for path in paths),
)
_SECRET = Rule("of any length", lambda _: True, secret=True)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where the server listens and keeps its data."""

    # Loopback: being reachable from outside is a decision.
    host: str = _setting("127.0.0.1", _NOT_EMPTY)
    port: int = _setting(8000, _between(0, 65535))  # 0: any free one
    data: Path = Path("data")
    shutdown_timeout_seconds: int = _setting(30, _between(1, 3600))  # for requests under way


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """Which events are taken."""

    # Empty: any site; else these sites, and these Origins, alone.
    site_ids: tuple[str, ...] = _setting((), _SITES)
    filter_bots: bool = True
    # Spam hosts, beside the built-in list; also what is below them.
    blocked_referrers: tuple[str, ...] = _setting((), _HOSTS)
    rate_limit_per_site: int = _setting(0, _between(0, 1_000_000))  # events a second; 0: no limit
    # Events at once; 0: as many as a second allows.
    rate_limit_burst: int = _setting(0, _between(0, 1_000_000))


@dataclass(frozen=True, slots=True)
class PrivacyConfig:
    """What is known of a visitor."""

    visitor_salt: str = _setting("random", _one_of("random", "derived"))
    secret: str = _setting("", _SECRET)  # MALLARD_SECRET; empty: made at the first start
    privacy_signals: str = _setting("anonymous", _one_of("anonymous", "drop", "ignore"))


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """Whose word is taken for the visitor's address."""

    trusted: tuple[str, ...] = ()  # addresses, CIDR ranges or preset names
    header: str = ""  # empty: the preset's, else x-forwarded-for


@dataclass(frozen=True, slots=True)
class BufferConfig:
    """How many accepted events may wait outside Parquet, and how long."""

    durability: str = _setting("fsync", _one_of("fsync", "os", "memory"))
    # Beyond these two we answer 503; nothing accepted is lost.
    capacity_events: int = _setting(100_000, _between(1, 100_000_000))
    capacity_bytes: int = _setting(128 * 1024 * 1024, _between(1024 * 1024, 1024 * GIB))
    flush_events: int = _setting(10_000, _between(1, 100_000_000))
    flush_interval_seconds: float = _setting(10.0, _between(0.01, 86_400))
    segment_bytes: int = _setting(16 * 1024 * 1024, _between(4096, 4 * GIB))
    # Below it we answer 503, so that a flush still fits.
    free_bytes_min: int = _setting(64 * 1024 * 1024, _between(0, 1024 * GIB))


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """How small files become large ones, and what that may cost."""

    # What compaction and the other work on stored events add to the process; beyond it they spill.
    memory_bytes: int = _setting(256 * 1024 * 1024, _between(256 * 1024 * 1024, 1024 * GIB))
    threads: int = _setting(1, _between(1, 64))
    merge_files: int = _setting(16, _between(2, 1_000))  # of about one size become one
    # A date is compacted so long after its end, and after the first of its events is in Parquet.
    close_after_seconds: float = _setting(900.0, _between(0, 86_400))
    # Events of a date that is compacted already wait so long for others.
    late_merge_seconds: float = _setting(3_600.0, _between(0, 7 * 86_400))


@dataclass(frozen=True, slots=True)
class RetentionConfig:
    """How many whole UTC days before today are kept; 0: for ever."""

    days: int = _setting(0, _between(0, 36_500))
    # Of these sites instead.
    sites: Mapping[str, int] = field(default_factory=dict, metadata={"rule": _between(0, 36_500)})
    # After a day left the numbers, how long its bytes are kept, so that a mistake can be undone.
    grace_days: float = _setting(1.0, _between(0, 365))


@dataclass(frozen=True, slots=True)
class QueryConfig:
    """What answers may cost."""

    # Of all queries together; beyond it they spill to disk, and what cannot is refused.
    memory_bytes: int = _setting(256 * 1024 * 1024, _between(64 * 1024 * 1024, 1024 * GIB))
    threads: int = _setting(2, _between(1, 256))  # of one query
    # Queries at once, and one more when these take long; 0: one fewer than there are cores.
    workers: int = _setting(0, _between(0, 64))
    timeout_seconds: float = _setting(30.0, _between(0.1, 3_600))
    queue_max: int = _setting(200, _between(1, 100_000))  # waiting; beyond it we answer 503
    # Of parts of answers that are kept, so that the next one is made sooner.
    cache_bytes: int = _setting(64 * 1024 * 1024, _between(0, 1024 * GIB))
    # SQL and exports run in processes of their own, each with so much memory and disk; all other
    # queries together may take as much of the disk as one of these.
    sql_memory_bytes: int = _setting(256 * 1024 * 1024, _between(64 * 1024 * 1024, 1024 * GIB))
    sql_spill_bytes: int = _setting(2 * GIB, _between(0, 1024 * 1024 * GIB))
    sql_rows_max: int = _setting(100_000, _between(1, 1_000_000_000))  # of an answer
    sql_bytes_max: int = _setting(64 * 1024 * 1024, _between(1024, 1024 * GIB))
    exports: int = _setting(2, _between(1, 64))  # at once; beyond it we answer 503
    export_timeout_seconds: float = _setting(3_600.0, _between(1, 86_400))


@dataclass(frozen=True, slots=True)
class ErasureConfig:
    """How events are dropped or changed that are stored already."""

    # So long `mallard erasures cancel` can take it back: reads leave the events out, files do not.
    grace_seconds: float = _setting(3_600.0, _between(0, 30 * 86_400))


@dataclass(frozen=True, slots=True)
class GeoConfig:
    """Where addresses lie."""

    database: Path | None = None  # a MaxMind-format (.mmdb) file; none: no places


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """How pages load the script, under names that blockers do not know."""

    script_paths: tuple[str, ...] = _setting(("/js/script.js", "/mallard.js"), _PATHS)
    event_paths: tuple[str, ...] = _setting(("/api/event",), _PATHS)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What the server says of itself."""

    level: str = _setting("info", _one_of("debug", "info", "warning", "error"))
    format: str = _setting("text", _one_of("text", "json"))


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting."""

    server: ServerConfig = field(default_factory=ServerConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    buffer: BufferConfig = field(default_factory=BufferConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    query: QueryConfig = field(default_factory=QueryConfig)
    erasure: ErasureConfig = field(default_factory=ErasureConfig)
    geo: GeoConfig = field(default_factory=GeoConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    log: LogConfig = field(default_factory=LogConfig)
