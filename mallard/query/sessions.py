"""Visits: which events of a visitor belong together, and one row a visit.

A visit lies within one site, one UTC date and one visitor, so (site_id, date, visitor_id, visit)
names it. In the order of (timestamp, position) it starts at an event that is not an engagement
report when that is the visitor's first such of the date, or when the visitor's previous event of
any kind is more than IDLE_MINUTES before. An engagement report never starts a visit and keeps the
latest one alive; before any visit it belongs to none, and neither do events without a visitor.
"""

from __future__ import annotations

import pyarrow as pa

from mallard.query.sql import Sql

IDLE_MINUTES = 30
SESSIONS_VERSION = 1

# What a visit takes from its first event, null or not.
_OF_THE_FIRST = (
    "referrer",
    "referrer_source",
    "channel",
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "utm_content",
    "utm_term",
    "click_id_kind",
    "country_code",
    "region",
    "city",
    "browser",
    "browser_version",
    "os",
    "os_version",
    "device_type",
    "screen_width",
    "language",
)
_INSTANT = pa.timestamp("us")

SESSION_SCHEMA = pa.schema(
    [
        pa.field("site_id", pa.string(), nullable=False),
        pa.field("date", pa.date32(), nullable=False),
        pa.field("visitor_id", pa.int64(), nullable=False),
        pa.field("visit", pa.int16(), nullable=False),
        pa.field("first_position", pa.int64(), nullable=False),
        pa.field("started_at", _INSTANT, nullable=False),
        pa.field("ended_at", _INSTANT, nullable=False),
        pa.field("duration_ms", pa.int64(), nullable=False),
        pa.field("pageviews", pa.int64(), nullable=False),
        pa.field("events", pa.int64(), nullable=False),
        pa.field("bounce", pa.bool_(), nullable=False),
        *(
            pa.field(name, pa.string())
            for name in ("entry_page", "exit_page", "entry_hostname", "exit_hostname")
        ),
        *(
            pa.field(name, pa.int32() if name == "screen_width" else pa.string())
            for name in _OF_THE_FIRST
        ),
        pa.field("user_id", pa.string()),
        pa.field("engaged_ms", pa.int64()),
        pa.field("revenue", pa.map_(pa.string(), pa.decimal128(18, 2))),
    ],
    metadata={"mallard.sessions_version": str(SESSIONS_VERSION)},
)

# (timestamp, position) as one number: HUGEINT is several times faster to compare than a struct,
# and holds both, as positions have 62 bits and instants up to the year 9999 have 58.
_KEY = "(epoch_us(timestamp)::HUGEINT << 62) + position"
_PAGE = "event_type = 'page'"
_IDLE = f"INTERVAL {IDLE_MINUTES} MINUTE"
_COUNTED = "event_type <> 'engagement'"


