"""What is counted: each additive quantity, defined once, for rollups and for scans alike.

Numbers are of a site-day and a *group*, the events with one value of each dimension asked for.
Visitors and visits live in one site and one UTC date, so over days every quantity is a plain sum,
and every rate a ratio of two sums.

Between events and sums stand *shares*: what one visit has in one group. Events without a visit
(those without a visitor, and engagement reports before any visit) count as pageviews, events and
revenue only. Money has shares and sums of its own, one for each currency, in which all else is
null. An amount without a currency is not money.

Definitions are Plausible's (plausible.io/docs, "Stats API" and "Metrics definitions"). Where those
leave a choice, or refuse to answer:
* A group of an event dimension has the visits with at least one event in it, engagement reports
  aside: its visits, bounces and durations are those of whole visits, as if the group were a filter.
  Plausible's bounce rate of a page is of the visits that entered there: ENTRY_BOUNCE_RATE.
* Time on page and scroll depth are means "per visit" and "per session": over the pairs of a page
  and a visit that reported any, the deepest scroll of each. A page is a pathname.
* Exits are divided by the page's pageviews within visits: only those can be anyone's last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum, IntEnum

import pyarrow as pa

from mallard.query.dimensions import By, Dimension, TimeSlice
from mallard.query.sql import Sql

_MAY_BE_NULL = {"entries", "entry_bounces", "exits"}


class Level(IntEnum):
    """How much is counted: each level has the quantities of those before it, and costs more."""

    # Of events.
    COUNTS = 1
    # And of the whole visits they belong to.
    VISITS = 2
    # And by page and visit, whatever is grouped by.
    ENGAGEMENT = 3


class Quantity(Enum):
    """What can be added up; `sql` makes it of the shares of a group, whole numbers but for money.

    Shares are to be grouped by site_id, date and currency at least. Its value is its column's name.
    """

    sql: Sql
    type: pa.DataType
    level: Level | None  # none: money

    VISITORS = "visitors", "count(DISTINCT visitor_id) FILTER (counts)"
    VISITS = "visits", "count(*) FILTER (counts)"
    PAGEVIEWS = "pageviews", "sum(pageviews)"
    # All but engagement reports.
    EVENTS = "events", "sum(events)"
    # Of the pageviews, those of no visit.
    ANONYMOUS_PAGEVIEWS = "anonymous_pageviews", "sum(pageviews) FILTER (visit IS NULL)"
    BOUNCES = "bounces", "count(*) FILTER (counts AND bounce)", Level.VISITS
    DURATION_MS = "duration_ms", "sum(duration_ms) FILTER (counts)", Level.VISITS
    # All pageviews of the group's visits, in the group or not.
    VISIT_PAGEVIEWS = "visit_pageviews", "sum(visit_pageviews) FILTER (counts)", Level.VISITS
    # Visits whose first, or last, pageview is in the group; null where the group cannot tell.
    ENTRIES = "entries", "sum(enters::INT)", Level.VISITS
    ENTRY_BOUNCES = (
        "entry_bounces",
        "sum((CASE WHEN enters THEN bounce ELSE enters END)::INT)",
        Level.VISITS,
    )
    EXITS = "exits", "sum(leaves::INT)", Level.VISITS
    ENGAGED_MS = "engaged_ms", "sum(engaged_ms)", Level.ENGAGEMENT
    # Pairs of a page and a visit that told an engaged time.
    ENGAGED_PAGES = "engaged_pages", "sum(engaged_pages)", Level.ENGAGEMENT
    # The deepest scroll, in percent, of each pair of a page and a visit that told any.
    SCROLL_SUM = "scroll_sum", "sum(scroll_sum)", Level.ENGAGEMENT
    SCROLL_PAGES = "scroll_pages", "sum(scroll_pages)", Level.ENGAGEMENT
    REVENUE_AMOUNT = "revenue_amount", "sum(revenue_amount)", None
    REVENUE_EVENTS = "revenue_events", "sum(revenue_events)", None

    def __new__(cls, name: str, sql: str, level: Level | None = Level.COUNTS) -> Quantity:
        """Make a member whose value is its column's name."""
        member = object.__new__(cls)
        member._value_ = name
        member.level = level
        is_amount = name == "revenue_amount"
        member.type = pa.decimal128(38, 2) if is_amount else pa.int64()
        number = sql if name in _MAY_BE_NULL else f"coalesce({sql}, 0)"
        # A share of money says nothing of the rest, and the rest nothing of money.
        member.sql = Sql(
            f"CASE WHEN currency IS {'NOT ' if name.startswith('revenue') else ''}NULL "
            f"THEN ({number})::{'DECIMAL(38, 2)' if is_amount else 'BIGINT'} END"
        )
        return member


