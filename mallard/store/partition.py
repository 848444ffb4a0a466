"""Where a file of the store lies: site and day to folder, and a name that none had before.

Locations are relative to the data folder, with "/" between. A file that is made from others gets
a token into its name: what the manifest names is never overwritten, whatever fails how often.
"""

from __future__ import annotations

import re
import secrets
from hashlib import sha256
from urllib.parse import quote

RECENT = "recent"
EVENTS = "events"
SESSIONS = "sessions"
ROLLUPS = "rollups"
RETIRED = "retired"
QUARANTINE = "quarantine"
# Of a site's name in a folder's; file systems take 255 bytes.
NAME_BYTES_MAX = 240
# What the store alone writes to: a file in them that the manifest does not name is left over.
FOLDERS = (RECENT, EVENTS, SESSIONS, ROLLUPS, RETIRED)
_PART = re.compile(r"(\d{20})-(\d{20})(?:\.[0-9a-f]{8})?\.parquet$")


def flushed(date: str, first: int, last: int) -> str:
    """Return where the events of one flush and one UTC date lie; from and to are positions."""
    return f"{RECENT}/{date}_{first:020d}-{last:020d}.parquet"


def merged(date: str, first: int, last: int) -> str:
    """Return where several flushes of one date lie that became one file."""
    return f"{RECENT}/{date}_{first:020d}-{last:020d}.{_token()}.parquet"


def compacted(site_id: str, date: str, first: int, last: int) -> str:
    """Return where a site-day lies; query engines read site and date from the folders' names."""
    return f"{_day(EVENTS, site_id, date)}/{first:020d}-{last:020d}.{_token()}.parquet"


def sessions(site_id: str, date: str) -> str:
    """Return where the visits of a site-day lie."""
    return f"{_day(SESSIONS, site_id, date)}/{_token()}.parquet"


def rollup(site_id: str, month: str) -> str:
    """Return where the sums of a site's month lie, month as YYYY-MM."""
    return f"{ROLLUPS}/site_id={_folded(site_id)}/month={month}/{_token()}.parquet"


def is_named(site_id: str) -> bool:
    """Return whether query engines that read the folders' names find this very site there."""
    # DuckDB takes these two for null, the first in any case.
    known = site_id.lower() != "null" and site_id != "__HIVE_DEFAULT_PARTITION__"
    return known and _folded(site_id) == quote(site_id, safe="")


def _day(root: str, site_id: str, date: str) -> str:
    return f"{root}/site_id={_folded(site_id)}/date={date}"


def _folded(site_id: str) -> str:
    # As Hive and DuckDB do it, so that they read the name back. A dot alone is no folder's name.
    name = quote(site_id, safe="")
    if len(name) <= NAME_BYTES_MAX:
        return name
    # Too long for a file system. What reads the folders' names finds another site then; the column
    # `site_id` says which it is.
    return f"{name[: NAME_BYTES_MAX - 17]}~{sha256(site_id.encode()).hexdigest()[:16]}"


def _token() -> str:
    return secrets.token_hex(4)


def positions(location: str) -> tuple[int, int] | None:
    """Return from and to which position the events of a part are; None for what is no part."""
    found = _PART.search(location)
    return (int(found[1]), int(found[2])) if found else None


def retired(location: str) -> str:
    """Return where a file waits, out of readers' sight, for its bytes to be removed."""
    return f"{RETIRED}/{sha256(location.encode()).hexdigest()[:32]}.parquet"