def annotated(events: Sql) -> Sql:
    """Return a query for events with their `visit`, a SMALLINT from 1, null where there is none.

    events: any query whose rows are all events of the visitors and dates it touches: what is left
    out is not known to the visit. A column `visit` it may have is replaced; all others are kept.
    """
    # A pause that ends a visit lies between two of the stretches of time of a pause's length that a
    # visitor was there in. So a visitor of any number of events has 48 rows a date at most, and the
    # windows run over those: over events they could not spill to disk what one visitor sent.
    stretch = Sql(f"epoch_us(timestamp) // {IDLE_MINUTES * 60_000_000}")
    return Sql(f"""
        SELECT COLUMNS(lambda c: c NOT IN ('visit', 'of_site', 'of_visitor', 'of_stretch',
                'first_key', 'visit_of_stretch')),
            CASE WHEN {_KEY} >= first_key THEN visit_of_stretch END AS visit
        FROM ({events}) LEFT JOIN (
            SELECT of_site, of_visitor, of_stretch, first_key, sum((
                (starts AND idle IS NOT DISTINCT FROM true)
                OR started_key IS NOT DISTINCT FROM first_key
            )::TINYINT) OVER (
                PARTITION BY of_site, date, of_visitor ORDER BY of_stretch
            )::SMALLINT AS visit_of_stretch
            FROM (
                SELECT *, begins - lag(ends) OVER (of_date ORDER BY of_stretch) > {_IDLE} AS idle,
                    min(started_key) OVER of_date AS first_key
                FROM (
                    SELECT site_id AS of_site, timestamp::DATE AS date, visitor_id AS of_visitor,
                        {stretch} AS of_stretch, min(timestamp) AS begins, max(timestamp) AS ends,
                        arg_min({_COUNTED}, {_KEY}) AS starts,
                        min({_KEY}) FILTER ({_COUNTED}) AS started_key
                    FROM ({events}) WHERE visitor_id IS NOT NULL
                    GROUP BY ALL
                )
                WINDOW of_date AS (PARTITION BY of_site, date, of_visitor)
            ) WHERE first_key IS NOT NULL
        ) ON site_id = of_site AND visitor_id = of_visitor AND {stretch} = of_stretch""")


def visits(annotated_events: Sql) -> Sql:
    """Return a query for the visits of annotated events, with the columns of `SESSION_SCHEMA`.

    A number that does not exist is null: engaged_ms and revenue where no event told any, entry and
    exit page of a visit without a pageview. revenue: by currency; amounts of none are left out.
    """
    of_the_first = ", ".join(f"arg_min_null({name}, key) AS {name}" for name in _OF_THE_FIRST)
    columns = ", ".join(["engaged_ms", "user_id", "pathname", "hostname", *_OF_THE_FIRST])
    return Sql(f"""
        SELECT {", ".join(SESSION_SCHEMA.names)}
        FROM (
            SELECT * EXCLUDE (engaged), TRY_CAST(engaged AS BIGINT) AS engaged_ms,
                (epoch_us(ended_at) - epoch_us(started_at)) // 1000 AS duration_ms,
                pageviews = 1 AND interactions = 0 AS bounce,
                list_sort(list_distinct([m.currency for m in money])) AS currencies,
                CASE WHEN money IS NOT NULL THEN map(currencies, [TRY_CAST(
                    list_sum([m.amount for m in money if m.currency = c]) AS DECIMAL(18, 2)
                ) for c in currencies]) END AS revenue
            FROM (
                SELECT site_id, date, visitor_id, visit,
                    arg_min(position, key) AS first_position,
                    min(timestamp) AS started_at,
                    max(timestamp) AS ended_at,
                    count(*) FILTER ({_PAGE}) AS pageviews,
                    count(*) FILTER ({_COUNTED}) AS events,
                    count(*) FILTER (interactive AND {_COUNTED} AND NOT {_PAGE}) AS interactions,
                    arg_min_null(pathname, key) FILTER ({_PAGE}) AS entry_page,
                    arg_max_null(pathname, key) FILTER ({_PAGE}) AS exit_page,
                    arg_min_null(hostname, key) FILTER ({_PAGE}) AS entry_hostname,
                    arg_max_null(hostname, key) FILTER ({_PAGE}) AS exit_hostname,
                    {of_the_first},
                    arg_max(user_id, key) AS user_id,
                    sum(engaged_ms) AS engaged,
                    list({{'currency': revenue_currency, 'amount': revenue_amount}}) FILTER (
                        revenue_currency IS NOT NULL AND revenue_amount IS NOT NULL
                    ) AS money
                FROM (
                    SELECT site_id, timestamp::DATE AS date, visitor_id, visit, timestamp, position,
                        event_type, interactive, revenue_currency, revenue_amount, {columns},
                        {_KEY} AS key
                    FROM ({annotated_events}) WHERE visit IS NOT NULL
                )
                GROUP BY site_id, date, visitor_id, visit
            )
        )""")
