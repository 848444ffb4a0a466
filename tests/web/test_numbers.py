"""Numbers of the API are those of plain SQL over `events` and `sessions`, wherever events lie."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import mallard
from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.event import Event
from tests.factories import NOON_US, make_event
from tests.stored import A, B, SettableClock, Stored
from tests.web.running import Running, running

METRICS = ("visitors", "visits", "pageviews", "events", "bounce_rate", "visit_duration")
EVER = ["2024-05-01", "2024-05-06"]
NEW_YORK = ["2024-05-02T00:00:00-04:00", "2024-05-04T23:59:59-04:00"]
IN_NEW_YORK = "timestamp >= '2024-05-02 04:00' AND timestamp < '2024-05-05 04:00'"
SOURCE = "coalesce(of_source, 'Direct / None')"
COUNTRY = "coalesce(of_country, '(not set)')"
PAGE = "coalesce(pathname, '(none)')"
PLAN = "coalesce(json_extract_string(props, '/plan'), '(none)')"
DAY = "strftime(timestamp, '%Y-%m-%d')"
KINDS: list[dict[str, Any]] = [
    {"event_name": "pageview", "event_type": "page"},
    {"event_name": "pageview", "event_type": "page"},
    {"event_name": "signup", "event_type": "track"},
    {"event_name": "scroll", "event_type": "track", "interactive": False},
]
# What is asked, and its groups and its condition in SQL.
QUESTIONS: list[tuple[dict[str, Any], list[str], str]] = [
    ({}, [], "true"),
    ({"dimensions": ["event:page"]}, [PAGE], "true"),
    ({"dimensions": ["visit:source"]}, [SOURCE], "true"),
    ({"dimensions": ["time:day"]}, [DAY], "true"),
    ({"dimensions": ["time:day", "visit:country"]}, [DAY, COUNTRY], "true"),
    ({"date_range": NEW_YORK}, [], IN_NEW_YORK),
    ({"date_range": NEW_YORK, "dimensions": ["event:page"]}, [PAGE], IN_NEW_YORK),
    (
        {
            "dimensions": ["visit:country", "event:page"],
            "filters": [["is", "visit:source", ["Google"]]],
        },
        [COUNTRY, PAGE],
        "of_source = 'Google'",
    ),
    (
        {
            "dimensions": ["event:props:plan"],
            "filters": [
                ["contains", "event:page", ["/P"], {"case_sensitive": False}],
                ["is_not", "visit:country", ["DE"]],
            ],
        },
        [PLAN],
        "contains(lower(pathname), '/p') AND of_country IS DISTINCT FROM 'DE'",
    ),
    (
        {"dimensions": ["visit:source"], "filters": [["is", "event:name", ["signup"]]]},
        [SOURCE],
        "event_name = 'signup'",
    ),
    (
        {"filters": [["has_done", ["is", "event:page", ["/pricing"]]]], "date_range": NEW_YORK},
        [],
        f"has_priced AND {IN_NEW_YORK}",
    ),
    (
        {"filters": [["not", ["or", [["is", "event:page", ["/"]], ["is", "visit:city", [""]]]]]]},
        [],
        "NOT (coalesce(pathname = '/', false) OR of_city IS NULL)",
    ),
]


def make_events(day: int, count: int, rng: random.Random) -> list[Event]:
    """Events of one date, of two sites; visits there are long, short and far apart."""
    midnight = NOON_US - DAY_US // 2 + day * DAY_US
    return [
        make_event(
            site_id=rng.choice([A, A, A, B]),
            timestamp=midnight + rng.randrange(24 * 60) * 60_000_000,
            visitor_id=rng.choice([None, *range(1, 9)]),
            **rng.choice(KINDS),
            pathname=rng.choice([None, "/", "/pricing", "/Pages"]),
            referrer_source=rng.choice([None, "Google", "Bing"]),
            country_code=rng.choice([None, "DE", "FR"]),
            city=rng.choice([None, "Berlin"]),
            props=rng.choice([None, '{"plan": "pro"}', '{"plan": "free"}']),
        )
        for _ in range(count)
    ]


def seed(data: Path, rng: random.Random) -> None:
    """Settled days, of which two have sums; a settled day that got late events; an open one."""
    stored = Stored(data, day=10)
    for day in range(4):
        stored.publish(make_events(day, 80, rng))
    stored.settle()
    stored.sum_up(A, 0, 1)
    stored.publish(make_events(2, 30, rng))
    stored.publish(make_events(4, 80, rng))
    stored.close()


def in_sql(data: Path, groups: list[str], where: str) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """The same numbers, counted from the views."""
    by = "".join(f"{each} AS group_{n}, " for n, each in enumerate(groups))
    keys = ", ".join(["'all'", *(f"group_{n}" for n in range(len(groups)))])
    with mallard.open(data) as notebook:
        found = notebook.sql(f"""
            WITH visits AS (
                SELECT visitor_id, date, started_at, bounce, duration_ms,
                    referrer_source AS of_source, country_code AS of_country, city AS of_city
                FROM sessions WHERE site_id = '{A}'
            ), joined AS (
                SELECT e.*, e.timestamp::DATE AS day, started_at, bounce, duration_ms,
                    if(started_at IS NULL, referrer_source, of_source) AS of_source,
                    if(started_at IS NULL, country_code, of_country) AS of_country,
                    if(started_at IS NULL, city, of_city) AS of_city,
                    started_at IS NOT NULL AND coalesce(bool_or(pathname = '/pricing') OVER (
                        PARTITION BY e.visitor_id, e.timestamp::DATE, started_at), false
                    ) AS has_priced
                FROM (FROM events WHERE site_id = '{A}') e ASOF LEFT JOIN visits v
                    ON e.visitor_id = v.visitor_id AND e.timestamp::DATE = v.date
                        AND e.timestamp >= v.started_at
            ), chosen AS (SELECT {by} * FROM joined WHERE {where}
            ), seen AS (
                SELECT DISTINCT {keys}, day, visitor_id, started_at, bounce, duration_ms
                FROM chosen WHERE started_at IS NOT NULL
            )
            SELECT {keys}, visitors, visits, pageviews, events, bounce_rate, visit_duration
            FROM (
                SELECT {keys}, count(*) FILTER (event_type = 'page') AS pageviews,
                    count(*) AS events
                FROM chosen GROUP BY ALL
            ) LEFT JOIN (
                SELECT {keys}, count(DISTINCT (day, visitor_id)) AS visitors, count(*) AS visits,
                    round(100 * avg(bounce::INT))::BIGINT AS bounce_rate,
                    round(avg(duration_ms) / 1000)::BIGINT AS visit_duration
                FROM seen GROUP BY ALL
            ) USING ({", ".join(['"' + "'all'" + '"', *keys.split(", ")[1:]])})
            """).fetchall()
    cut = len(groups) + 1
    return {
        row[1:cut]: tuple(v or 0 if n < 4 else v for n, v in enumerate(row[cut:])) for row in found
    }


async def in_api(site: Running, question: dict[str, Any]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    document = {"site_id": A, "metrics": METRICS, "date_range": EVER, **question}
    answer = await site.client.post("/api/v2/query", json=document, headers={"host": "localhost"})
    assert answer.status_code == 200, answer.text
    return {tuple(row["dimensions"]): tuple(row["metrics"]) for row in answer.json()["results"]}


async def test_every_number_is_that_of_plain_sql(tmp_path: Path) -> None:
    rng = random.Random(1)
    data = tmp_path / "data"
    await asyncio.to_thread(seed, data, rng)
    async with running(tmp_path, clock=SettableClock(NOON_US + 6 * DAY_US)) as site:
        await site.server.buffer.append(make_events(4, 20, rng) + make_events(5, 60, rng))
        for question, groups, where in QUESTIONS:
            expected = await asyncio.to_thread(in_sql, data, groups, where)
            assert len(expected) > len(groups), "the question tells nothing"
            assert await in_api(site, question) == expected, question
