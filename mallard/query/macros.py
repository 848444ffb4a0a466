"""Questions with a name, for the shells: macros over the views `events` and `sessions`.

Definitions are those of `query/metrics.py`. A period is [since, until): UTC dates, the second of
which is not in it. What does not exist is null.
"""

from __future__ import annotations

from mallard.query.sessions import annotated
from mallard.query.sql import Sql

# What `mallard.sql` and `.help` say of them.
EXAMPLES = """\
SELECT channel, visitors(visitor_id, started_at), bounce_rate(bounce) FROM sessions GROUP BY ALL;
FROM totals('example.com', '2026-11-01', '2026-12-01');
FROM timeseries('example.com', '2026-11-01', '2026-12-01');
FROM breakdown('example.com', '2026-11-01', '2026-12-01', 'referrer_source');
FROM pages('example.com', '2026-11-01', '2026-12-01');
FROM funnel('example.com', '2026-11-01', '2026-12-01', ['page:/', 'page:/pricing', 'signup']);"""

_IS_ASKED = "site_id = site AND date >= since::DATE AND date < until::DATE"
_HAPPENED = "site_id = site AND timestamp >= since::DATE AND timestamp < until::DATE"
_OF_VISITS = """\
visitors(visitor_id, started_at) AS visitors,
            count(*) AS visits,
            bounce_rate(bounce) AS bounce_rate,
            avg(duration_ms) / 1000 AS visit_seconds"""
# A step is a page, written page:/pricing, or an event's name. Bit i of `fits` says whether an event
# may be step i + 1; with 0 before them, they fold to the number of steps a visit has reached.
_FITS = """list_sum(list_transform(steps, lambda step, number: CASE
                WHEN event_type = 'engagement' THEN 0
                WHEN starts_with(step, 'page:') AND event_type = 'page'
                    AND pathname = substr(step, 6) THEN 1::BIGINT << (number - 1)
                WHEN event_name = step THEN 1::BIGINT << (number - 1)
                ELSE 0
            END))::BIGINT"""
_WITHIN = annotated(
    Sql(f"""
            SELECT site_id, timestamp, position, visitor_id, event_type, event_name, pathname
            FROM events WHERE {_HAPPENED}""")
)

MACROS = [
    # The ids of a visitor on two days differ; so do those on two sites.
    Sql("""
        CREATE OR REPLACE MACRO visitors(id, instant) AS
        count(DISTINCT CASE WHEN id IS NOT NULL THEN (id, instant::DATE) END)"""),
    Sql("""
        CREATE OR REPLACE MACRO bounce_rate(bounced) AS
        100 * count(CASE WHEN bounced THEN 1 END) / nullif(count(bounced), 0)"""),
    Sql(f"""
        CREATE OR REPLACE MACRO totals(site, since, until) AS TABLE
        SELECT visitors, visits, pageviews, events, views_per_visit, bounce_rate, visit_seconds
        FROM (
            SELECT {_OF_VISITS}, sum(pageviews) / nullif(count(*), 0) AS views_per_visit
            FROM sessions WHERE {_IS_ASKED}
        ), (
            SELECT count(*) FILTER (event_type = 'page') AS pageviews,
                count(*) FILTER (event_type <> 'engagement') AS events
            FROM events WHERE {_HAPPENED}
        )"""),
    Sql(f"""
        CREATE OR REPLACE MACRO timeseries(site, since, until) AS TABLE
        SELECT date, coalesce(visitors, 0) AS visitors, coalesce(visits, 0) AS visits,
            coalesce(pageviews, 0) AS pageviews, coalesce(events, 0) AS events,
            bounce_rate, visit_seconds
        FROM (
            SELECT unnest(range(since::DATE, until::DATE, INTERVAL 1 DAY))::DATE AS date
        ) LEFT JOIN (
            SELECT date, {_OF_VISITS} FROM sessions WHERE {_IS_ASKED} GROUP BY date
        ) USING (date) LEFT JOIN (
            SELECT timestamp::DATE AS date, count(*) FILTER (event_type = 'page') AS pageviews,
                count(*) FILTER (event_type <> 'engagement') AS events
            FROM events WHERE {_HAPPENED} GROUP BY ALL
        ) USING (date)
        ORDER BY date"""),
    Sql(f"""
        CREATE OR REPLACE MACRO breakdown(site, since, until, dimension) AS TABLE
        SELECT value, {_OF_VISITS}
        FROM (
            SELECT COLUMNS(lambda c: c = dimension) AS value, visitor_id, started_at, bounce,
                duration_ms
            FROM sessions WHERE {_IS_ASKED}
        )
        GROUP BY value ORDER BY visitors DESC, value NULLS LAST"""),
    Sql(f"""
        CREATE OR REPLACE MACRO pages(site, since, until) AS TABLE
        SELECT pathname, visitors(visitor_id, timestamp) AS visitors, count(*) AS pageviews
        FROM events WHERE {_HAPPENED} AND event_type = 'page'
        GROUP BY pathname ORDER BY visitors DESC, pageviews DESC, pathname NULLS LAST"""),
    Sql(f"""
        CREATE OR REPLACE MACRO funnel(site, since, until, steps) AS TABLE
        WITH reached AS (
            SELECT list_reduce(
                [0::BIGINT] || list(fits ORDER BY timestamp, position),
                lambda done, fit: done + ((fit >> done) & 1)
            ) AS done
            FROM (
                SELECT timestamp, position, visitor_id, visit, {_FITS} AS fits
                FROM ({_WITHIN}) WHERE visit IS NOT NULL
            )
            WHERE fits > 0 GROUP BY timestamp::DATE, visitor_id, visit
        )
        SELECT number AS step, steps[number] AS name, visits,
            100 * visits / nullif(first_value(visits) OVER (ORDER BY number), 0) AS percent
        FROM (
            SELECT number, count(done) AS visits
            FROM (SELECT unnest(range(1, len(steps) + 1)) AS number)
            LEFT JOIN reached ON done >= number
            GROUP BY number
        )
        ORDER BY step"""),
]
