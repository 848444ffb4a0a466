"""How the Parquet of a part is written: order of rows, encodings, compression, statistics.

Level 0 is written soon and read for hours; level 1 is written once more and read for years.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from mallard.event import ARROW_SCHEMA

# The columns of level 1: those of an event, and which of its visitor's visits of the day it
# belongs to, from 1; null without a visitor, and for an engagement before any visit.
PART_SCHEMA: pa.Schema = ARROW_SCHEMA.append(pa.field("visit", pa.int16()))

LEVEL_0_ROW_GROUP_ROWS = 65_536
LEVEL_1_ROW_GROUP_ROWS = 65_536
DERIVED_ROW_GROUP_ROWS = 65_536
# Of level 1: plain SQL over columns, all ascending, nulls last, texts by their bytes. The last
# keys name a row, so that the same rows always make the same file.
LEVEL_1_ORDER = "event_name, pathname, timestamp, position"

# Dictionaries for texts, which repeat; numbers are smaller without, and sooner written.
_TEXTS = [field.name for field in ARROW_SCHEMA if field.type == pa.string()]
# Least and greatest value of what queries select by; of other columns nobody would ask.
_STATISTICS = ["position", "loaded_at", "site_id", "timestamp", "event_name"]


def writer_options(level: int) -> dict[str, Any]:
    """Return the options of `pyarrow.parquet.ParquetWriter` (and `write_table`) for a level.

    How many rows a group has is for the caller to see to: `LEVEL_0_ROW_GROUP_ROWS` and
    `LEVEL_1_ROW_GROUP_ROWS`.
    """
    common = {
        "compression": "zstd",
        "store_decimal_as_integer": True,
        "write_page_index": False,
        "use_dictionary": _TEXTS,
    }
    if level == 0:
        return {**common, "compression_level": 1, "write_statistics": _STATISTICS}
    return {
        **common,
        "compression_level": 9,
        "write_statistics": [*_STATISTICS, "pathname"],
    }


def derived_options() -> dict[str, Any]:
    """Return the options of `pyarrow.parquet.ParquetWriter` for visits and sums."""
    return {
        "compression": "zstd",
        "compression_level": 3,
        "store_decimal_as_integer": True,
        "write_page_index": False,
    }
