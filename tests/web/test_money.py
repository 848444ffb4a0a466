"""Reports about money over HTTP, over the events of test_reports."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from mallard.accounts.control import Control
from mallard.site import Site
from tests.web.running import Running
from tests.web.test_insights import HOSTILE, answer
from tests.web.test_reports import SITE, custom, site, view
from tests.web.test_stats import get

__all__ = ["site"]


def _add_site(control: Control) -> Site:
    return control.sites.add(SITE, {"timezone": "Asia/Tokyo", "currency": "USD"})


@pytest.fixture
async def shop(site: Running) -> Running:
    await site.server.accounts.change(_add_site)
    euros: dict[str, Any] = {"revenue_currency": "EUR", "referrer_source": "Google"}
    await site.server.buffer.append(
        [
            view(4, "/", 20, user_id="ada", **euros),
            custom(4, "PurchaseEUR", 21, revenue_amount=Decimal("10.10"), **euros),
            custom(4, "PurchaseEUR", 22, revenue_amount=Decimal("0.20"), **euros),
        ]
    )
    return site


async def test_revenue_of_each_currency_that_of_the_site_first(shop: Running) -> None:
    found = await answer(shop, "revenue")
    assert found["rows"] == [
        {"currency": "USD", "total": 500200.25, "average": 500200.25, "events": 1},
        {"currency": "EUR", "total": 10.3, "average": 5.15, "events": 2},
    ]
    found = await answer(shop, "revenue", by="source", limit=1, offset=1)
    assert found["total_rows"] == 2
    assert [list(row.values()) for row in found["rows"]] == [["Google", "EUR", 10.3, 5.15, 2]]
    found = await answer(shop, "revenue", by="goal")
    assert [row["value"] for row in found["rows"]] == ["PurchaseUSD", "PurchaseEUR"]


async def test_revenue_over_time_has_each_day_of_the_sites_zone(shop: Running) -> None:
    found = await answer(
        shop, "revenue", period=None, interval="day", **{"from": "2024-09-16", "to": "2024-09-17"}
    )
    assert found["from"] == "2024-09-16T00:00:00+09:00"
    assert [(row["time"], row["currency"], row["total"]) for row in found["rows"]] == [
        ("2024-09-16", "USD", 500200.25),
        ("2024-09-16", "EUR", 10.3),
        ("2024-09-17", "USD", 0.0),
        ("2024-09-17", "EUR", 0.0),
    ]
    assert found["rows"][-1]["average"] is None


async def test_revenue_beside_that_of_another_period(shop: Running) -> None:
    days = {"period": None, "from": "2024-09-16", "to": "2024-09-16"}
    found = await answer(shop, "revenue", compare="2024-09-15..2024-09-16", **days)
    told = [(row["compared"]["total"], row["change"]) for row in found["rows"]]
    same = {"total": 0, "average": 0, "events": 0}
    assert told == [(500200.25, same), (10.3, same)]
    found = await answer(shop, "revenue", interval="day", compare="previous_period", **days)
    assert found["rows"][0]["compared"] == {"total": 0.0, "average": None, "events": 0}
    assert found["rows"][0]["change"] == {"total": 100, "average": None, "events": 100}


async def test_a_goal_is_owed_to_where_the_visit_came_from(shop: Running) -> None:
    found = await answer(shop, "attribution", goal="PurchaseEUR")
    assert (found["model"], found["within"], found["conversions"]) == ("last", "visitor", 2)
    assert found["without_touch"] == 0
    assert found["rows"] == [
        {"value": "Google", "conversions": 2.0, "visitors": 1, "revenue": {"EUR": 10.3}}
    ]
    found = await answer(shop, "attribution", goal="PurchaseUSD", within="user", model="linear")
    assert (found["rows"], found["conversions"], found["without_touch"]) == ([], 1, 1)


@pytest.mark.parametrize(
    ("path", "given", "field"),
    [
        ("revenue", {"by": HOSTILE}, "by"),
        ("revenue", {"by": "source", "interval": "day"}, "interval"),
        ("revenue", {"interval": "minute"}, "interval"),
        ("revenue", {"metrics": "visitors"}, "metrics"),
        ("attribution", {}, "goal"),
        ("attribution", {"goal": HOSTILE}, "goal"),
        ("attribution", {"goal": "Signup", "by": "page"}, "by"),
        ("attribution", {"goal": "Signup", "model": "magic"}, "model"),
        ("attribution", {"goal": "Signup", "within": "visit"}, "within"),
    ],
)
async def test_a_mistake_is_named(
    path: str, given: dict[str, Any], field: str, site: Running
) -> None:
    found = await get(site, path, **given)
    assert found.status_code == 400, found.text
    assert found.json()["field"] == field
