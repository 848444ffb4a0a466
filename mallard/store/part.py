"""One Parquet file of events: how it is written, and what the manifest keeps of it.

Parts of level 0 lie in `recent/`: those of one flush and one UTC date, all sites, sorted by
site, time and position. Their columns are `event.ARROW_SCHEMA`, whose version is in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mallard.clock import utc_date
from mallard.event import ARROW_SCHEMA, SCHEMA_VERSION

RECENT = "recent"
ZSTD_LEVEL = 1  # level 0 is written once more by compaction, which may take its time
ROW_GROUP_ROWS = 65_536
# Dictionaries for texts, which repeat; numbers are smaller without, and sooner written.
DICTIONARIES = [field.name for field in ARROW_SCHEMA if field.type == pa.string()]
# Least and greatest value of what queries select by; of other columns nobody would ask.
STATISTICS = ["position", "loaded_at", "site_id", "timestamp", "event_name"]
# Positions have at most 19 digits, and their sum, which 64 bits may not hold, at most 38.
_POSITION = pa.decimal128(19, 0)


@dataclass(frozen=True, slots=True)
class Part:
    """What the manifest says of one file.

    location: relative to the data folder. level: 0 as flushed, 1 compacted. date: the UTC date of
    every row's `timestamp`, ISO. site_id: of every row, or None for several. Instants are
    microseconds; `first` and `last` are inclusive. position_sum: over all rows, to compare contents
    with when parts are rewritten. digest: SHA-256 of the file, hexadecimal.
    """

    location: str
    level: int
    date: str
    site_id: str | None
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
    ordered = rows.sort_by(
        [("site_id", "ascending"), ("timestamp", "ascending"), ("position", "ascending")]
    )
    content = to_parquet(ordered)
    positions, instants = pc.min_max(ordered["position"]), pc.min_max(_micros(ordered["timestamp"]))
    first, last = positions["min"].as_py(), positions["max"].as_py()
    date = utc_date(instants["min"].as_py()).isoformat()
    part = Part(
        location=f"{RECENT}/{date}_{first:020d}-{last:020d}.parquet",
        level=0,
        date=date,
        site_id=None,
        rows=ordered.num_rows,
        size_bytes=len(content),
        first_position=first,
        last_position=last,
        position_sum=int(pc.sum(pc.cast(ordered["position"], _POSITION)).as_py()),
        first_timestamp=instants["min"].as_py(),
        last_timestamp=instants["max"].as_py(),
        last_loaded_at=pc.max(_micros(ordered["loaded_at"])).as_py(),
        schema_version=SCHEMA_VERSION,
        digest=sha256(content).hexdigest(),
    )
    return part, content


def to_parquet(table: pa.Table) -> bytes:
    """Return a table of events as a Parquet file, whole in memory."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        row_group_size=ROW_GROUP_ROWS,
        store_decimal_as_integer=True,
        use_dictionary=DICTIONARIES,
        write_statistics=STATISTICS,
        write_page_index=False,
    )
    return bytes(sink.getvalue().to_pybytes())


def _micros(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(column, pa.int64())
