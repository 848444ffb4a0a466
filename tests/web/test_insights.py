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
    found = await answer(site, "funnel", steps="page:/,page:/pricing", within="user")
    assert [row["users"] for row in found["rows"]] == [0, 0]
    assert found["rows"][0]["conversion_rate"] is None


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
        ("realtime", {"period": None, "filters": "props:a'\"==' OR 1=1 --|$p0"}),
    ],
)
async def test_what_is_sent_is_never_sql(path: str, given: dict[str, Any], site: Running) -> None:
    await answer(site, path, **given)
    assert (await answer(site, "summary"))["rows"][0]["events"] == 7
