"""Reports about single events over HTTP, over the events of test_reports."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.running import Running
from tests.web.test_reports import site, view
from tests.web.test_stats import get

__all__ = ["site"]


async def answer(site: Running, path: str, **given: Any) -> dict[str, Any]:
    found = await get(site, path, **given)
    assert found.status_code == 200, found.text
    document: dict[str, Any] = found.json()
    return document


async def test_who_is_there_now(site: Running) -> None:
    await site.server.buffer.append([view(5, "/now", 57), view(6, "/", 40), view(6, "/then", 58)])
    found = await answer(site, "realtime", period=None)
    assert found["visitors"] == 2
    assert found["pages"] == [{"value": "/now", "visitors": 1}, {"value": "/then", "visitors": 1}]
    assert found["sources"] == [{"value": "Direct / None", "visitors": 2}]
    assert found["countries"] == [{"value": "DE", "visitors": 2}]
    assert [row["pageviews"] for row in found["rows"]] == [0] * 9 + [1] + [0] * 16 + [1, 1, 0, 0]
    assert found["rows"][-1]["time"] == "2024-09-16T13:00:00+00:00"
    assert (found["from"], found["to"]) == (
        "2024-09-16T12:31:00+00:00",
        "2024-09-16T13:00:59+00:00",
    )


async def test_a_funnel(site: Running) -> None:
    found = await answer(
        site, "funnel", steps="page:/,goal:Signup,event:PurchaseUSD", window="5m", within="visit"
    )
    assert found["rows"] == [
        {
            "step": 1,
            "label": "page:/",
            "visitors": 2,
            "visits": 2,
            "conversion_rate": 100.0,
            "step_conversion_rate": None,
            "drop_off": None,
        },
        {
            "step": 2,
            "label": "goal:Signup",
            "visitors": 1,
            "visits": 1,
            "conversion_rate": 50.0,
            "step_conversion_rate": 50.0,
            "drop_off": 1,
        },
        {
            "step": 3,
            "label": "event:PurchaseUSD",
            "visitors": 1,
            "visits": 1,
            "conversion_rate": 50.0,
            "step_conversion_rate": 100.0,
            "drop_off": 0,
        },
    ]
    found = await answer(site, "funnel", steps="page:/,page:/blog/*", by="source")
    assert [(row["value"], row["step"], row["visitors"]) for row in found["rows"]] == [
        ("Google", 1, 1),
        ("Google", 2, 1),
        ("Direct / None", 1, 1),
        ("Direct / None", 2, 0),
    ]
    found = await answer(
        site, "funnel", steps="page:/,page:/pricing", period="day", compare="previous_period"
    )
    last = found["rows"][-1]
    assert (last["visitors"], last["compared"]["visitors"]) == (1, 0)
    assert (last["change"]["visitors"], last["change"]["conversion_rate"]) == (100, 100.0)
    found = await answer(site, "funnel", steps="page:/,page:/pricing", within="user")
    assert [row["users"] for row in found["rows"]] == [0, 0]
    assert found["rows"][0]["conversion_rate"] is None


async def test_journeys_from_a_page_and_to_it(site: Running) -> None:
    found = await answer(site, "journeys", of="page:/", steps=2)
    assert found["direction"] == "after"
    assert [list(row.values()) for row in found["rows"]] == [
        [1, "page:/", "page:/blog/b", 1, 1, 50.0],
        [1, "page:/", "page:/pricing", 1, 1, 50.0],
        [2, "page:/blog/b", None, 1, 1, 50.0],
        [2, "page:/pricing", "event:Signup", 1, 1, 50.0],
    ]
    found = await answer(site, "journeys", of="event:Signup", steps=1, direction="before")
    assert [list(row.values()) for row in found["rows"]] == [
        [1, "page:/pricing", "event:Signup", 1, 1, 100.0]
    ]
    found = await answer(site, "journeys", steps=2, limit=2)
    assert found["rows"] == [
        {"path": ["page:/", "page:/blog/b"], "visits": 1, "visitors": 1, "share": 33.33},
        {"path": ["page:/", "page:/pricing"], "visits": 1, "visitors": 1, "share": 33.33},
    ]
    told = await get(site, "journeys", steps=2, limit=1, format="csv")
    assert told.text.splitlines()[1] == "page:/ > page:/blog/b,1,1,33.33"


async def test_retention_of_those_who_say_who_they_are(site: Running) -> None:
    await site.server.buffer.append(
        [view(7, "/", day=-1, user_id="ada"), view(8, "/", 30, user_id="ada")]
    )
    found = await answer(site, "retention", interval="day")
    assert found["rows"] == [
        {"cohort": "2024-09-15", "people": 1, "retained": [1, 1], "rates": [100.0, 100.0]},
        {"cohort": "2024-09-16", "people": 0, "retained": [0], "rates": [None]},
    ]
    assert (found["person"], "note" in found) == ("user_id", False)
    found = await answer(site, "retention", person="anonymous_id")
    assert found["note"] == "No event that tells anonymous_id is new in this period."
    told = await get(site, "retention", interval="day", format="csv")
    assert told.text.splitlines() == [
        "cohort,people,retained.0,retained.1",
        "2024-09-15,1,1,1",
        "2024-09-16,0,0,",
    ]


async def test_retention_as_of_an_instant_knows_nothing_of_what_began_after_it(
    site: Running,
) -> None:
    then = await answer(site, "retention", interval="day", as_of="2024-09-15T12:00:00Z")
    assert [row["retained"] for row in then["rows"]] == [[0, None], [None]]
    now = await answer(site, "retention", interval="day", as_of="2024-09-16T12:59:00Z")
    assert [row["retained"] for row in now["rows"]] == [[0, 0], [0]]


async def test_retention_of_visitors_is_refused_as_there_is_none(site: Running) -> None:
    found = await get(site, "retention", person="visitor")
    assert found.status_code == 400
    assert "one for a UTC day only" in found.json()["detail"]


HOSTILE = "'; DROP TABLE events; --"


@pytest.mark.parametrize(
    ("path", "given", "field"),
    [
        ("realtime", {}, "period"),
        ("realtime", {"period": None, "limit": "0"}, "limit"),
        ("funnel", {}, "steps"),
        ("funnel", {"steps": "page:/"}, "steps"),
        ("funnel", {"steps": "page:/,goal:None"}, "steps"),
        ("funnel", {"steps": "page:/," + HOSTILE}, "steps"),
        ("funnel", {"steps": ",".join(["page:/"] * 21)}, "steps"),
        ("funnel", {"steps": "page:/,page:/a\0"}, "steps"),
        ("funnel", {"steps": "page:/,page:/", "window": "1 hour"}, "window"),
        ("funnel", {"steps": "page:/,page:/", "window": "99999999999d"}, "window"),
        ("funnel", {"steps": "page:/,page:/", "within": "site"}, "within"),
        ("funnel", {"steps": "page:/,page:/", "by": HOSTILE}, "by"),
        ("funnel", {"steps": "page:/,page:/", "by": "goal"}, "by"),
        ("funnel", {"steps": "page:/,page:/", "filters": "page"}, "filters"),
        ("funnel", {"steps": "page:/,page:/", "as_of": "tomorrow"}, "as_of"),
        ("journeys", {"steps": "6"}, "steps"),
        ("journeys", {"of": "goal:Nothing"}, "of"),
        ("journeys", {"of": "page"}, "of"),
        ("journeys", {"of": "page:/", "offset": "1"}, "offset"),
        ("journeys", {"of": "page:/", "direction": HOSTILE}, "direction"),
        ("journeys", {"direction": "before"}, "direction"),
        ("retention", {"interval": "hour"}, "interval"),
        ("retention", {"interval": "day", "period": "12mo"}, "interval"),
        ("retention", {"person": "email"}, "person"),
    ],
)
async def test_a_mistake_is_named(
    path: str, given: dict[str, Any], field: str, site: Running
) -> None:
    found = await get(site, path, **given)
    assert found.status_code == 400, found.text
    assert found.json()["field"] == field


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("funnel", {"steps": f"page:/{HOSTILE},event:{HOSTILE}", "by": f"props:{HOSTILE}"}),
        ("funnel", {"steps": "page:/*'[(\\,event:a,event:$p0", "filters": "page==' OR 1=1 --"}),
        ("journeys", {"of": f"page:{HOSTILE}"}),
        ("journeys", {"of": "event:**\\'--", "direction": "before"}),
        ("realtime", {"period": None, "filters": "props:a'\"==' OR 1=1 --|$p0"}),
    ],
)
async def test_what_is_sent_is_never_sql(path: str, given: dict[str, Any], site: Running) -> None:
    await answer(site, path, **given)
    assert (await answer(site, "summary"))["rows"][0]["events"] == 7
