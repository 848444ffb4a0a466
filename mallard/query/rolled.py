"""Sums of site-days out of files: which file has them, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pyarrow as pa

from mallard.query.dimensions import Dimension
from mallard.query.engine import Session
from mallard.query.period import Slice
from mallard.query.rollup import SLICES, has_slice, is_true
from mallard.query.site_days import SiteDays
from mallard.query.sql import Sql, literal
from mallard.query.sums import Addable, Grouping
from mallard.store.part import Derived
from mallard.store.snapshot import Day
from mallard.store.store import Readable

# What is read of rollups: totals of a slice of a day, or of a whole day (null) what is asked for.
_WANTED = pa.schema(
    [
        ("date", pa.date32()),
        ("dimension", pa.string()),
        ("slice", pa.string()),
        ("number", pa.int32()),
        ("bucket", pa.int32()),
    ]
)


def file_of(days: SiteDays, grouping: Addable, piece: Slice, day: Day) -> Derived | None:
    """Return the file that has the sums asked for of a piece of a settled day, if one has them."""
    if not isinstance(grouping, Grouping) or grouping.keep is not None or len(grouping.by) > 1:
        return None
    if grouping.by and not isinstance(grouping.by[0], Dimension):
        return None
    found = days.snapshot.rollups.get((grouping.site_id, piece.date[:7]))
    if found is None or not is_true(found, piece.date, day.version):
        return None
    if piece.is_whole:
        return found
    return found if not grouping.by and has_slice(found, piece) else None


def sums_of_files(
    session: Session,
    grouping: Grouping,
    store: Readable,
    wanted: Sequence[tuple[Derived, Sequence[Slice]]],
) -> Sql:
    """Return a query for the sums of some pieces of each file, with the `number` of the file.

    Buckets are counted from that of its first piece.
    """
    listed = ", ".join(literal(store.source(file)) for file, _ in wanted)
    by = grouping.by[0] if grouping.by else Dimension.TOTAL
    found = [(number, each) for number, (_, pieces) in enumerate(wanted) for each in pieces]
    columns = (
        [date.fromisoformat(each.date) for _, each in found],
        [str(by.value) if each.is_whole else SLICES for _, each in found],
        [None if each.is_whole else str(each.start_us) for _, each in found],
        [number for number, _ in found],
        [each.bucket - wanted[number][1][0].bucket for number, each in found],
    )
    taken = session.take(pa.table(columns, _WANTED))
    value = "".join(f"value AS {each.column}, " for each in grouping.by)
    dates = [each.date for _, each in found]
    dimensions = ", ".join(map(literal, sorted(set(columns[1]))))
    # A sum of 64 bits has one of 128.
    sums = ", ".join(
        f"sum({each.value})::{'DECIMAL(38, 2)' if pa.types.is_decimal(each.type) else 'BIGINT'} "
        f"AS {each.value}"
        for each in grouping.quantities
    )
    return Sql(f"""
        SELECT number, bucket, {value} currency, {sums}
        FROM read_parquet([{listed}], hive_partitioning = false)
        JOIN {taken} USING (date, dimension)
        WHERE dimension IN ({dimensions}) AND coalesce(value = slice, true)
            AND currency IS {"NOT" if grouping.money else ""} NULL
            AND date BETWEEN DATE {literal(min(dates))} AND DATE {literal(max(dates))}
        GROUP BY ALL""")
