"""What Plausible calls things: dimensions, metrics, and what is shown where a value is missing."""

from __future__ import annotations

from mallard.query.dimensions import By, Dimension, Property
from mallard.query.period import Interval
from mallard.query.reports.table import Metric

GOAL = "event:goal"
SEGMENT = "segment"
PROPERTY_PREFIX = "event:props:"
PROPERTY_LENGTH_MAX = 300

# A time dimension without an interval takes one that fits the length of the period.
TIMES: dict[str, Interval | None] = {
    "time": None,
    "time:hour": Interval.HOUR,
    "time:day": Interval.DAY,
    "time:week": Interval.WEEK,
    "time:month": Interval.MONTH,
}
# Places have names only: a city's is what others have a number for, a region's its code.
_ALIASES = {
    "visit:country_name": Dimension.COUNTRY,
    "visit:region_name": Dimension.REGION,
    "visit:city_name": Dimension.CITY,
}
DIMENSIONS: dict[str, Dimension] = {
    **{
        each.value: each
        for each in Dimension
        if each not in (Dimension.TOTAL, Dimension.HOUR, Dimension.LANGUAGE)
    },
    "visit:language": Dimension.LANGUAGE,
    **_ALIASES,
}
COUNTRY_NAME = "visit:country_name"

NOT_SET = "(not set)"
NONE = "(none)"
DIRECT = "Direct / None"
_MISSING = {
    Dimension.SOURCE: DIRECT,
    Dimension.REFERRER: DIRECT,
    Dimension.PAGE: NONE,
    Dimension.HOSTNAME: NONE,
    Dimension.ENTRY_PAGE: NONE,
    Dimension.EXIT_PAGE: NONE,
    Dimension.ENTRY_HOSTNAME: NONE,
    Dimension.EXIT_HOSTNAME: NONE,
}

METRICS: dict[str, Metric | None] = {
    "visitors": Metric.VISITORS,
    "visits": Metric.VISITS,
    "pageviews": Metric.PAGEVIEWS,
    "events": Metric.EVENTS,
    "views_per_visit": Metric.VIEWS_PER_VISIT,
    "bounce_rate": Metric.BOUNCE_RATE,
    "visit_duration": Metric.VISIT_DURATION,
    "scroll_depth": Metric.SCROLL_DEPTH,
    "time_on_page": Metric.TIME_ON_PAGE,
    "exit_rate": Metric.EXIT_RATE,
    "total_revenue": Metric.REVENUE,
    "average_revenue": Metric.REVENUE,
    # Made of the numbers of visitors of several questions.
    "percentage": None,
    "conversion_rate": None,
    "group_conversion_rate": None,
}
COUNTS = ("visitors", "visits", "pageviews", "events")
REVENUE = ("total_revenue", "average_revenue")
# Percentages whose change is told in points.
IN_POINTS = ("bounce_rate", "exit_rate", "conversion_rate", "group_conversion_rate")
OF_A_PAGE = ("scroll_depth", "time_on_page", "exit_rate")
OF_A_GOAL = ("conversion_rate", "group_conversion_rate")


def dimension(name: str) -> By | None:
    """Return the dimension of a name, but for goals and times; None where there is none."""
    if name.startswith(PROPERTY_PREFIX):
        key = name.removeprefix(PROPERTY_PREFIX)
        return Property(key) if 0 < len(key) <= PROPERTY_LENGTH_MAX else None
    return DIMENSIONS.get(name)


def missing(by: By) -> str:
    """Return what is shown where a dimension has no value."""
    if isinstance(by, Property):
        return NONE
    return _MISSING.get(by, NOT_SET) if isinstance(by, Dimension) else NOT_SET


def shown(by: By, value: str | None) -> str:
    """Return how a value of a dimension is shown: of a compound one the last, the city."""
    if value is not None and isinstance(by, Dimension) and by.is_compound:
        value = by.last_of(value)
    return missing(by) if value is None else value
