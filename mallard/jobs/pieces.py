"""Says how a site-day is cut, so that a filter on name, hour or path skips most of a large part.

What has a name of its own, in life a tenth, is a piece; it stands in row groups by itself. Page
views and engagement are cut at full hours, and where they are many by path too, into three: behind
the first words of paths ("/blog/") where those divide them well, as visits stay in a part of a site
and each that is torn apart says again who it was; else anywhere. In a piece those visits are next
to each other that have as many events there, and `store/turns.py` says how they take turns.

A group takes 4 kB and says its texts again: 0.2 bytes of each of 200,000 events. Measured with the
benchmark's history (`cli/benchmark/history.py`) at so many: bytes an event, and which share of
a site-day a filter on name, hour and path reads.

    like visits together in stretches of the day, own names apart, thirds   14.36  10, 43, 100
    and halves by path, own names in thirds                                 15.92  10, 43,  48
    three by words, two or three by hour, like visits together              15.87  10, 48,  45
    visits of as many events together instead                               15.57  10, 48,  45
    and those take turns                                                    14.88  10, 48,  45
    and of short visits those together that came in the same way            14.76  10, 48,  45

Own names within their visits, in pieces of those that hold some and pieces of the others, saved
nothing. Bloom filters say nothing: a page that is looked at ten times a day is in nearly every
group, unless visits are torn apart. Nor do smaller pages pay within a group that is sorted by path,
though DuckDB passes over those without a match: 32,768 rows a page cost 0.4 bytes of each event.
"""

from __future__ import annotations

from bisect import bisect, bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations_with_replacement, groupby
from operator import itemgetter

import duckdb

from mallard.query.sql import Sql
from mallard.store.encoding import COMMON_NAMES, LEVEL_1_ROW_GROUP_ROWS

# The columns that `shaped` needs.
SHAPED_BY = ("pathname", "referrer", "utm_source")

_ALONE_ROWS = 65_536  # of a day of less all are in one group
_HOURS_ROWS = 150_000  # a day of so many is cut by hour
_PATHS_ROWS = 190_000  # and one of so many by path too
_THIRDS_ROWS = 400_000  # of which each piece is cut by hour into three, not only the largest
_OWN_NAMES = 3  # the piece after those of paths
_HOURS = 24
# The paths of one in so many events say where to cut, by what they begin with.
_SAMPLED, _CHARACTERS = 256, 64
# Of page views: what a filter on path may read of pieces between words, on average. A tenth of
# all events, those of own names, it reads as well.
_READ_MAX = 0.42
_WORDS = 32  # that paths begin with, of the commonest: between these they may be cut
_LARGE = 0.4  # of page views: a piece that is the only one in three by hour


@dataclass(frozen=True, slots=True)
class _Paths:
    """Where paths are cut in three: what the second piece begins with, and what its last do."""

    since: str
    until: str


def make_shapes(connection: duckdb.DuckDBPyConnection, events: Sql) -> None:
    """Make a table `shapes` of how each site's events of a date are cut: a row each, for `shaped`.

    since, until: as `_Paths`, null where there is one piece. times: of each hour, for each piece of
    paths, which part of the day it is in; null where there is one.
    """
    connection.execute(
        "CREATE OR REPLACE TABLE shapes "
        "(shaped_site VARCHAR, since VARCHAR, until VARCHAR, times UTINYINT[][])"
    )
    found = connection.execute(f"SELECT site_id, count(*) FROM ({events}) GROUP BY ALL ORDER BY 1")
    for site_id, rows in found.fetchall():
        paths, times = None, None
        if rows >= _HOURS_ROWS:
            paths, parts = _path_cuts(connection, events, site_id, rows)
            of_hours = _by_hour(connection, events, site_id)
            times = [_times(of_hours, count) for count in parts]
        connection.execute(
            "INSERT INTO shapes VALUES ($1, $2, $3, $4)",
            [site_id, paths and paths.since, paths and paths.until, times],
        )


def shaped(events: Sql) -> Sql:
    """Return a query for events with `piece` and `came` instead of `SHAPED_BY`.

    There has to be a table `shapes`, as `make_shapes` makes it. came: whether it is known from
    where, and by which campaign, as a number.
    """
    path = "(pathname >= since)::INT + (left(pathname, length(until)) > until)::INT"
    without = ", ".join(SHAPED_BY)
    return Sql(f"""
        SELECT * EXCLUDE (since, until, times, by_path),
            by_path * {_HOURS} + coalesce(times[by_path + 1][hour(timestamp) + 1], 0) AS piece
        FROM (
            SELECT * EXCLUDE ({without}, shaped_site),
                (referrer IS NOT NULL)::TINYINT + 2 * (utm_source IS NOT NULL)::TINYINT AS came,
                CASE WHEN event_name IN {COMMON_NAMES} THEN coalesce({path}, 0)
                    ELSE {_OWN_NAMES} END AS by_path
            FROM ({events}) JOIN shapes ON site_id = shaped_site
        )""")


