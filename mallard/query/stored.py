"""What is read of a part's file: columns by name, with what level 1 leaves out put back.

`store/encoding.py` says what that is. Of level 0, which leaves nothing out, all of it is as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from mallard.query.sql import Sql

_RESTORED = {
    "loaded_at": "coalesce(loaded_at, received_at, timestamp)",
    "url": "CASE WHEN regexp_full_match(url, 'https?://[^/]+') "
    "THEN url || coalesce(pathname, '') ELSE url END",
}


def columns(names: Sequence[str]) -> Sql:
    """Return what to select from `read_parquet`, for columns of `PART_SCHEMA`."""
    return Sql(
        ", ".join(f"{_RESTORED[name]} AS {name}" if name in _RESTORED else name for name in names)
    )