class Ratio(Enum):
    """A rate or a mean of sums: `sql` reads columns named as quantities; null where none exists."""

    sql: Sql

    VIEWS_PER_VISIT = "visit_pageviews", "visits"
    BOUNCE_RATE = "bounces", "visits"
    # What Plausible calls the bounce rate of a page.
    ENTRY_BOUNCE_RATE = "entry_bounces", "entries"
    VISIT_DURATION_MS = "duration_ms", "visits"
    TIME_ON_PAGE_MS = "engaged_ms", "engaged_pages"
    SCROLL_DEPTH = "scroll_sum", "scroll_pages"
    # By event:page.
    EXIT_RATE = "exits", "pageviews - anonymous_pageviews"
    # For sums of one currency.
    AVERAGE_REVENUE = "revenue_amount", "revenue_events"

    def __new__(cls, numerator: str, denominator: str) -> Ratio:
        """Make a member whose value is both."""
        member = object.__new__(cls)
        member._value_ = (numerator, denominator)
        member.sql = Sql(f"({numerator}) / nullif({denominator}, 0)")
        return member


def quantities(level: Level) -> tuple[Quantity, ...]:
    """Return what is counted up to a level, in the order of columns."""
    return tuple(each for each in Quantity if each.level is not None and each.level <= level)


MONEY = tuple(each for each in Quantity if each.level is None)


def sums_of(counted: Iterable[Quantity]) -> Sql:
    """Return what to select from shares for the sums of some quantities."""
    return Sql(", ".join(f"{each.sql} AS {each.value}" for each in counted))


SUMS = sums_of(Quantity)

_EACH_SITE = Sql("site_id, ")
_PAGEVIEWS = "count(*) FILTER (event_type = 'page')"
_EVENTS = "count(*) FILTER (event_type <> 'engagement')"
_MONEY = (
    "revenue_currency AS currency, sum(revenue_amount) AS revenue_amount, "
    "count(*) AS revenue_events"
)
_IS_MONEY = "revenue_amount IS NOT NULL AND revenue_currency IS NOT NULL"
# Where a visit began and ended, of the event dimensions that its pageviews tell.
_ENDS: dict[By, tuple[str, str]] = {
    Dimension.PAGE: ("entry_page", "exit_page"),
    Dimension.HOSTNAME: ("entry_hostname", "exit_hostname"),
}


def shares(events: Sql, visits: Sql, dimensions: Sequence[By]) -> Sql:
    """Return a query for the shares of groups, which `Quantity.sql` sums up by any of dimensions.

    events: annotated with `visit`, only those to be counted. visits: at least those of the events.
    Columns: site_id, date, each dimension's `column`, currency, visitor_id, visit, and what
    `Quantity.sql` reads.
    """
    counted = event_shares(events, visits, dimensions, Level.ENGAGEMENT)
    return Sql(f"{counted} UNION ALL BY NAME {money_shares(events, visits, dimensions)}")


def event_shares(
    events: Sql, visits: Sql, dimensions: Sequence[By], level: Level, *, site: Sql = _EACH_SITE
) -> Sql:
    """Return a query for shares of all but money, with what quantities up to a level read.

    site: empty where all is of one site; then there is no site_id.
    """
    of_events = [each for each in dimensions if each.scope == "event"]
    told = _selected([each for each in dimensions if each.scope == "visit"])
    if level >= Level.VISITS:
        told = Sql(f"""{told} bounce, duration_ms, visited.pageviews AS visit_pageviews,
            {_meets(of_events, 0)} AS enters, {_meets(of_events, 1)} AS leaves""")
    counted = _counted(events, of_events, site, by_page=level >= Level.ENGAGEMENT)
    return Sql(f"""{_with_visits(counted, visits, told, site)}
        UNION ALL BY NAME {loose_shares(events, dimensions, site=site)}""")


def money_shares(
    events: Sql, visits: Sql, dimensions: Sequence[By], *, site: Sql = _EACH_SITE
) -> Sql:
    """Return a query for the shares of money; see `event_shares`."""
    of_events = _selected([each for each in dimensions if each.scope == "event"])
    of_visits = _selected([each for each in dimensions if each.scope == "visit"])
    of_loose = _selected([each for each in dimensions if each not in WITHOUT_VISIT])
    earned = Sql(f"""
        SELECT {site}timestamp::DATE AS date, {of_events} visitor_id, visit, {_MONEY}
        FROM ({events}) WHERE visit IS NOT NULL AND {_IS_MONEY} GROUP BY ALL""")
    return Sql(f"""{_with_visits(earned, visits, of_visits, site)}
        UNION ALL BY NAME
        SELECT {site}timestamp::DATE AS date, {of_loose} {_MONEY}
        FROM ({events}) WHERE visit IS NULL AND {_IS_MONEY} GROUP BY ALL""")


