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

from collections.abc import Sequence
from enum import Enum

import pyarrow as pa

from mallard.query.dimensions import By, Dimension, TimeSlice
from mallard.query.sql import Sql

_MAY_BE_NULL = {"entries", "entry_bounces", "exits"}


class Quantity(Enum):
    """What can be added up; `sql` makes it of the shares of a group, whole numbers but for money.

    Shares are to be grouped by site_id, date and currency at least. Its value is its column's name.
    """

    sql: Sql
    type: pa.DataType

    VISITORS = "visitors", "count(DISTINCT visitor_id) FILTER (counts)"
    VISITS = "visits", "count(*) FILTER (counts)"
    PAGEVIEWS = "pageviews", "sum(pageviews)"
    # All but engagement reports.
    EVENTS = "events", "sum(events)"
    # Of the pageviews, those of no visit.
    ANONYMOUS_PAGEVIEWS = "anonymous_pageviews", "sum(pageviews) FILTER (visit IS NULL)"
    BOUNCES = "bounces", "count(*) FILTER (counts AND bounce)"
    DURATION_MS = "duration_ms", "sum(duration_ms) FILTER (counts)"
    # All pageviews of the group's visits, in the group or not.
    VISIT_PAGEVIEWS = "visit_pageviews", "sum(visit_pageviews) FILTER (counts)"
    # Visits whose first, or last, pageview is in the group; null where the group cannot tell.
    ENTRIES = "entries", "sum(enters::INT)"
    ENTRY_BOUNCES = "entry_bounces", "sum((CASE WHEN enters THEN bounce ELSE enters END)::INT)"
    EXITS = "exits", "sum(leaves::INT)"
    ENGAGED_MS = "engaged_ms", "sum(engaged_ms)"
    # Pairs of a page and a visit that told an engaged time.
    ENGAGED_PAGES = "engaged_pages", "sum(engaged_pages)"
    # The deepest scroll, in percent, of each pair of a page and a visit that told any.
    SCROLL_SUM = "scroll_sum", "sum(scroll_sum)"
    SCROLL_PAGES = "scroll_pages", "sum(scroll_pages)"
    REVENUE_AMOUNT = "revenue_amount", "sum(revenue_amount)"
    REVENUE_EVENTS = "revenue_events", "sum(revenue_events)"

    def __new__(cls, name: str, sql: str) -> Quantity:
        """Make a member whose value is its column's name."""
        member = object.__new__(cls)
        member._value_ = name
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


SUMS = Sql(", ".join(f"{each.sql} AS {each.value}" for each in Quantity))

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

    events: annotated with `visit`, only those to be counted. visits: at least those of the events,
    or only those to be counted: shares of others are left out. Columns: site_id, date, each
    dimension's `column`, currency, visitor_id, visit, and what `Quantity.sql` reads.
    """
    of_events = [each for each in dimensions if each.scope == "event"]
    of_visits = [each for each in dimensions if each.scope == "visit"]
    of_loose = _selected([each for each in dimensions if each not in WITHOUT_VISIT])
    values = _selected(of_visits)
    return Sql(f"""
        SELECT share.*, {values} bounce, duration_ms, visited.pageviews AS visit_pageviews,
            {_meets(of_events, 0)} AS enters, {_meets(of_events, 1)} AS leaves
        FROM ({_counted(events, of_events)}) share
        JOIN ({visits}) visited USING (site_id, date, visitor_id, visit)
        UNION ALL BY NAME
        SELECT share.*, {values}
        FROM ({_money(events, of_events)}) share
        JOIN ({visits}) visited USING (site_id, date, visitor_id, visit)
        UNION ALL BY NAME
        SELECT site_id, timestamp::DATE AS date, {of_loose} {_PAGEVIEWS} AS pageviews,
            {_EVENTS} AS events, {_never(of_events)} AS enters, {_never(of_events)} AS leaves
        FROM ({events}) WHERE visit IS NULL GROUP BY ALL
        UNION ALL BY NAME
        SELECT site_id, timestamp::DATE AS date, {of_loose} {_MONEY}
        FROM ({events}) WHERE visit IS NULL AND {_IS_MONEY} GROUP BY ALL""")


WITHOUT_VISIT: set[By] = {
    Dimension.ENTRY_PAGE,
    Dimension.EXIT_PAGE,
    Dimension.ENTRY_HOSTNAME,
    Dimension.EXIT_HOSTNAME,
}


def _counted(events: Sql, dimensions: Sequence[By]) -> Sql:
    columns = "".join(f"{each.column}, " for each in dimensions)
    return Sql(f"""
        SELECT site_id, date, {columns} visitor_id, visit, NULL::VARCHAR AS currency,
            sum(events) > 0 AS counts, sum(pageviews) AS pageviews, sum(events) AS events,
            sum(engaged_ms) AS engaged_ms, count(engaged_ms) AS engaged_pages,
            sum(depth) AS scroll_sum, count(depth) AS scroll_pages
        FROM (
            SELECT site_id, timestamp::DATE AS date, {_selected(dimensions)} visitor_id, visit,
                pathname, {_PAGEVIEWS} AS pageviews, {_EVENTS} AS events,
                sum(engaged_ms) AS engaged_ms, max(scroll_depth) AS depth
            FROM ({events}) WHERE visit IS NOT NULL GROUP BY ALL
        )
        GROUP BY ALL""")


def _money(events: Sql, dimensions: Sequence[By]) -> Sql:
    return Sql(f"""
        SELECT site_id, timestamp::DATE AS date, {_selected(dimensions)} visitor_id, visit, {_MONEY}
        FROM ({events}) WHERE visit IS NOT NULL AND {_IS_MONEY} GROUP BY ALL""")


def _selected(dimensions: Sequence[By]) -> Sql:
    return Sql("".join(f"{each.sql} AS {each.column}, " for each in dimensions))


def _meets(dimensions: Sequence[By], end: int) -> Sql:
    """Whether a visit's first (0) or last (1) pageview is in the group; null if nothing tells."""
    if not _tells(dimensions):
        return Sql("NULL::BOOLEAN")
    dimensions = [each for each in dimensions if not isinstance(each, TimeSlice)]
    same = [f"{_ENDS[each][end]} IS NOT DISTINCT FROM {each.column}" for each in dimensions]
    return Sql(" AND ".join(["counts", "visited.pageviews > 0", *same]))


def _never(dimensions: Sequence[By]) -> Sql:
    return Sql("false" if _tells(dimensions) else "NULL::BOOLEAN")


def _tells(dimensions: Sequence[By]) -> bool:
    # A slice of a day has the visits that were active in it, wherever they began.
    return all(each in _ENDS or isinstance(each, TimeSlice) for each in dimensions)
