"""A file of the store and what the manifest keeps of it.

A *part* holds events. Those of level 0 lie in `recent/`: of one or more flushes and one UTC date,
all sites, sorted by site, time and position. Those of level 1 hold one site-day each.
A *derived* file can be made again from parts: the visits of a site-day, the sums of a site-month.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mallard.clock import utc_date
from mallard.event import SCHEMA_VERSION
from mallard.store import partition
from mallard.store.encoding import LEVEL_0_ROW_GROUP_ROWS, writer_options

# Positions have at most 19 digits, and their sum, which 64 bits may not hold, at most 38.
_POSITION = pa.decimal128(19, 0)

Kind = Literal["sessions", "rollup"]


@dataclass(frozen=True, slots=True)
class Part:
    """What the manifest says of one file of events.

    location: relative to the data folder. level: 0 recent, 1 a site-day. date: the UTC date of
    every row's `timestamp`, ISO. sites: of its rows, sorted; of level 1 there is one. Instants are
    microseconds; `first` and `last` are inclusive. position_sum: over all rows, to compare contents
    with when parts are rewritten. digest: SHA-256 of the file, hexadecimal.
    """

    location: str
    level: int
    date: str
    sites: tuple[str, ...]
    rows: int
    size_bytes: int
    first_position: int
    last_position: int
    position_sum: int
    first_timestamp: int
    last_timestamp: int
    last_loaded_at: int
    schema_version: int
    digest: str


@dataclass(frozen=True, slots=True)
class Derived:
    """What the manifest says of a file that can be made again.

    sources: by UTC date, the version of the site-day (`snapshot.Day.version`) it was made from; for
    another version it says nothing; of sums also how the date was cut, see `query/rollup.py`.
    format: the version of its columns.
    """

    location: str
    kind: Kind
    site_id: str
    sources: Mapping[str, str]
    rows: int
    size_bytes: int
    format: int
    digest: str

    @property
    def site_month(self) -> tuple[str, str]:
        """Whose it is, and the month (YYYY-MM) its days are in."""
        return self.site_id, next(iter(self.sources))[:7]


@dataclass(slots=True)
class Summary:
    """What a part says of its rows, gathered while they are written; instants in microseconds."""

    rows: int = 0
    first_position: int = 0
    last_position: int = 0
    position_sum: int = 0
    first_timestamp: int = 0
    last_timestamp: int = 0
    last_loaded_at: int = 0

    def add(self, rows: pa.Table) -> None:
        """Take more rows in, at least one."""
        positions = pc.min_max(rows["position"])
        instants = pc.min_max(_micros(rows["timestamp"]))
        loaded = pc.max(_micros(rows["loaded_at"])).as_py()
        first, last = positions["min"].as_py(), positions["max"].as_py()
        earliest, latest = instants["min"].as_py(), instants["max"].as_py()
        empty = self.rows == 0
        self.first_position = first if empty else min(self.first_position, first)
        self.last_position = max(self.last_position, last)
        self.first_timestamp = earliest if empty else min(self.first_timestamp, earliest)
        self.last_timestamp = max(self.last_timestamp, latest)
        self.last_loaded_at = max(self.last_loaded_at, loaded)
        self.position_sum += int(pc.sum(pc.cast(rows["position"], _POSITION)).as_py())
        self.rows += rows.num_rows
        assert utc_date(self.first_timestamp) == utc_date(self.last_timestamp), "two dates"

    def part(
        self,
        location: str,
        level: int,
        date: str,
        sites: tuple[str, ...],
        size_bytes: int,
        digest: str,
    ) -> Part:
        """Return the part whose rows these were."""
        return Part(
            location=location,
            level=level,
            date=date,
            sites=sites,
            rows=self.rows,
            size_bytes=size_bytes,
            first_position=self.first_position,
            last_position=self.last_position,
            position_sum=self.position_sum,
            first_timestamp=self.first_timestamp,
            last_timestamp=self.last_timestamp,
            last_loaded_at=self.last_loaded_at,
            schema_version=SCHEMA_VERSION,
            digest=digest,
        )


def split_by_date(table: pa.Table) -> list[pa.Table]:
    """Return the rows of each UTC date of `timestamp`, the earliest date first."""
    if not table.num_rows:
        return []
    days = pc.cast(table["timestamp"], pa.date32())
    dates = sorted(pc.unique(days).to_pylist())
    if len(dates) == 1:
        return [table]
    return [table.filter(pc.equal(days, pa.scalar(day, pa.date32()))) for day in dates]


def encode_recent(rows: pa.Table) -> tuple[Part, bytes]:
    """Return a level-0 part and its file's bytes; rows: of one UTC date, at least one."""
    ordered = _ordered(rows)
    content = to_parquet(ordered)
    summary = Summary()
    summary.add(ordered)
    date = utc_date(summary.first_timestamp).isoformat()
    location = partition.flushed(date, summary.first_position, summary.last_position)
    sites = pc.unique(ordered["site_id"]).to_pylist()
    digest = sha256(content).hexdigest()
    return summary.part(location, 0, date, tuple(sites), len(content), digest), content


def _ordered(rows: pa.Table) -> pa.Table:
    """Return rows by site, timestamp and position."""
    keys = [("site_id", "ascending"), ("timestamp", "ascending"), ("position", "ascending")]
    order = pc.sort_indices(rows.select([name for name, _ in keys]), keys)
    # Half of the columns say nothing in any row: they would take a quarter of the time.
    says = {name: rows[name].null_count < rows.num_rows for name in rows.column_names}
    taken = rows.select([name for name, does in says.items() if does]).take(order)
    columns = [
        taken[name] if does else pa.nulls(rows.num_rows, rows[name].type)
        for name, does in says.items()
    ]
    return pa.table(columns, schema=rows.schema)


def to_parquet(table: pa.Table) -> bytes:
    """Return a table of events as a Parquet file of level 0, whole in memory."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=LEVEL_0_ROW_GROUP_ROWS, **writer_options(0))
    return bytes(sink.getvalue().to_pybytes())


def _micros(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(column, pa.int64())
