"""The tree of settings: one frozen dataclass per TOML table, with its defaults and checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where the server listens and keeps its data."""

    host: str = "127.0.0.1"  # loopback: being reachable from outside is a decision
    port: int = 8000
    data: Path = Path("data")
    shutdown_timeout_seconds: int = 30


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """Which events are taken."""

    site_ids: tuple[str, ...] = ()  # empty: any site; else these sites, and these Origins, alone
    filter_bots: bool = True
    blocked_referrers: tuple[str, ...] = ()  # spam hosts, beside the built-in list
    rate_limit_per_site: int = 0  # events a second; 0: no limit
    rate_limit_burst: int = 0  # events at once; 0: as many as a second allows


@dataclass(frozen=True, slots=True)
class PrivacyConfig:
    """What is known of a visitor."""

    visitor_salt: str = "random"  # or "derived"
    secret: str = ""  # MALLARD_SECRET; empty: made at the first start
    privacy_signals: str = "anonymous"  # Sec-GPC and DNT: anonymous, drop or ignore


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """Whose word is taken for the visitor's address."""

    trusted: tuple[str, ...] = ()  # addresses, CIDR ranges or preset names
    header: str = ""  # empty: the preset's, else x-forwarded-for


@dataclass(frozen=True, slots=True)
class BufferConfig:
    """How many accepted events may wait outside Parquet, and how long."""

    durability: str = "fsync"  # or "os", "memory"
    capacity_events: int = 100_000  # beyond it we answer 503; nothing accepted is lost
    capacity_bytes: int = 128 * 1024 * 1024
    flush_events: int = 10_000
    flush_interval_seconds: float = 10.0
    segment_bytes: int = 16 * 1024 * 1024
    free_bytes_min: int = 64 * 1024 * 1024  # below it we answer 503, so that a flush still fits


@dataclass(frozen=True, slots=True)
class GeoConfig:
    """Where addresses lie."""

    database: Path | None = None  # a MaxMind-format (.mmdb) file; none: no places


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """How pages load the script, under names that blockers do not know."""

    script_paths: tuple[str, ...] = ("/js/script.js", "/mallard.js")
    event_paths: tuple[str, ...] = ("/api/event",)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What the server says of itself."""

    level: str = "info"
    format: str = "text"  # or "json"


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting."""

    server: ServerConfig = field(default_factory=ServerConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    buffer: BufferConfig = field(default_factory=BufferConfig)
    geo: GeoConfig = field(default_factory=GeoConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    log: LogConfig = field(default_factory=LogConfig)