def whole_shares(visits: Sql, dimensions: Sequence[By], *, site: Sql = _EACH_SITE) -> Sql:
    """Return a query for the shares of whole visits: what all of their events would give.

    Up to Level.VISITS, by dimensions of visits. visits: only those to be counted.
    """
    assert all(each.scope == "visit" for each in dimensions), "a visit has no event's dimensions"
    return Sql(f"""
        SELECT {site}date, {_selected(dimensions)} visitor_id, visit, NULL::VARCHAR AS currency,
            events > 0 AS counts, pageviews, events, bounce, duration_ms,
            pageviews AS visit_pageviews, pageviews > 0 AS enters, pageviews > 0 AS leaves
        FROM ({visits})""")


def loose_shares(events: Sql, dimensions: Sequence[By], *, site: Sql = _EACH_SITE) -> Sql:
    """Return a query for the shares of those events that belong to no visit, but for money."""
    of_events = [each for each in dimensions if each.scope == "event"]
    of_loose = _selected([each for each in dimensions if each not in WITHOUT_VISIT])
    never = "false" if _tells(of_events) else "NULL::BOOLEAN"
    return Sql(f"""
        SELECT {site}timestamp::DATE AS date, {of_loose} {_PAGEVIEWS} AS pageviews,
            {_EVENTS} AS events, {never} AS enters, {never} AS leaves
        FROM ({events}) WHERE visit IS NULL GROUP BY ALL""")


WITHOUT_VISIT: set[By] = {
    Dimension.ENTRY_PAGE,
    Dimension.EXIT_PAGE,
    Dimension.ENTRY_HOSTNAME,
    Dimension.EXIT_HOSTNAME,
}


def _with_visits(query: Sql, visits: Sql, columns: Sql, site: Sql) -> Sql:
    if not columns:
        return query
    return Sql(f"""
        SELECT share.*, {columns}
        FROM ({query}) share JOIN ({visits}) visited USING ({site}date, visitor_id, visit)""")


def _counted(events: Sql, dimensions: Sequence[By], site: Sql, *, by_page: bool) -> Sql:
    """by_page: also time on page and scroll depth."""
    keys = f"{site}timestamp::DATE AS date, {_selected(dimensions)} visitor_id, visit"
    counts = f"NULL::VARCHAR AS currency, {_PAGEVIEWS} AS pageviews, {_EVENTS} AS events"
    told = Sql(f"FROM ({events}) WHERE visit IS NOT NULL")
    if not by_page:
        counted = f"SELECT {keys}, {counts} {told} GROUP BY ALL"
        return Sql(f"SELECT *, events > 0 AS counts FROM ({counted})")
    pages = Sql(f"""
        SELECT {keys}, pathname, {counts}, sum(engaged_ms) AS engaged_ms,
            max(scroll_depth) AS depth {told} GROUP BY ALL""")
    if Dimension.PAGE in dimensions:
        return Sql(f"""
            SELECT * EXCLUDE (pathname, depth), events > 0 AS counts,
                (engaged_ms IS NOT NULL)::INT AS engaged_pages, depth AS scroll_sum,
                (depth IS NOT NULL)::INT AS scroll_pages
            FROM ({pages})""")
    columns = "".join(f"{each.column}, " for each in dimensions)
    return Sql(f"""
        SELECT {site}date, {columns} visitor_id, visit, currency,
            sum(events) > 0 AS counts, sum(pageviews) AS pageviews, sum(events) AS events,
            sum(engaged_ms) AS engaged_ms, count(engaged_ms) AS engaged_pages,
            sum(depth) AS scroll_sum, count(depth) AS scroll_pages
        FROM ({pages}) GROUP BY ALL""")


def _selected(dimensions: Sequence[By]) -> Sql:
    return Sql("".join(f"{each.sql} AS {each.column}, " for each in dimensions))


def _meets(dimensions: Sequence[By], end: int) -> Sql:
    """Whether a visit's first (0) or last (1) pageview is in the group; null if nothing tells."""
    if not _tells(dimensions):
        return Sql("NULL::BOOLEAN")
    dimensions = [each for each in dimensions if not isinstance(each, TimeSlice)]
    same = [f"{_ENDS[each][end]} IS NOT DISTINCT FROM {each.column}" for each in dimensions]
    return Sql(" AND ".join(["counts", "visited.pageviews > 0", *same]))


def _tells(dimensions: Sequence[By]) -> bool:
    # A slice of a day has the visits that were active in it, wherever they began.
    return all(each in _ENDS or isinstance(each, TimeSlice) for each in dimensions)
