"""Years of events in bulk, as a server of several sites would have stored them.

What the sizes of a store hang on is as in life: popular pages, places, browsers and referrers are
skewed as Zipf has it, a visitor keeps the same browser and place through several pages and visits,
each page is followed by a report of its engagement, a tenth of events carries props, a fiftieth
money, and traffic follows the clock. Made by DuckDB out of hashes of the seed: the same history
every time, a million events in some seconds.

Invariant: positions are without gaps from 1 on (unless other sites are asked for in between), and
`loaded_at` never goes back as they grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

import duckdb
import pyarrow as pa

from mallard.cli.benchmark import history_words as words
from mallard.event import ARROW_SCHEMA

EVENTS_PER_VISIT = 5.0  # what the shares below come to, measured
PAGES = 20_011  # of all sites; a prime, so that a site's own are spread over them
PAGES_PER_SITE = 2_000
NODE = 1


@dataclass(frozen=True)
class History:
    """What was sent to a server.

    events: of one day, of all sites, about. sites: how many; the n-th has a share as 1/n.
    others_between: how many events of sites that are not shown lie between two, on average.
    """

    sites: int
    events: int
    first_day: date
    seed: int = 7
    others_between: int = 0

    def days(self, count: int) -> Iterator[tuple[pa.Table, int]]:
        """Yield the events of each day in `ARROW_SCHEMA`, by position, and the last position."""
        last = 0
        for number in range(count):
            table = self.day(self.first_day + timedelta(days=number), last + 1)
            if table.num_rows:
                last = table["position"][-1].as_py()
            yield table, last

    def day(self, day: date, first_position: int = 1) -> pa.Table:
        """Return the events of one day in `ARROW_SCHEMA`, ordered by position."""
        connection = self._connection
        connection.execute("SET VARIABLE day = $1::DATE", [day])
        connection.execute("SET VARIABLE first_position = $1::BIGINT", [first_position])
        table = connection.sql(_EVENTS).to_arrow_table()
        return table.select(ARROW_SCHEMA.names).cast(ARROW_SCHEMA)

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect()
        for name, value in (
            ("seed", self.seed),
            ("visits", self.events / EVENTS_PER_VISIT),
            ("sites", self.sites),
            ("others", self.others_between),
        ):
            connection.execute(f"SET VARIABLE {name} = {value}")
        for name, values in words.LISTS.items():
            connection.execute(f"CREATE MACRO {name}() AS {values}")
        connection.execute(_MACROS)
        connection.execute(_PAGES)
        return connection


_MACROS = """
CREATE MACRO u(key, what) AS (hash(hash(key, what)) >> 11)::DOUBLE / 9007199254740992.0;
CREATE MACRO zipf(u, n) AS floor(pow(n + 1, u))::BIGINT - 1;
CREATE MACRO pick(list, u) AS list[1 + floor(u * len(list))::BIGINT];
CREATE MACRO titled(text) AS upper(text[1]) || text[2:];
CREATE MACRO word(key, what) AS pick(words(), u(key, what));
-- Exponential: most values are small, the mean is as given.
CREATE MACRO about(u, mean) AS -ln(1 - u) * mean;
"""

_PAGES = f"""
CREATE TABLE pages AS
SELECT number, word(key, 4) || '/' || slug AS in_section, slug, key
FROM (
    SELECT number, key, concat_ws('-', word(key, 1), word(key, 2), word(key, 3),
        CASE WHEN u(key, 6) < 0.5 THEN word(key, 7) END) AS slug
    FROM (SELECT range AS number, hash(getvariable('seed'), range) AS key FROM range({PAGES}))
)
"""

_PEOPLE = """
site AS (
    SELECT range AS site, 'site-' || range || '.example' AS site_id,
        getvariable('visits') / (range + 1) / (SELECT sum(1 / (range + 1)) FROM range(
            getvariable('sites'))) AS visits
    FROM range(getvariable('sites'))
),
numbered AS (
    SELECT site, site_id, unnest(range(ceil(visits / 1.25)::BIGINT)) AS person FROM site
),
keyed AS (
    SELECT *, hash(getvariable('seed'), getvariable('day'), site, person) AS who FROM numbered
),
person AS (
    SELECT *, (who::HUGEINT - 9223372036854775808)::BIGINT AS visitor_id,
        pick(agents(), u(who, 'agent')) AS agent,
        CASE WHEN u(who, 'home') < 0.3
            THEN countries()[1 + site % 12]
            ELSE countries()[1 + zipf(u(who, 'country'), 62)] END AS country_code,
        zipf(u(who, 'region'), 14) AS region_number,
        zipf(u(who, 'city'), 40) AS city_number,
        CASE WHEN u(who, 'known') < 0.04 THEN 'user_' || zipf(u(who, 'user'), 5000) END AS user_id
    FROM keyed
)
"""

_VISITS = """
visit AS (
    SELECT *, hash(who, visit_number) AS visit_key,
        u(hash(who, visit_number), 'campaign') < 0.35 AS is_campaign
    FROM (
        SELECT *, unnest(range(1 + floor(about(u(who, 'visits'), 0.62))::BIGINT)) AS visit_number
        FROM person
    )
),
arrival AS (
    SELECT *,
        1000000 * (3600 * pick(hours(), u(visit_key, 'hour'))
            + 3600 * u(visit_key, 'second')) AS arrived_us,
        pick(referrers(), u(visit_key, 'referrer')) AS referral,
        CASE WHEN is_campaign THEN pick(campaigns(), u(visit_key, 'which')) END
            AS campaign,
        words()[1 + zipf(u(visit_key, 'host'), 70)] AS host_word
    FROM visit
)
"""

# Each page of a visit, how long it is looked at, and what happens on it.
_VIEWS = """
view AS (
    SELECT *, hash(visit_key, view_number) AS view_key,
        (site * 7919 + rank) % 20011 AS page_number,
        arrived_us + coalesce(sum(stay_us) OVER (
            PARTITION BY visit_key ORDER BY view_number
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS viewed_us
    FROM (
        SELECT *, 1000000 * (1.5 + about(u(hash(visit_key, view_number), 'stay'), 45)) AS stay_us,
            zipf(u(hash(visit_key, view_number), 'page'), 2000) AS free_rank,
            -- Ranks that differ by a multiple of 8 are of one section; most links stay in it.
            CASE WHEN view_number > 0 AND u(hash(visit_key, view_number), 'stays') < 0.6
                THEN free_rank // 8 * 8 + zipf(u(hash(visit_key, 0), 'page'), 2000) % 8
                ELSE free_rank END AS rank
        FROM (
            SELECT *, unnest(range(1 + floor(about(u(visit_key, 'views'), 1.75))::BIGINT))
                AS view_number
            FROM arrival
        )
    )
),
happening AS (
    SELECT * EXCLUDE (happened, page_number, in_section), happened.kind AS kind,
        CASE WHEN rank = 0 THEN '/'
            WHEN rank % 8 < 4 THEN '/blog/' || slug
            WHEN rank % 8 < 5 THEN '/docs/' || in_section
            WHEN rank % 8 < 7 THEN '/products/' || slug || '-' || (10000 + number)
            ELSE '/' || (2015 + number % 11) || '/' || slug || '/' END AS pathname,
        hash(view_key, happened.kind) AS key,
        (viewed_us + stay_us * happened.after)::BIGINT AS day_us
    FROM (
        SELECT *, unnest(list_filter([
            {'kind': 'pageview', 'after': 0.0, 'is_so': true},
            {'kind': 'engagement', 'after': 0.98, 'is_so': u(view_key, 'engaged') < 0.92},
            {'kind': 'engagement', 'after': 0.4, 'is_so': u(view_key, 'away') < 0.06},
            {'kind': pick(['Outbound Link: Click', 'Outbound Link: Click', 'Outbound Link: Click',
                'search', 'search', 'video', 'Form: Submission', 'File Download', 'signup'],
                u(view_key, 'deed')), 'after': 0.7, 'is_so': u(view_key, 'does') < 0.176},
            {'kind': 'purchase', 'after': 0.9, 'is_so': u(view_key, 'buys') < 0.044}
        ], lambda deed: deed.is_so)) AS happened
        FROM view
    ) JOIN pages ON number = page_number
    WHERE viewed_us + stay_us * happened.after < 86400000000
),
told AS (
    SELECT *, kind = 'purchase' AND u(key, 'back end') < 0.5 AS is_server,
        hash(key, day_us) AS event_key,
        epoch_us(getvariable('day')::TIMESTAMP) + day_us AS instant_us
    FROM happening
),
committed AS (
    -- As the log has it: at the instant of the receipt, but behind a slow sync.
    SELECT *, max(instant_us + CASE WHEN u(event_key, 'waits') < 0.03
        THEN 5000 + about(u(event_key, 'wait'), 5000)::BIGINT ELSE 0 END)
            OVER (ORDER BY instant_us, event_key) AS commit_us,
        1 + floor(about(u(event_key, 'others'), 1) * getvariable('others'))::BIGINT AS step
    FROM told
)
"""

_PROPS = """CASE kind
    WHEN 'pageview' THEN NULL
    WHEN 'engagement' THEN NULL
    WHEN 'Outbound Link: Click' THEN '{"url":"https://' || word(link, 1) || '.example/'
        || word(link, 2) || '/' || word(link, 3) || '"}'
    WHEN 'search' THEN '{"query":"' || word(view_key, 1) || ' ' || word(view_key, 2)
        || '","results":' || zipf(u(view_key, 3), 200) || '}'
    WHEN 'video' THEN '{"title":"' || word(link, 1) || ' ' || word(link, 2) || '","percent":'
        || 25 * zipf(u(view_key, 3), 5) || ',"muted":' || (u(view_key, 4) < 0.3) || '}'
    WHEN 'File Download' THEN '{"url":"https://' || site_id || '/files/' || word(link, 1)
        || '.pdf"}'
    WHEN 'signup' THEN '{"plan":"' || pick(['free', 'free', 'pro', 'team'], u(who, 5))
        || '","trial":' || (u(who, 6) < 0.5) || '}'
    WHEN 'purchase' THEN '{"order":"A-' || (100000 + zipf(u(view_key, 3), 899999)) || '","items":'
        || (1 + zipf(u(view_key, 4), 9)) || '}'
    ELSE '{"form":"' || pick(['contact', 'comment', 'order'], u(view_key, 1)) || '","path":"'
        || pathname || '"}' END"""

_COLUMNS = f"""
    getvariable('first_position') - 1 + sum(step) OVER by_commit AS position,
    {NODE} AS node,
    make_timestamp(commit_us // 1000 * 1000) AS loaded_at,
    site_id,
    make_timestamp(instant_us // 1000 * 1000) AS timestamp,
    kind AS event_name,
    CASE kind WHEN 'pageview' THEN 'page' WHEN 'engagement' THEN 'engagement' ELSE 'track' END
        AS event_type,
    CASE WHEN is_server THEN 'API' ELSE 'Snippet' END AS source,
    CASE WHEN is_server THEN 'batch' ELSE 'post' END AS ingest_api,
    kind <> 'engagement' AS interactive,
    CASE WHEN is_server THEN 'orders' END AS stream_id,
    CASE WHEN is_server THEN sum(is_server::INT) OVER (PARTITION BY site_id
        ORDER BY instant_us, event_key ROWS UNBOUNDED PRECEDING) END AS sequence_number,
    CASE WHEN is_server THEN md5(event_key::VARCHAR) END AS idempotency_key,
    CASE WHEN is_server THEN make_timestamp((instant_us - 80000) // 1000 * 1000) END AS sent_at,
    NULL AS received_at,
    visitor_id,
    NULL AS session_id,
    CASE WHEN is_server THEN printf('a%015x', who >> 4) END AS anonymous_id,
    CASE WHEN is_server OR kind = 'signup' THEN coalesce(user_id, 'user_' || who % 9000) END
        AS user_id,
    CASE WHEN is_server THEN 'company_' || zipf(u(who, 'company'), 200) END AS company_id,
    'https://' || site_id || pathname AS url,
    site_id AS hostname,
    pathname,
    CASE WHEN view_number = 0 AND NOT is_server
        THEN replace(referral.url, '{{}}', host_word) END AS referrer,
    CASE WHEN view_number > 0 OR is_server THEN NULL
        ELSE coalesce(campaign.source, replace(referral.source, '{{}}', host_word)) END
        AS referrer_source,
    CASE WHEN view_number > 0 OR is_server THEN 'Direct'
        ELSE coalesce(campaign.channel, referral.channel) END AS channel,
    tag.source AS utm_source,
    tag.medium AS utm_medium,
    replace(tag.campaign, '{{}}', week(getvariable('day'))::VARCHAR) AS utm_campaign,
    tag.content AS utm_content,
    tag.term AS utm_term,
    tag.click AS click_id_kind,
    country_code,
    country_code || '-' || upper(substr(word(region_number, country_code), 1, 2)) || region_number
        AS region,
    CASE WHEN u(who, 'somewhere') > 0.05 THEN
        pick(['', '', '', 'North ', 'New ', 'Saint '], u(place, 1)) || titled(word(place, 2))
        || pick(['ville', 'burg', 'ton', ' City', 'stadt', 'field', ''], u(place, 3)) END AS city,
    agent.browser AS browser,
    greatest(1, agent.major - floor(about(u(who, 'major'), 1.3))::INT)::VARCHAR AS browser_version,
    agent.os AS os,
    agent.os_version AS os_version,
    agent.device AS device_type,
    CASE WHEN is_server THEN NULL WHEN agent.device = 'Desktop'
        THEN widths()[1 + zipf(u(who, 'width'), 14)]
        ELSE phone_widths()[1 + zipf(u(who, 'width'), 14)] END AS screen_width,
    CASE WHEN is_server THEN NULL
        ELSE languages()[1 + (zipf(u(who, 'language'), 10) + site) % 10] END
        AS language,
    {_PROPS} AS props,
    CASE WHEN is_server THEN '{{"total":' || (500 + zipf(u(view_key, 8), 90000)) || '}}' END
        AS data,
    CASE WHEN is_server THEN '{{"shop":"main","version":"4.2"}}' END AS metadata,
    CASE WHEN kind = 'purchase' THEN
        (500 + zipf(u(view_key, 8), 90000))::DECIMAL(12, 2) / 100 END AS revenue_amount,
    CASE WHEN kind = 'purchase' THEN pick(['EUR', 'EUR', 'EUR', 'USD'], u(site, 9)) END
        AS revenue_currency,
    CASE WHEN is_server THEN 1 + zipf(u(view_key, 4), 9) END AS quantity,
    CASE WHEN kind = 'engagement' THEN 500 * (stay_us * pick([1, 1, 0.7, 0.4], u(event_key, 7))
        // 500000)::BIGINT END AS engaged_ms,
    CASE WHEN kind = 'engagement' THEN least(100, 8 + about(u(event_key, 8), 55))::SMALLINT END
        AS scroll_depth,
    false AS backfill,
    false AS trusted_clock
"""

_EVENTS = f"""
WITH {_PEOPLE}, {_VISITS}, {_VIEWS}
SELECT {_COLUMNS}
FROM (
    SELECT *, hash(country_code, region_number, city_number) AS place,
        hash(number, zipf(u(view_key, 'link'), 6)) AS link,
        CASE WHEN view_number = 0 AND NOT is_server THEN campaign END AS tag
    FROM committed
)
WINDOW by_commit AS (ORDER BY instant_us, event_key ROWS UNBOUNDED PRECEDING)
ORDER BY position
"""
