"""How much of a part a filter reads: the rows of row groups that their statistics do not rule out.

Every reader of Parquet skips the others; nothing is timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from mallard.query.sql import literal

_HOUR, _INSTANT = timedelta(hours=1), timedelta(microseconds=1)
# What is selected, as value and weight: each hour and each page as often as it is looked at, and
# each name that not all sites have.
_FILTERS = {
    "name": (
        "event_name",
        "SELECT event_name, 1 FROM part "
        "WHERE event_name NOT IN ('pageview', 'engagement') GROUP BY 1",
    ),
    "hour": ("timestamp", "SELECT date_trunc('hour', timestamp), count(*) FROM part GROUP BY 1"),
    "path": (
        "pathname",
        "SELECT pathname, count(*) FROM part WHERE pathname IS NOT NULL GROUP BY 1",
    ),
}


def shares_read(part: Path) -> dict[str, float]:
    """Return which share of a part's rows a filter on name, on hour or on path reads on average."""
    metadata = pq.read_metadata(part)
    columns = metadata.schema.names
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    shares = {}
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW part AS FROM read_parquet({literal(str(part))})")
        for what, (column, query) in _FILTERS.items():
            at = columns.index(column)
            ranges = [(group.num_rows, group.column(at).statistics) for group in groups]
            asked = connection.execute(query).fetchall()
            read = sum(weight * _rows(ranges, value) for value, weight in asked)
            shares[what] = read / sum(weight for _, weight in asked) / metadata.num_rows
    return shares


def _rows(ranges: Sequence[tuple[int, Any]], value: Any) -> int:
    """Return the rows of groups that may hold a value, or instants of the hour that it begins."""
    last = value + _HOUR - _INSTANT if isinstance(value, datetime) else value
    return sum(
        rows
        for rows, found in ranges
        if not (found and found.has_min_max) or (found.min <= last and value <= found.max)
    )
