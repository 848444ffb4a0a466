"""Says how a site-day is cut, so that a filter on name, hour or path skips most of a large part.

What has a name of its own, in life a tenth, is a piece; it stands in row groups by itself. Page
views and engagement are another, in groups that follow the day; or three pieces by path, where they
are so many that each fills such groups. In a piece visits that are alike are neighbours among those
that begin at about the same time: what they have in common takes nearly nothing then.

What a cut costs: a group takes 4 kB and says its texts again, and a visit that is torn apart says
again who it was. Measured with the benchmark's history (`cli/benchmark/history.py`): bytes an event
of a site-day of 200,000 and of one of a million, and what a filter on name, hour and path reads.

    by the start of the visit alone, 131,072 rows a group    14.75    35, 86, 100 %
                                                             15.03    27, 39, 100 %
    like visits together, names of their own apart           13.9     13.7    10, 100, 100 %
    that, and thirds of the day                              14.63    10, 43, 100 %
    that, and three pieces by path                           15.2     14.7    10, 100, 40 %
    that, and both in halves                                 15.3     14.5    10, 55, 55 %
    that, and both in thirds                                 16.4     14.98   10, 44, 40 %

So 15 bytes do not pay for paths on a day of less than a million. Bloom filters say nothing here: a
page that is looked at ten times a day is in nearly every group, unless visits are torn apart.
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
_PATHS_ROWS = 900_000  # of a day
# So few follow each other as time does that their instants differ little, and so many that some of
# their visits are alike.
_STRETCH_ROWS = 4_000
_OWN_NAMES = 3  # the piece after those of paths
# The paths of one in so many events say where to cut, by what they begin with.
_SAMPLED, _CHARACTERS = 256, 64
_DAY_US = 86_400_000_000


def shapes(events: Sql) -> Sql:
    """Return a query for how each site's events of a date are cut: a row each, for `shaped`."""
    many = f"count(*) >= {_PATHS_ROWS}"
    return Sql(f"""
        SELECT site_id AS shaped_site,
            greatest(1, {_DAY_US * _STRETCH_ROWS} * CASE WHEN {many} THEN 3 ELSE 1 END // count(*))
                AS stretch_us,
            CASE WHEN {many} THEN quantile_disc(left(pathname, {_CHARACTERS}), [0.333, 0.667])
                FILTER (event_name IN {COMMON_NAMES} AND position % {_SAMPLED} = 0) END AS borders
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
    by_path = " + ".join(f"coalesce(pathname > borders[{at}], false)::TINYINT" for at in (1, 2))
    without = ", ".join(SHAPED_BY)
    return Sql(f"""
        SELECT * EXCLUDE ({without}, shaped_site, borders), {bits} AS likeness,
            CASE WHEN event_name IN {COMMON_NAMES} THEN {by_path} ELSE {_OWN_NAMES} END AS piece
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
            if piece != _OWN_NAMES and rows >= _THIRDS_ROWS:
                groups = max(groups, 3)
            found += [(rows + number) // groups for number in range(groups)]
    return found
