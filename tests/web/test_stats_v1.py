"""Plausible's Stats API v1: documented parameters in, documented shapes out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mallard.accounts.control import Control
from mallard.site import Goal
from tests.stored import SettableClock
from tests.web.running import Running, running
from tests.web.test_reports import DAY_US, EVENTS, GOALS, MINUTE_US, NOON_US, SITE, view


def _add_goal(goal: dict[str, str], control: Control) -> Goal:
    return control.goals.add(SITE, goal)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path, clock=SettableClock(NOON_US + 60 * MINUTE_US)) as mallard:
        for goal in GOALS:
            await mallard.server.accounts.change(partial(_add_goal, goal))
        await mallard.server.buffer.append(EVENTS)
        yield mallard


async def ask(site: Running, report: str, **given: Any) -> Any:
    answer = await site.client.get(
        f"/api/v1/stats/{report}",
        params={"site_id": SITE, **given},
        headers={"host": "localhost"},
    )
    assert answer.status_code == 200, answer.text
    return answer.json() if report.startswith("realtime") else answer.json()["results"]


async def test_current_visitors_are_a_number(site: Running) -> None:
    assert await ask(site, "realtime/visitors") == 0
    await site.server.buffer.append([view(8, "/", 57), view(9, "/", 58), view(9, "/", 59)])
    assert await ask(site, "realtime/visitors") == 2


async def test_an_aggregate_is_an_object_of_values(site: Running) -> None:
    metrics = "visitors,pageviews,bounce_rate,visit_duration"
    assert await ask(site, "aggregate", period="day", metrics=metrics) == {
        "visitors": {"value": 2},
        "pageviews": {"value": 3},
        "bounce_rate": {"value": 50},
        "visit_duration": {"value": 120},
    }
    assert await ask(site, "aggregate") == {"visitors": {"value": 3}}


async def test_an_aggregate_beside_the_period_before(site: Running) -> None:
    asked = {"period": "day", "metrics": "visitors,bounce_rate", "compare": "previous_period"}
    assert await ask(site, "aggregate", **asked) == {
        "visitors": {"value": 2, "change": 100},
        "bounce_rate": {"value": 50, "change": 50},
    }


PERIODS: list[tuple[dict[str, str], int]] = [
    ({"period": "day"}, 2),
    ({"period": "day", "date": "2024-09-15"}, 1),
    ({"period": "day", "date": "2024-09-14"}, 0),
    ({"period": "7d"}, 3),
    ({"period": "7d", "date": "2024-09-21"}, 3),
    ({"period": "7d", "date": "2024-09-22"}, 2),
    ({"period": "7d", "date": "2024-09-23"}, 0),
    ({"period": "30d", "date": "2024-10-14"}, 3),
    ({"period": "30d", "date": "2024-10-15"}, 2),
    ({"period": "month", "date": "2024-09-01"}, 3),
    ({"period": "month", "date": "2024-10-01"}, 0),
    ({"period": "6mo", "date": "2025-02-28"}, 3),
    ({"period": "6mo", "date": "2025-03-01"}, 0),
    ({"period": "12mo", "date": "2025-08-31"}, 3),
    ({"period": "12mo", "date": "2025-09-01"}, 0),
    ({"period": "custom", "date": "2024-09-15,2024-09-15"}, 1),
    ({"period": "custom", "date": "2024-09-15, 2024-09-16"}, 3),
]


async def test_a_period_is_relative_to_its_date(site: Running) -> None:
    found = [(asked, await ask(site, "aggregate", **asked)) for asked, _ in PERIODS]
    assert found == [(asked, {"visitors": {"value": visitors}}) for asked, visitors in PERIODS]


async def test_a_series_has_a_row_for_each_interval_with_events_or_without(site: Running) -> None:
    months = await ask(site, "timeseries", period="6mo", metrics="visitors,bounce_rate")
    assert [row["date"] for row in months] == [
        *("2024-04-01", "2024-05-01", "2024-06-01", "2024-07-01", "2024-08-01", "2024-09-01")
    ]
    assert months[0] == {"date": "2024-04-01", "visitors": 0, "bounce_rate": None}
    assert months[-1] == {"date": "2024-09-01", "visitors": 3, "bounce_rate": 33}
    days = await ask(site, "timeseries", period="7d")
    assert len(days) == 7
    assert days[-1] == {"date": "2024-09-16", "visitors": 2}
    hours = await ask(site, "timeseries", period="day", date="2024-09-15")
    assert len(hours) == 24
    assert hours[12] == {"date": "2024-09-15 12:00:00", "visitors": 1}
    for interval in ("day", "date"):
        found = await ask(site, "timeseries", period="month", interval=interval)
        assert len(found) == 30


async def test_a_breakdown_names_the_property_without_its_scope(site: Running) -> None:
    found = await ask(
        site, "breakdown", property="visit:source", metrics="visitors,bounce_rate", limit=1
    )
    assert found == [{"source": "Direct / None", "visitors": 2, "bounce_rate": 50}]
    found = await ask(site, "breakdown", property="visit:source", limit=1, page=2)
    assert found == [{"source": "Google", "visitors": 1}]
    assert await ask(site, "breakdown", property="visit:source", limit=1, page=3) == []
    found = await ask(site, "breakdown", property="event:props:plan", filters="event:goal==Signup")
    assert found == [{"plan": "pro", "visitors": 1}]
    found = await ask(site, "breakdown", property="event:goal", metrics="visitors,conversion_rate")
    assert found[0] == {"goal": "Blog", "visitors": 2, "conversion_rate": 66.67}


FILTERS: list[tuple[str, int]] = [
    ("event:page==/pricing", 1),
    ("event:page==/blog/*", 2),
    ("event:page==/b*", 2),  # across slashes too
    ("event:page==/b**", 2),
    ("event:page!=/blog/*", 2),
    ("event:page==/pricing|/blog/a", 2),
    ("event:hostname==*.site", 3),
    ("visit:source==Google", 1),
    ("visit:source!=Google", 2),
    ("visit:country==DE;event:page==/", 1),
    ("event:goal==Signup", 1),
    ("event:goal==Signup|Blog", 3),
    ("visit:source==a\\|b", 0),
    ("event:page~blog", 2),
]


async def test_filters_are_read_as_v1_wrote_them(site: Running) -> None:
    found = [(asked, await ask(site, "aggregate", filters=asked)) for asked, _ in FILTERS]
    assert found == [(asked, {"visitors": {"value": visitors}}) for asked, visitors in FILTERS]


async def test_days_are_those_of_the_sites_zone(site: Running) -> None:
    await site.server.accounts.change(
        lambda control: control.sites.set(SITE, {"timezone": "Pacific/Auckland"})
    )
    # 13:00 in UTC on the 16th is 01:00 on the 17th there.
    assert await ask(site, "aggregate", period="day") == {"visitors": {"value": 2}}
    assert (await ask(site, "timeseries", period="day"))[0] == {
        "date": "2024-09-17 00:00:00",
        "visitors": 2,
    }
    midnight = await ask(site, "aggregate", period="day", date="2024-09-16")
    assert midnight == {"visitors": {"value": 1}}


async def test_an_hour_that_a_day_has_twice_is_two_rows(site: Running) -> None:
    await site.server.accounts.change(
        lambda control: control.sites.set(SITE, {"timezone": "Europe/Berlin"})
    )
    day = (1_730_030_400_000_000 - NOON_US) // DAY_US  # noon of 2024-10-27
    events = [view(5, "/", -12 * 60 + 10, day), view(6, "/", -11 * 60 + 10, day)]
    await site.server.buffer.append(events)
    found = await ask(site, "timeseries", period="day", date="2024-10-27")
    assert len(found) == 25
    assert len({row["date"] for row in found}) == 25
    assert [(row["date"], row["visitors"]) for row in found[2:4]] == [
        ("2024-10-27 02:00:00", 1),
        ("2024-10-27 02:00:00+01:00", 1),
    ]
    assert sum(row["visitors"] for row in found) == 2


MISTAKES: list[tuple[str, dict[str, str], str]] = [
    ("aggregate", {"metrics": "visitor"}, "'visitor'"),
    ("aggregate", {"metrics": "visitors,visitors"}, "twice"),
    ("aggregate", {"metrics": "conversion_rate"}, "goals"),
    ("aggregate", {"period": "fortnight"}, "fortnight"),
    ("aggregate", {"period": "custom"}, "pair of dates"),
    ("aggregate", {"period": "custom", "date": "2024-09-02,2024-09-01"}, "before it starts"),
    ("aggregate", {"date": "yesterday"}, "yesterday"),
    ("aggregate", {"date": "2024-02-30"}, "2024-02-30"),
    ("aggregate", {"date": "0001-01-01"}, "0001-01-01"),
    ("aggregate", {"date": "9999-12-31"}, "9999-12-31"),
    ("aggregate", {"compare": "last_year"}, "last_year"),
    ("aggregate", {"filters": "event:goal==Sign-up"}, "Sign-up"),
    ("aggregate", {"filters": "event:pages==/"}, "event:pages"),
    ("aggregate", {"filter": "event:page==/"}, "'filter'"),
    ("aggregate", {"with_imported": "maybe"}, "with_imported"),
    ("timeseries", {"interval": "fortnight"}, "fortnight"),
    ("breakdown", {}, "property"),
    ("breakdown", {"property": "visit:sauce"}, "visit:sauce"),
    ("breakdown", {"property": "time:day"}, "time:day"),
    ("breakdown", {"property": "visit:source", "limit": "1001"}, "limit"),
    ("breakdown", {"property": "visit:source", "page": "0"}, "page"),
]


async def test_a_mistake_is_named(site: Running) -> None:
    for report, given, says in MISTAKES:
        answer = await site.client.get(
            f"/api/v1/stats/{report}",
            params={"site_id": SITE, **given},
            headers={"host": "localhost"},
        )
        assert answer.status_code == 400, (report, given)
        assert says in answer.json()["error"], (report, given)


async def test_it_takes_a_key_of_the_site(site: Running) -> None:
    headers = {"host": "localhost"}
    answer = await site.client.get("/api/v1/stats/aggregate", headers=headers)
    assert (answer.status_code, "names no site" in answer.json()["error"]) == (400, True)
    fields = {"name": "other", "scopes": ["stats:read"], "sites": ["other.example"]}
    _, token = await site.server.accounts.change(lambda control: control.keys.create(fields))
    headers = {"authorization": f"Bearer {token}"}
    for report in ("realtime/visitors", "aggregate", "timeseries", "breakdown"):
        path = f"/api/v1/stats/{report}?site_id={SITE}"
        assert (await site.client.get(path, headers=headers)).status_code == 403
        assert (await site.client.get(path)).status_code == 401
