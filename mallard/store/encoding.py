"""How the Parquet of a part is written: order of rows, encodings, compression, statistics.

Level 0 is written soon and read for hours; level 1 is written once more and read for years. What
level 1 leaves out, because another column says it, `query/stored.py` puts back:

* `loaded_at` is null where it equals `received_at`, or `timestamp` where that is null too;
* `url` is the origin alone ("https://www.example.com") where `pathname` follows it unchanged. No
  URL with a host comes without a path, as `ingest/page.py` gives each one at least "/".

Instants of level 1 have Parquet's unit of milliseconds where all of a file are whole milliseconds,
as the server's are: two bytes less of each event. DuckDB gives the same type for both units.

How rows lie is `LEVEL_1_ORDER`, and in it `turns.py`; `jobs/pieces.py` says where row groups end,
and what was measured. BYTE_STREAM_SPLIT for integers would take 0.4 bytes less of each event, and
DuckDB 1.5 cannot read it; Brotli 0.2 less, and eight times as long.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mallard.event import ARROW_SCHEMA

# The columns of level 1: those of an event, and which of its visitor's visits of the day it
# belongs to, from 1; null without a visitor, and for an engagement before any visit.
PART_SCHEMA: pa.Schema = ARROW_SCHEMA.append(pa.field("visit", pa.int16()))

LEVEL_0_ROW_GROUP_ROWS = 65_536
LEVEL_1_ROW_GROUP_ROWS = 131_072  # at most; where else groups end is for jobs/ordering.py to say
DERIVED_ROW_GROUP_ROWS = 65_536
# The names that every site has: SQL.
COMMON_NAMES = "('pageview', 'engagement')"
# Of level 1: SQL over its columns and those that `jobs/pieces.py` adds; ascending, nulls last,
# texts by their bytes. First what skips: pieces, names. In each, visits with as many events there
# next to each other, and one visit as it happened, before they take turns. The last keys name a
# row, so that the same rows always make the same file. No reader needs any order: parts of older
# versions have others.
LEVEL_1_KEYS = (
    *("piece", f"CASE WHEN event_name IN {COMMON_NAMES} THEN '' ELSE event_name END"),
    *("together", "came", "begins", "visitor_id", "timestamp", "position"),
)
LEVEL_1_ORDER = ", ".join(LEVEL_1_KEYS)

_TEXTS = [field.name for field in ARROW_SCHEMA if field.type == pa.string()]
_INSTANTS = [field.name for field in ARROW_SCHEMA if field.type == pa.timestamp("us")]
# Least and greatest value of what queries select by; of other columns nobody would ask.
_STATISTICS = ["position", "loaded_at", "site_id", "timestamp", "event_name"]
# Of level 1. Dictionaries for texts and for numbers that repeat, differences for numbers that are
# near each other, and the rest as it is: each is the least of what all readers understand.
_UNLIKE = {"idempotency_key", "anonymous_id", "user_id", "props", "data"}
_REPEATED = [
    *(name for name in _TEXTS if name not in _UNLIKE),
    *("node", "quantity", "engaged_ms", "scroll_depth", "visit"),
]
# Ids that a sender makes, of whatever kind: no text may be among them that none of them is.
FOREIGN_IDS = frozenset({"session_id", "company_id", "stream_id"})
_NEAR = [*_INSTANTS, "position", "sequence_number"]
_ORIGIN = r"^(https?://[^/]+)/.*$"


def writer_options(level: int) -> dict[str, Any]:
    """Return the options of `pyarrow.parquet.ParquetWriter` (and `write_table`) for a level.

    How many rows a group has is for the caller to see to: `LEVEL_0_ROW_GROUP_ROWS` and
    `LEVEL_1_ROW_GROUP_ROWS`.
    """
    common = {
        "compression": "zstd",
        "store_decimal_as_integer": True,
        "write_page_index": False,
    }
    if level == 0:
        return {
            **common,
            # Texts repeat; numbers are smaller without a dictionary, and sooner written.
            "use_dictionary": _TEXTS,
            "compression_level": 1,
            "write_statistics": _STATISTICS,
        }
    return {
        **common,
        # Some 100,000 events a second and core, and a byte less than at 9.
        "compression_level": 19,
        "use_dictionary": _REPEATED,
        "column_encoding": {
            field.name: "DELTA_BINARY_PACKED" if field.name in _NEAR else "PLAIN"
            for field in PART_SCHEMA
            if field.name not in _REPEATED
        },
        # A page is compressed by itself: one or two a group, but of long texts. For 8 MiB zstd
        # would take a hundred, for one 21, and from the next byte on 37; a page ends a bit behind
        # its size.
        "max_rows_per_page": LEVEL_1_ROW_GROUP_ROWS,
        "data_page_size": 896 * 1024,
        "dictionary_pagesize_limit": 1024 * 1024,
        "write_statistics": ["position", "site_id", "timestamp", "event_name", "pathname"],
    }


def file_schema(whole_ms: bool) -> pa.Schema:
    """Return the schema of a file of level 1; whole_ms: whether all its instants are whole ms."""
    unit = pa.timestamp("ms" if whole_ms else "us")
    return pa.schema(
        [
            pa.field(
                field.name,
                unit if field.name in _INSTANTS else field.type,
                nullable=field.nullable or field.name == "loaded_at",
            )
            for field in PART_SCHEMA
        ],
        metadata=PART_SCHEMA.metadata,
    )


def condensed(rows: pa.Table) -> pa.Table:
    """Return rows of `PART_SCHEMA` without what other columns say, as level 1 keeps them."""
    received = pc.coalesce(rows["received_at"], rows["timestamp"])
    loaded = pc.if_else(pc.equal(rows["loaded_at"], received), None, rows["loaded_at"])
    origin = pc.replace_substring_regex(rows["url"], _ORIGIN, r"\1")
    whole = pc.binary_join_element_wise(origin, rows["pathname"], "")
    # Null where there is no pathname: then nothing can follow.
    follows = pc.fill_null(pc.equal(whole, rows["url"]), False)
    url = pc.if_else(follows, origin, rows["url"])
    columns = {name: rows[name] for name in rows.column_names} | {"loaded_at": loaded, "url": url}
    return pa.table(columns)


def derived_options() -> dict[str, Any]:
    """Return the options of `pyarrow.parquet.ParquetWriter` for visits and sums."""
    return {
        "compression": "zstd",
        "compression_level": 3,
        "store_decimal_as_integer": True,
        "write_page_index": False,
    }
