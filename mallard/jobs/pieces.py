"""Says how a site-day is cut, so that a filter on name, hour or path skips most of a large part.

What has a name of its own, in life a tenth, is a piece; it stands in row groups by itself. Page
views and engagement are another, in groups that follow the day; or several pieces by path, where
they are so many that each fills such groups. In a piece visits that are alike are neighbours among
those that begin at about the same time: what they have in common takes nearly nothing then.

What a cut costs: a group takes 4 kB and says its texts again, and a visit that is torn apart says
again who it was. Measured with the benchmark's history (`cli/benchmark/history.py`): bytes an event
of site-days of 200,000, 500,000 and a million, and which share of them a filter on name, hour and
path reads.

    by the start of the visit alone     14.34  35, 85, 100   14.49  22, 51, 100   14.66  15, 40, 100
    like together, own names apart      14.07  10, 58, 100   13.82  10, 39, 100   13.73  10, 30, 100
    that, and thirds of the day         14.37  10, 43, 100
    and halves by path, own in thirds   15.92  10, 43,  48   14.91  10, 43,  49   14.86  10, 30,  48
    or thirds by path, own in one       16.27  10, 43,  40   15.20  10, 43,  40   14.79  10, 45,  40

So 15 bytes do not pay for paths on a day of less than half a million. What was tried at 200,000:
two thirds of the day whole and one in halves by path, 14.78 (path 85 %); pieces of the paths' first
words and no thirds, 15.00 (hour 100 %, path 45 %). Visits that hold names of their own apart from
the others, and whole, saved nothing (name 57 %). Bloom filters say nothing: a page that is looked
at ten times a day is in nearly every group, unless visits are torn apart. Nor do smaller pages pay
within a group that is sorted by path, though DuckDB passes over those without a match: 32,768 rows
a page cost 0.4 bytes of each event.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter

from mallard.query.sql import Sql
from mallard.store.encoding import COMMON_NAMES, LEVEL_1_ROW_GROUP_ROWS

# The columns that `shaped` needs.
SHAPED_BY = (
    *("pathname", "browser", "os", "os_version", "device_type", "browser_version"),
    *("screen_width", "country_code", "region"),
)

_ALONE_ROWS = 65_536  # of a day of less all are in one group
_THIRDS_ROWS = 150_000  # of a piece
_HALVES_ROWS = 500_000  # of a day
_PATHS_ROWS = 900_000  # of a day
# So few follow each other as time does that their instants differ little, and so many that some of
# their visits are alike.
_STRETCH_ROWS = 4_000
_OWN_NAMES = 3  # the first piece after those of paths
# The paths of one in so many events say where to cut, by what they begin with.
_SAMPLED, _CHARACTERS = 256, 64
_DAY_US = 86_400_000_000


def shapes(events: Sql) -> Sql:
    """Return a query for how each site's events of a date are cut: a row each, for `shaped`."""
    halves, thirds = f"count(*) >= {_HALVES_ROWS}", f"count(*) >= {_PATHS_ROWS}"
    begins = f"left(pathname, {_CHARACTERS})"
    common = f"event_name IN {COMMON_NAMES}"
    sampled = f"position % {_SAMPLED} = 0"
    return Sql(f"""
        SELECT site_id AS shaped_site,
            greatest(1, {_DAY_US * _STRETCH_ROWS} * CASE WHEN {thirds} THEN 3 ELSE 1 END
                // count(*)) AS stretch_us,
            CASE WHEN {thirds} THEN
                quantile_disc({begins}, [0.333, 0.667]) FILTER ({sampled} AND {common})
            WHEN {halves} THEN
                quantile_disc({begins}, [0.5]) FILTER ({sampled} AND {common})
            END AS borders,
            CASE WHEN {halves} AND NOT {thirds} THEN
                quantile_disc({begins}, [0.333, 0.667]) FILTER ({sampled} AND NOT {common})
            END AS own_borders
        FROM ({events}) GROUP BY site_id""")


def shaped(events: Sql) -> Sql:
    """Return a query for events with `piece`, `stretch_us` and `likeness` instead of `SHAPED_BY`.

    There has to be a table `shapes` of what the query of that name gives. likeness: a number that
    visits share which have the same browser, system, screen and place; its upper bits, those which
    have some of these in common.
    """
    like = (
        *("browser, os", "os_version, device_type", "browser_version"),
        *("country_code", "screen_width", "region"),
    )
    bits = " | ".join(
        f"((hash({names}) & 1023) << {50 - 10 * at})" for at, names in enumerate(like)
    )
    pages, own = (
        " + ".join(f"coalesce(pathname > {borders}[{at}], false)::TINYINT" for at in (1, 2))
        for borders in ("borders", "own_borders")
    )
    without = ", ".join(SHAPED_BY)
    return Sql(f"""
        SELECT * EXCLUDE ({without}, shaped_site, borders, own_borders), {bits} AS likeness,
            CASE WHEN event_name IN {COMMON_NAMES} THEN {pages} ELSE {_OWN_NAMES} + {own} END
                AS piece
        FROM ({events}) JOIN shapes ON site_id = shaped_site""")


def groups_of(pieces: Iterable[tuple[str, int, int]]) -> list[int]:
    """Return how many rows each row group has.

    pieces: of each site in turn those it has, as site, piece and rows.
    """
    found: list[int] = []
    for _, some in groupby(pieces, key=itemgetter(0)):
        rows_of = {piece: rows for _, piece, rows in some}
        if sum(rows_of.values()) < _ALONE_ROWS:
            rows_of = {_OWN_NAMES: sum(rows_of.values())}
        for piece, rows in rows_of.items():
            groups = -(-rows // LEVEL_1_ROW_GROUP_ROWS)
            if piece < _OWN_NAMES and rows >= _THIRDS_ROWS:
                groups = max(groups, 3)
            found += [(rows + number) // groups for number in range(groups)]
    return found