def gathered(events: Sql) -> Sql:
    """Return a query for events with what they share with those of their visit in their piece.

    events: annotated, with the columns of `shaped`. begins: the earliest timestamp. together: how
    many they are; came: of those that are more than two 0, else the most of them. What has no
    visitor, or no visit, is taken together as if it were one.
    """
    keys = "site_id, visitor_id, visit, piece"
    same = " AND ".join(
        f"{name} IS NOT DISTINCT FROM of_{name}" for name in ("visitor_id", "visit", "piece")
    )
    return Sql(f"""
        SELECT COLUMNS(lambda c: c NOT IN ('of_site', 'of_visitor_id', 'of_visit', 'of_piece',
                'came_most')),
            CASE WHEN together <= 2 THEN came_most ELSE 0 END AS came
        FROM (SELECT * EXCLUDE (came) FROM ({events})) JOIN (
            SELECT site_id AS of_site, visitor_id AS of_visitor_id, visit AS of_visit,
                piece AS of_piece, min(timestamp) AS begins, count(*) AS together,
                max(came) AS came_most
            FROM ({events}) GROUP BY {keys}
        ) ON site_id = of_site AND {same}""")


def groups_of(pieces: Iterable[tuple[str, int, int]]) -> list[int]:
    """Return how many rows each row group has.

    pieces: of each site in turn those it has, as site, piece and rows.
    """
    found: list[int] = []
    for _, some in groupby(pieces, key=itemgetter(0)):
        sizes = [rows for _, _, rows in some]
        if sum(sizes) < _ALONE_ROWS:
            sizes = [sum(sizes)]
        for rows in sizes:
            groups = -(-rows // LEVEL_1_ROW_GROUP_ROWS)
            found += [(rows + number) // groups for number in range(groups)]
    return found


def _path_cuts(
    connection: duckdb.DuckDBPyConnection, events: Sql, site_id: str, rows: int
) -> tuple[_Paths | None, list[int]]:
    """Return where a site's paths are cut, and in how many by hour each piece of paths."""
    if rows < _PATHS_ROWS:
        return None, [3]
    found = connection.execute(
        f"SELECT left(pathname, {_CHARACTERS}) FROM ({events}) WHERE site_id = $1 "
        f"AND position % {_SAMPLED} = 0 AND event_name IN {COMMON_NAMES} "
        "AND pathname IS NOT NULL ORDER BY 1",
        [site_id],
    )
    # By code points, as Parquet has it; Python orders texts in the same way.
    sample = [path for (path,) in found.fetchall()]
    if not sample:
        return None, [3]
    paths = min(_between_words(sample), key=lambda paths: _read(_shares(sample, paths)))
    shares = _shares(sample, paths)
    if _read(shares) > _READ_MAX:
        return _Paths(*(sample[len(sample) * third // 3] for third in (1, 2))), [3] * _OWN_NAMES
    # A filter on hour reads less than half of all as long as the largest piece is in three.
    thirds = rows >= _THIRDS_ROWS or max(shares) < _LARGE
    return paths, [3 if thirds or share == max(shares) else 2 for share in shares]


def _between_words(sample: Sequence[str]) -> list[_Paths]:
    """Return ways to cut paths behind their first words, from paths in their order."""
    some = sample[:: 1 + len(sample) // _WORDS]
    words = sorted({path[: path.find("/", 1) + 1] or path for path in some})
    return [_Paths(*pair) for pair in combinations_with_replacement(words, 2)]


def _shares(sample: Sequence[str], paths: _Paths) -> list[float]:
    """Return which share of paths in their order each piece has."""
    since = bisect_left(sample, paths.since)
    until = bisect(sample, paths.until, key=lambda path: path[: len(paths.until)])
    return [rows / len(sample) for rows in (since, until - since, len(sample) - until)]


def _read(shares: Iterable[float]) -> float:
    """Return which share of page views a filter on path reads, on average."""
    return sum(share * share for share in shares)


def _by_hour(connection: duckdb.DuckDBPyConnection, events: Sql, site_id: str) -> list[int]:
    found = connection.execute(
        f"SELECT hour(timestamp), count(*) FROM ({events}) WHERE site_id = $1 GROUP BY ALL",
        [site_id],
    )
    rows = dict(found.fetchall())
    return [rows.get(hour, 0) for hour in range(_HOURS)]


def _times(of_hours: Sequence[int], count: int) -> list[int]:
    """Return for each hour of a day in which part of it it is, of so many about as large."""
    # An hour is where most of it is.
    middles = [end - rows / 2 for end, rows in zip(accumulate(of_hours), of_hours, strict=True)]
    borders = [sum(of_hours) * part / count for part in range(1, count)]
    return [bisect(borders, middle) for middle in middles]
