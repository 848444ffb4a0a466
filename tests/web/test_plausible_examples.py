"""Every example query that plausible.io/docs/stats-api publishes, and the options it describes.

Queries are as printed there; events are ours, and few enough to count by hand.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mallard.accounts.control import Control
from mallard.event import Event
from mallard.site import Goal, Segment
from tests.stored import SettableClock
from tests.web.running import Running, running
from tests.web.test_reports import MINUTE_US, NOON_US, SITE, view

Given = dict[str, Any]

GERMAN: Given = {"country_code": "DE", "city": "Berlin", "os": "Mac"}
ESTONIAN: Given = {"country_code": "EE", "city": "Tallinn", "os": "GNU/Linux"}
POLISH: Given = {"country_code": "PL", "city": "Warsaw", "os": "Windows"}
AMERICAN: Given = {"country_code": "US", "city": "San Francisco", "os": "Mac"}
UNKNOWN: Given = {"country_code": None, "city": None, "os": "Windows"}
TWITTER: Given = {"utm_medium": "social", "utm_source": "twitter", "referrer_source": "Twitter"}
DAY = 24 * 60  # minutes


def did(visitor: int, name: str, minute: int, **values: Any) -> Event:
    return view(visitor, "/thanks", minute, event_name=name, event_type="track", **values)


def paid(visitor: int, minute: int, amount: str, currency: str) -> Event:
    money = {"revenue_amount": Decimal(amount), "revenue_currency": currency}
    return did(visitor, f"Purchase{currency}", minute, **money)


# Minutes are from noon of today, 2024-09-16; now is an hour later.
EVENTS = [
    view(1, "/", -DAY, **GERMAN, **TWITTER),
    view(1, "/docs/intro", -DAY + 1, props='{"is_customer": "true"}', **GERMAN),
    did(1, "Signup", -DAY + 2, props='{"plan": "pro"}', **GERMAN),
    paid(1, -DAY + 3, "96336315", "USD"),
    view(2, "/pricing", -DAY + 5, props='{"is_customer": "false"}', **ESTONIAN),
    view(2, "/Blog/One", -DAY + 6, **ESTONIAN),
    view(3, "/docs", -3 * DAY, referrer_source="Google", utm_source="google", **ESTONIAN),
    did(3, "Signup", -3 * DAY + 1, **ESTONIAN),
    paid(3, -3 * DAY + 2, "20", "EUR"),
    view(4, "/pricing", -3 * DAY + 9, props='{"is_customer": "true"}', **POLISH),
    did(4, "Signup", -3 * DAY + 10, **POLISH),
    view(5, "/blog/two", -5 * DAY, **UNKNOWN),
    view(6, "/", -20 * DAY, referrer_source="Google", **AMERICAN),
    view(7, "/", -10 * 60 - 50, **GERMAN),  # today at 01:10
    view(7, "/pricing", -10 * 60 - 45, **GERMAN),
    view(8, "/", -9 * 60 - 40, **GERMAN),  # at 02:20
    view(9, "/", -37 * DAY, **GERMAN),  # 2024-08-10
]
GOALS: list[Given] = [
    {"display_name": "Signup", "event_name": "Signup"},
    {"display_name": "North America Purchases", "event_name": "PurchaseUSD", "currency": "USD"},
    {"display_name": "Visit /", "page": "/"},
    {"event_name": "PurchaseUSD", "display_name": "PurchaseUSD", "props": {}, "currency": "USD"},
    {"event_name": "PurchaseEUR", "currency": "EUR"},
]
HOURS = [f"2024-09-16 {hour:02}:00:00" for hour in range(24)]
WEEK = ["2024-09-09T00:00:00+00:00", "2024-09-15T23:59:59+00:00"]
EVER = ["2024-08-10T00:00:00+00:00", "2024-09-16T23:59:59+00:00"]


def _add_goal(goal: dict[str, Any], control: Control) -> Goal:
    return control.goals.add(SITE, goal)


def _add_segment(segment: dict[str, Any], control: Control) -> Segment:
    return control.segments.add(SITE, segment)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path, clock=SettableClock(NOON_US + 60 * MINUTE_US)) as mallard:
        accounts = mallard.server.accounts
        for goal in GOALS:
            await accounts.change(partial(_add_goal, goal))
        for name, country in (("Germans", "DE"), ("Estonians", "EE")):
            segment = {"name": name, "filters": [["is", "visit:country", [country]]]}
            await accounts.change(partial(_add_segment, segment))
        await mallard.server.buffer.append(EVENTS)
        yield mallard


async def ask(site: Running, **query: Any) -> dict[str, Any]:
    document = {"site_id": SITE, **query}
    answer = await site.client.post("/api/v2/query", json=document, headers={"host": "localhost"})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def rows(site: Running, **query: Any) -> list[tuple[list[Any], list[Any]]]:
    found = await ask(site, **query)
    return [(row["dimensions"], row["metrics"]) for row in found["results"]]


async def test_a_simple_aggregate_query(site: Running) -> None:
    assert await ask(site, metrics=["visitors", "events"], date_range="7d") == {
        "results": [{"metrics": [5, 12], "dimensions": []}],
        "meta": {},
        "query": {
            "site_id": SITE,
            "metrics": ["visitors", "events"],
            "date_range": WEEK,
            "filters": [],
            "dimensions": [],
            "order_by": [["visitors", "desc"]],
            "include": {},
            "pagination": {"offset": 0, "limit": 10000},
        },
    }


async def test_a_custom_date_range(site: Running) -> None:
    found = await ask(site, metrics=["visitors"], date_range=["2024-08-01", "2024-08-15"])
    assert found["results"] == [{"metrics": [1], "dimensions": []}]
    assert found["query"]["date_range"] == [
        "2024-08-01T00:00:00+00:00",
        "2024-08-15T23:59:59+00:00",
    ]


async def test_country_and_city_analysis(site: Running) -> None:
    found = await rows(
        site,
        metrics=["visitors", "pageviews", "bounce_rate"],
        date_range="7d",
        filters=[["is_not", "visit:country_name", [""]]],
        dimensions=["visit:country_name", "visit:city_name"],
    )
    assert found == [
        (["Estonia", "Tallinn"], [2, 3, 0]),
        (["Germany", "Berlin"], [1, 2, 0]),
        (["Poland", "Warsaw"], [1, 1, 0]),
    ]


async def test_utm_medium_and_source_analysis(site: Running) -> None:
    asked = {
        "metrics": ["visitors", "events", "pageviews"],
        "date_range": "7d",
        "dimensions": ["visit:utm_medium", "visit:utm_source"],
    }
    everything = [
        (["(not set)", "(not set)"], [3, 5, 4]),
        (["(not set)", "google"], [1, 3, 1]),
        (["social", "twitter"], [1, 4, 2]),
    ]
    assert await rows(site, **asked) == everything
    paged = await ask(
        site, **asked, include={"total_rows": True}, pagination={"limit": 3, "offset": 1}
    )
    assert [(row["dimensions"], row["metrics"]) for row in paged["results"]] == everything[1:]
    assert paged["meta"] == {"total_rows": 3}
    assert paged["query"]["include"] == {"total_rows": True}
    assert paged["query"]["pagination"] == {"offset": 1, "limit": 3}
    beyond = await ask(site, **asked, include={"total_rows": True}, pagination={"offset": 9})
    assert (beyond["results"], beyond["meta"]) == ([], {"total_rows": 3})


async def test_filtering_by_page_and_country(site: Running) -> None:
    found = await rows(
        site,
        metrics=["visitors"],
        date_range="7d",
        filters=[
            ["contains", "event:page", ["/docs", "/pricing"]],
            ["is", "visit:country_name", ["Estonia", "United States of America"]],
        ],
    )
    assert found == [([], [2])]


async def test_case_insensitive_filtering(site: Running) -> None:
    blog = ["contains", "event:page", ["blog"]]
    asked = {"metrics": ["visitors"], "date_range": "7d"}
    assert await rows(site, **asked, filters=[[*blog, {"case_sensitive": False}]]) == [([], [2])]
    assert await rows(site, **asked, filters=[blog]) == [([], [1])]


async def test_filtering_by_segment(site: Running) -> None:
    found = await ask(
        site, metrics=["visitors", "events"], filters=[["is", "segment", [2]]], date_range="7d"
    )
    assert found["results"] == [{"metrics": [2, 5], "dimensions": []}]
    assert found["query"]["filters"] == [["is", "segment", [2]]]


async def test_a_timeseries_query(site: Running) -> None:
    found = await ask(
        site,
        metrics=["visitors", "events"],
        date_range="7d",
        filters=[["is", "visit:os", ["GNU/Linux", "Mac"]]],
        dimensions=["time:day"],
    )
    assert found["results"] == [
        {"metrics": [1, 3], "dimensions": ["2024-09-13"]},
        {"metrics": [2, 6], "dimensions": ["2024-09-15"]},
    ]
    assert found["query"]["order_by"] == [["time:day", "asc"], ["visitors", "desc"]]


async def test_a_timeseries_query_by_hour_with_labels(site: Running) -> None:
    found = await ask(
        site,
        metrics=["visitors"],
        date_range="day",
        dimensions=["time:hour"],
        include={"time_labels": True},
    )
    assert found["results"] == [
        {"metrics": [1], "dimensions": ["2024-09-16 01:00:00"]},
        {"metrics": [1], "dimensions": ["2024-09-16 02:00:00"]},
    ]
    assert found["meta"] == {"time_labels": HOURS}


async def test_custom_properties(site: Running) -> None:
    found = await ask(
        site,
        metrics=["visitors"],
        date_range="7d",
        dimensions=["time:day", "event:props:is_customer"],
        order_by=[["time:day", "asc"], ["event:props:is_customer", "desc"]],
    )
    assert [(row["dimensions"], row["metrics"]) for row in found["results"]] == [
        (["2024-09-11", "(none)"], [1]),
        (["2024-09-13", "true"], [1]),
        (["2024-09-13", "(none)"], [2]),
        (["2024-09-15", "true"], [1]),
        (["2024-09-15", "false"], [1]),
        (["2024-09-15", "(none)"], [2]),
    ]
    assert found["query"]["order_by"] == [
        ["time:day", "asc"],
        ["event:props:is_customer", "desc"],
    ]


async def test_including_imported_data_of_which_there_is_none(site: Running) -> None:
    asked = {
        "metrics": ["visitors"],
        "date_range": "all",
        "dimensions": ["visit:source"],
        "include": {"imports": True},
    }
    found = await ask(site, **asked)
    assert found["results"] == [
        {"metrics": [6], "dimensions": ["Direct / None"]},
        {"metrics": [2], "dimensions": ["Google"]},
        {"metrics": [1], "dimensions": ["Twitter"]},
    ]
    assert found["meta"]["imports_included"] is False
    assert found["query"]["date_range"] == EVER
    found = await ask(site, **asked, filters=[["is", "visit:country_name", ["Estonia"]]])
    assert found["results"] == [
        {"metrics": [1], "dimensions": ["Direct / None"]},
        {"metrics": [1], "dimensions": ["Google"]},
    ]
    assert found["meta"]["imports_included"] is False
    assert found["meta"]["imports_skip_reason"]


async def test_revenue_metrics(site: Running) -> None:
    answer = await ask(site, metrics=["total_revenue"], date_range="all", dimensions=["event:goal"])
    assert answer["meta"] == {}
    assert answer["query"]["order_by"] == [["total_revenue", "desc"]]
    found = [(row["dimensions"], row["metrics"]) for row in answer["results"]]
    dollars = {
        "short": "$96.3M",
        "value": 96336315,
        "long": "$96,336,315.00",
        "currency": "USD",
    }
    euros = {"short": "€20", "value": 20, "long": "€20.00", "currency": "EUR"}
    assert found == [
        (["North America Purchases"], [dollars]),
        (["PurchaseUSD"], [dollars]),
        (["PurchaseEUR"], [euros]),
        (["Signup"], [None]),
        (["Visit /"], [None]),
    ]


async def test_revenue_metrics_of_several_currencies_are_null_with_a_warning(
    site: Running,
) -> None:
    found = await ask(
        site,
        metrics=["total_revenue"],
        date_range="all",
        filters=[["is", "event:goal", ["PurchaseUSD", "PurchaseEUR"]]],
    )
    assert found["results"] == [{"metrics": [None], "dimensions": []}]
    warning = found["meta"]["metric_warnings"]["total_revenue"]
    assert warning["code"] == "no_single_revenue_currency"
    assert warning["warning"].startswith("Revenue metrics are null")


async def test_behavioral_filters(site: Running) -> None:
    found = await rows(
        site,
        metrics=["visitors"],
        date_range="all",
        filters=[
            ["is", "event:goal", ["Signup"]],
            ["has_done", ["is", "event:page", ["/pricing"]]],
        ],
    )
    assert found == [([], [1])]
    found = await rows(
        site,
        metrics=["visitors", "pageviews"],
        date_range="7d",
        filters=[
            ["is", "event:page", ["/pricing"]],
            ["has_done", ["is", "event:goal", ["Signup"]]],
            ["has_not_done", ["is", "event:goal", ["PurchaseUSD", "PurchaseEUR"]]],
        ],
    )
    assert found == [([], [1, 1])]


OPERATORS: list[tuple[list[Any], int]] = [
    (["is", "visit:country_name", ["Germany", "Poland"]], 2),
    (["is_not", "event:page", ["/pricing"]], 5),
    (["contains", "event:page", ["/docs"]], 2),
    (["contains_not", "event:page", ["docs", "pricing"]], 5),
    (["matches", "event:page", ["^/docs/\\w+$"]], 1),
    (["matches_not", "event:page", ["^/docs"]], 5),
    (["contains", "visit:country_name", ["eston", "POL"], {"case_sensitive": False}], 3),
    (["matches", "visit:country_name", ["^(Est|Pol)"]], 3),
    (["is", "visit:country_name", ["(not set)"]], 1),
    (["contains_not", "visit:country_name", ["land"]], 4),
    (["is", "visit:country_name", ["Atlantis"]], 0),
    (["is", "visit:country_name", ["DE"]], 0),
    (
        [
            "and",
            [
                ["is", "visit:country_name", ["Germany"]],
                ["is", "visit:city_name", ["Berlin"]],
            ],
        ],
        1,
    ),
    (
        [
            "or",
            [
                ["is", "visit:country_name", ["Germany"]],
                ["is", "visit:city_name", ["Tallinn"]],
            ],
        ],
        3,
    ),
    (["not", ["is", "visit:country_name", ["Germany"]]], 4),
    (["contains", "event:goal", ["Purchase"]], 2),
]


async def test_every_operator_as_documented(site: Running) -> None:
    asked = {"metrics": ["visitors"], "date_range": "7d"}
    found = [(each, await rows(site, **asked, filters=[each])) for each, _ in OPERATORS]
    assert found == [(each, [([], [visitors])]) for each, visitors in OPERATORS]


async def test_texts_of_any_language_fit_in_any_case(site: Running) -> None:
    pages = ["/ÄPFEL", "/äpfel/日本", "/İstanbul", "/" + "x" * 2_000]
    events = [view(30 + n, page, -DAY) for n, page in enumerate(pages)]
    await site.server.buffer.append(events)
    ignoring = {"case_sensitive": False}
    conditions: list[tuple[list[Any], int]] = [
        (["matches", "event:page", ["^/ä.*本$"]], 1),
        (["matches", "event:page", ["\\p{Han}"]], 1),
        (["matches", "event:page", ["^/ä"], ignoring], 2),
        (["contains", "event:page", ["äPF"], ignoring], 2),
        (["is", "event:page", ["/İSTANBUL"], ignoring], 1),
        (["is", "event:page", pages[3:]], 1),
        (["contains", "event:page", ["x" * 2_001]], 0),
    ]
    asked = {"metrics": ["visitors"], "date_range": "7d"}
    found = [(each, await rows(site, **asked, filters=[each])) for each, _ in conditions]
    assert found == [(each, [([], [visitors])]) for each, visitors in conditions]


async def test_an_aggregate_is_one_row_and_nothing_after_it(site: Running) -> None:
    asked = {"metrics": ["visitors"], "date_range": "7d"}
    assert await rows(site, **asked, pagination={"offset": 1}) == []


async def test_goals_by_other_dimensions_have_pages_of_rows(site: Running) -> None:
    asked = {
        "metrics": ["visitors", "conversion_rate", "group_conversion_rate"],
        "date_range": "7d",
        "dimensions": ["visit:country_name", "event:goal"],
        "order_by": [["visit:country_name", "desc"], ["event:goal", "desc"]],
        "include": {"total_rows": True},
    }
    everything = [
        {"dimensions": ["Poland", "Signup"], "metrics": [1, 20.0, 100.0]},
        {"dimensions": ["Germany", "Visit /"], "metrics": [1, 20.0, 100.0]},
        {"dimensions": ["Germany", "Signup"], "metrics": [1, 20.0, 100.0]},
        {"dimensions": ["Germany", "PurchaseUSD"], "metrics": [1, 20.0, 100.0]},
        {"dimensions": ["Germany", "North America Purchases"], "metrics": [1, 20.0, 100.0]},
        {"dimensions": ["Estonia", "Signup"], "metrics": [1, 20.0, 50.0]},
        {"dimensions": ["Estonia", "PurchaseEUR"], "metrics": [1, 20.0, 50.0]},
    ]
    pages = [
        await ask(site, **asked, pagination={"limit": 3, "offset": offset}) for offset in (0, 3, 6)
    ]
    assert [row for page in pages for row in page["results"]] == everything
    assert [page["meta"]["total_rows"] for page in pages] == [7, 7, 7]


async def test_rows_are_in_the_order_of_names_where_names_are_shown(site: Running) -> None:
    found = await rows(
        site,
        metrics=["visitors"],
        date_range="7d",
        dimensions=["visit:country_name"],
        order_by=[["visit:country_name", "asc"]],
    )
    assert [name for (name,), _ in found] == ["(not set)", "Estonia", "Germany", "Poland"]
    found = await rows(
        site,
        metrics=["visitors"],
        date_range="7d",
        dimensions=["visit:city_name", "visit:city", "visit:country"],
        order_by=[["visit:city_name", "desc"]],
        pagination={"limit": 2},
    )
    assert [names for names, _ in found] == [
        ["Warsaw", "Warsaw", "PL"],
        ["Tallinn", "Tallinn", "EE"],
    ]


async def test_rates_of_conversions_are_of_all_visitors_that_other_filters_keep(
    site: Running,
) -> None:
    goal = ["is", "event:goal", ["Signup"]]
    asked = {"metrics": ["visitors", "conversion_rate"], "date_range": "7d"}
    assert await rows(site, **asked, filters=[goal]) == [([], [3, 60.0])]
    estonian = ["is", "segment", [2]]
    assert await rows(site, **asked, filters=[goal, estonian]) == [([], [1, 50.0])]
    pricing = ["has_done", ["is", "event:page", ["/pricing"]]]
    assert await rows(site, **asked, filters=[goal, pricing]) == [([], [1, 50.0])]
    # Everybody of plan pro signed up: it was then that they had it. The rate is of everybody.
    pro = ["is", "event:props:plan", ["pro"]]
    assert await rows(site, **asked, filters=[goal, pro]) == [([], [1, 20.0])]
    by_country = await rows(
        site,
        metrics=["visitors", "group_conversion_rate", "conversion_rate", "percentage"],
        date_range="7d",
        filters=[goal],
        dimensions=["visit:country"],
    )
    assert by_country == [
        (["DE"], [1, 100.0, 20.0, 33.3]),
        (["EE"], [1, 50.0, 20.0, 33.3]),
        (["PL"], [1, 100.0, 20.0, 33.3]),
    ]


async def test_an_integration_that_asks_by_several_dimensions_of_visits(site: Running) -> None:
    """The query that a public site's profile pages send, and what a chat tool's client sends."""
    found = await rows(
        site,
        metrics=["visitors", "pageviews"],
        date_range="7d",
        filters=[["contains", "event:page", ["/pricing"]]],
        dimensions=["visit:device", "visit:browser", "visit:country", "visit:source"],
    )
    assert [(place[2:], numbers) for place, numbers in found] == [
        (["EE", "Direct / None"], [1, 1]),
        (["PL", "Direct / None"], [1, 1]),
    ]
    assert (await ask(site, metrics=["visitors", "visits"], date_range="30d"))["results"] == [
        {"metrics": [6, 6], "dimensions": []}
    ]
