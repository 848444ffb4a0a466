"""Plausible's Stats API v2: the published queries, over events whose numbers are known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from mallard.accounts.control import Control
from mallard.event import Event
from mallard.query.reports import table
from mallard.site import Goal
from tests.factories import make_event
from tests.stored import SettableClock
from tests.web.running import Running, running

SITE = "dummy.site"
NOON_US = 1_726_488_000_000_000  # Monday 2024-09-16 12:00 UTC
MINUTE_US, DAY_US = 60_000_000, 86_400_000_000


def view(visitor: int, path: str, minute: int = 0, day: int = 0, **values: Any) -> Event:
    return make_event(
        site_id=SITE,
        visitor_id=visitor,
        pathname=path,
        hostname=SITE,
        timestamp=NOON_US + day * DAY_US + minute * MINUTE_US,
        **{"country_code": "DE", "city": "Berlin", "referrer_source": None, **values},
    )


def custom(visitor: int, name: str, minute: int, **values: Any) -> Event:
    return view(visitor, "/pricing", minute, event_name=name, event_type="track", **values)


EVENTS = [
    # Visitor 1 reads two pages, signs up and buys; 2 bounces; 3 comes from Google the day before.
    view(1, "/", 0, utm_medium="social", utm_source="twitter", browser_version="128"),
    view(1, "/pricing", 2, props='{"is_customer": true}'),
    custom(1, "Signup", 3, props='{"plan": "pro"}'),
    custom(1, "PurchaseUSD", 4, revenue_amount=Decimal("500200.25"), revenue_currency="USD"),
    view(2, "/blog/a", 10, country_code="EE", city="Tallinn", props='{"is_customer": false}'),
    view(3, "/", 0, day=-1, referrer_source="Google", country_code=None, city=None),
    view(3, "/blog/b", 1, day=-1),
]


GOALS = [
    {"display_name": "Signup", "event_name": "Signup"},
    {"event_name": "PurchaseUSD", "currency": "USD"},
    {"event_name": "PurchaseEUR", "currency": "EUR"},
    {"display_name": "Blog", "page": "/blog/**"},
]


def _add_goal(goal: dict[str, str], control: Control) -> Goal:
    return control.goals.add(SITE, goal)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Running]:
    clock = SettableClock(NOON_US + 60 * MINUTE_US)
    async with running(tmp_path, clock=clock) as mallard:
        for goal in GOALS:
            await mallard.server.accounts.change(partial(_add_goal, goal))
        await mallard.server.buffer.append(EVENTS)
        yield mallard


async def ask(site: Running, **query: Any) -> httpx.Response:
    document = {"site_id": SITE, "metrics": ["visitors"], "date_range": "all", **query}
    return await site.client.post("/api/v2/query", json=document, headers={"host": "localhost"})


async def results(site: Running, **query: Any) -> list[tuple[list[Any], list[Any]]]:
    answer = await ask(site, **query)
    assert answer.status_code == 200, answer.text
    return [(row["dimensions"], row["metrics"]) for row in answer.json()["results"]]


async def test_an_aggregate_has_one_row_without_dimensions(site: Running) -> None:
    metrics = [
        "visitors",
        "visits",
        "pageviews",
        "views_per_visit",
        "bounce_rate",
        "visit_duration",
        "events",
    ]
    answer = await ask(site, metrics=metrics)
    assert answer.json() == {
        "results": [{"dimensions": [], "metrics": [3, 3, 5, 1.67, 33, 100, 7]}],
        "meta": {},
        "query": {
            "site_id": SITE,
            "metrics": metrics,
            "date_range": ["2024-09-15T00:00:00+00:00", "2024-09-16T23:59:59+00:00"],
            "filters": [],
            "dimensions": [],
            "order_by": [["visitors", "desc"]],
            "include": {},
            "pagination": {"offset": 0, "limit": 10_000},
        },
    }


async def test_counts_of_nothing_are_0_and_means_of_nothing_null(site: Running) -> None:
    found = await results(
        site, metrics=["visitors", "events", "bounce_rate"], date_range=["2020-01-01", "2020-01-02"]
    )
    assert found == [([], [0, 0, None])]


async def test_countries_and_cities(site: Running) -> None:
    found = await results(site, dimensions=["visit:country_name", "visit:city_name"])
    assert found == [
        (["(not set)", "(not set)"], [1]),
        (["Germany", "Berlin"], [1]),
        (["Estonia", "Tallinn"], [1]),
    ]


async def test_a_value_that_is_missing_has_plausibles_word_and_can_be_filtered_by_it(
    site: Running,
) -> None:
    found = await results(site, dimensions=["visit:utm_medium", "visit:utm_source"])
    assert found == [(["(not set)", "(not set)"], [2]), (["social", "twitter"], [1])]
    direct = ["is", "visit:source", ["Direct / None"]]
    assert await results(site, filters=[direct]) == [([], [2])]
    assert await results(site, filters=[["is_not", *direct[1:]]]) == [([], [1])]


async def test_filters_by_page_and_country(site: Running) -> None:
    found = await results(
        site,
        metrics=["visitors", "pageviews"],
        filters=[
            ["contains", "event:page", ["/blog", "/pricing"]],
            ["is_not", "visit:country", ["EE"]],
        ],
    )
    assert found == [([], [2, 2])]
    insensitive = ["contains", "event:page", ["/BLOG"], {"case_sensitive": False}]
    assert await results(site, filters=[insensitive]) == [([], [2])]
    assert await results(site, filters=[["matches", "event:page", ["^/blog/[ab]$"]]]) == [([], [2])]


async def test_a_series_by_hour_with_its_labels(site: Running) -> None:
    answer = await ask(
        site, date_range="day", dimensions=["time:hour"], include={"time_labels": True}
    )
    document = answer.json()
    assert document["results"] == [{"dimensions": ["2024-09-16 12:00:00"], "metrics": [2]}]
    assert document["meta"]["time_labels"] == [f"2024-09-16 {hour:02}:00:00" for hour in range(24)]
    assert document["query"]["order_by"] == [["time:hour", "asc"], ["visitors", "desc"]]


async def test_custom_properties_by_day(site: Running) -> None:
    found = await results(
        site,
        dimensions=["time:day", "event:props:is_customer"],
        filters=[["is_not", "event:props:is_customer", ["(none)"]]],
    )
    assert found == [(["2024-09-16", "false"], [1]), (["2024-09-16", "true"], [1])]


async def test_pages_of_rows(site: Running) -> None:
    answer = await ask(
        site,
        dimensions=["event:page"],
        order_by=[["event:page", "asc"]],
        pagination={"limit": 2, "offset": 1},
        include={"total_rows": True},
    )
    document = answer.json()
    assert [row["dimensions"] for row in document["results"]] == [["/blog/a"], ["/blog/b"]]
    assert document["meta"] == {"total_rows": 4}


async def test_goals_with_their_rates(site: Running) -> None:
    found = await results(
        site,
        metrics=["visitors", "events", "conversion_rate"],
        dimensions=["event:goal"],
    )
    assert found == [
        (["Blog"], [2, 2, 66.67]),
        (["PurchaseUSD"], [1, 1, 33.33]),
        (["Signup"], [1, 1, 33.33]),
    ]
    found = await results(
        site,
        metrics=["visitors", "group_conversion_rate", "percentage"],
        dimensions=["visit:country"],
        filters=[["is", "event:goal", ["Blog"]]],
    )
    assert found == [(["(not set)"], [1, 100.0, 50.0]), (["EE"], [1, 100.0, 50.0])]


async def test_what_somebody_has_done_in_the_visit(site: Running) -> None:
    pricing = ["is", "event:page", ["/pricing"]]
    signup = ["is", "event:goal", ["Signup"]]
    assert await results(site, filters=[signup, ["has_done", pricing]]) == [([], [1])]
    assert await results(site, filters=[signup, ["has_not_done", pricing]]) == [([], [0])]
    assert await results(site, filters=[["has_not_done", pricing]]) == [([], [2])]


async def test_revenue_of_one_currency_and_of_several(site: Running) -> None:
    revenue = ["total_revenue", "average_revenue"]
    goal = ["is", "event:goal", ["PurchaseUSD"]]
    ((_, found),) = await results(site, metrics=revenue, filters=[goal])
    money = {
        "value": 500200.25,
        "currency": "USD",
        "short": "$500.2K",
        "long": "$500,200.25",
    }
    assert found == [money, money]
    event = custom(4, "PurchaseEUR", 6, revenue_amount=Decimal("1"), revenue_currency="EUR")
    await site.server.buffer.append([event])
    answer = await ask(site, metrics=["total_revenue"])
    assert answer.json()["results"] == [{"dimensions": [], "metrics": [None]}]
    warning = answer.json()["meta"]["metric_warnings"]["total_revenue"]
    assert warning["code"] == "no_single_revenue_currency"
    by_goal = await results(site, metrics=["total_revenue"], dimensions=["event:goal"])
    assert [(goal, number and number[0] and number[0]["value"]) for (goal,), number in by_goal] == [
        ("PurchaseUSD", 500200.25),
        ("PurchaseEUR", 1.0),
        ("Blog", None),
        ("Signup", None),
    ]


async def test_session_metrics_by_page_are_of_the_visits_that_saw_it(site: Running) -> None:
    found = await results(
        site,
        metrics=["bounce_rate", "visit_duration", "exit_rate"],
        dimensions=["event:page"],
        order_by=[["event:page", "asc"]],
    )
    assert found == [
        (["/"], [0, 150, 0.0]),
        (["/blog/a"], [100, 0, 100.0]),
        (["/blog/b"], [0, 60, 100.0]),
        (["/pricing"], [0, 240, 100.0]),
    ]


async def test_each_row_beside_the_period_before(site: Running) -> None:
    answer = await ask(
        site,
        metrics=["visitors", "bounce_rate"],
        date_range="day",
        dimensions=["visit:source"],
        include={"comparisons": {"mode": "previous_period"}},
    )
    assert answer.json()["results"] == [
        {
            "dimensions": ["Direct / None"],
            "metrics": [2, 50],
            "comparison": {
                "dimensions": ["Direct / None"],
                "metrics": [0, None],
                "change": [100, None],
            },
        }
    ]


async def test_a_segment_is_a_filter(site: Running) -> None:
    segment = await site.server.accounts.change(
        lambda control: control.segments.add(
            SITE, {"name": "Estonia", "filters": [["is", "visit:country", ["EE"]]]}
        )
    )
    found = await results(site, filters=[["is", "segment", [segment.segment_id]]])
    assert found == [([], [1])]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"metrics": ["visitor"]}, "unknown metric"),
        ({"filters": [["matches", "event:page", ["("]]]}, "no regular expression"),
        ({"date_range": "soon"}, "no range of dates"),
        ({"site_id": 7}, "names no site"),
    ],
)
async def test_a_mistake_is_named_in_plausibles_shape(
    query: dict[str, Any], says: str, site: Running
) -> None:
    answer = await ask(site, **query)
    assert answer.status_code == 400
    assert says in answer.json()["error"]
    assert answer.json()["code"] == "invalid_input"


async def test_a_key_of_another_site_is_refused(site: Running) -> None:
    fields = {"name": "other", "scopes": ["stats:read"], "sites": ["other.example"]}
    _, token = await site.server.accounts.change(lambda control: control.keys.create(fields))
    document = {"site_id": SITE, "metrics": ["visitors"], "date_range": "all"}
    headers = {"authorization": f"Bearer {token}"}
    answer = await site.client.post("/api/v2/query", json=document, headers=headers)
    assert answer.status_code == 403
    answer = await site.client.post("/api/v2/query", json=document)
    assert answer.status_code == 401
    answer = await site.client.post(
        "/api/v2/query", json={**document, "site_id": "other.example"}, headers=headers
    )
    assert answer.json()["results"] == [{"dimensions": [], "metrics": [0]}]


async def test_an_order_that_needs_too_many_rows_at_once_is_refused_with_what_to_do(
    site: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "ROWS_MAX", 2)
    asked = {"dimensions": ["visit:country_name"], "pagination": {"limit": 1}}
    refused = await ask(site, **asked, order_by=[["visit:country_name", "asc"]])
    assert (refused.status_code, refused.json()["code"]) == (422, "query_too_large")
    assert refused.json()["error"].startswith("The answer has 3 groups; to be put in this order")
    assert "Order by a number of visitors" in refused.json()["error"]
    assert await results(site, **asked, order_by=[["visitors", "desc"]]) == [(["(not set)"], [1])]
