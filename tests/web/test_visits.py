"""Single visits and properties over HTTP, over the events of test_reports."""

from __future__ import annotations

from typing import Any

import pytest

from mallard.accounts.access import Scope
from mallard.accounts.control import Control
from tests.web.running import Running
from tests.web.test_insights import HOSTILE, answer
from tests.web.test_reports import SITE, site
from tests.web.test_stats import get

__all__ = ["site"]


async def test_visits_are_listed_and_each_has_its_events(site: Running) -> None:
    found = await answer(site, "sessions", filters="event:name==Signup")
    assert found["total_rows"] == 1
    (row,) = found["rows"]
    assert row["id"] == "2024-09-16-0000000000000001-1"
    assert (row["started_at"], row["duration"]) == ("2024-09-16T12:00:00+00:00", 240)
    assert (row["pageviews"], row["events"], row["bounce"]) == (2, 4, False)
    assert (row["entry_page"], row["exit_page"]) == ("/", "/pricing")
    assert row["revenue"] == {"USD": 500200.25}
    one = await answer(site, f"sessions/{row['id']}", period=None)
    assert one["session"] == row
    assert [(each["time"], each["name"]) for each in one["rows"]] == [
        ("2024-09-16T12:00:00.000+00:00", "pageview"),
        ("2024-09-16T12:02:00.000+00:00", "pageview"),
        ("2024-09-16T12:03:00.000+00:00", "Signup"),
        ("2024-09-16T12:04:00.000+00:00", "PurchaseUSD"),
    ]
    assert one["rows"][2]["props"] == {"plan": "pro"}
    page = await answer(site, f"sessions/{row['id']}", period=None, limit=1, offset=2)
    assert (page["rows"], page["total_rows"]) == (one["rows"][2:3], 4)
    told = await get(site, f"sessions/{row['id']}", period=None, format="csv")
    assert told.text.splitlines()[3].startswith("2024-09-16T12:03:00.000+00:00,Signup,track")
    newest = (await answer(site, "sessions", limit=1))["rows"]
    assert [each["id"] for each in newest] == ["2024-09-16-0000000000000002-1"]


async def test_a_visit_that_is_none_is_not_found(site: Running) -> None:
    for name in ("2024-09-16-0000000000000001-2", "2024-09-16-1", HOSTILE):
        assert (await get(site, f"sessions/{name}", period=None)).status_code == 404


async def _key(site: Running, *scopes: Scope) -> dict[str, str]:
    def make(control: Control) -> str:
        fields = {"name": "some", "scopes": [*scopes], "sites": [SITE]}
        return control.keys.create(fields)[1]

    return {"authorization": f"Bearer {await site.server.accounts.change(make)}"}


async def test_single_visits_are_for_who_may_see_single_visits(site: Running) -> None:
    reader = await _key(site, Scope.STATS)
    analyst = await _key(site, Scope.SQL)
    for path in ("sessions", "sessions/2024-09-16-0000000000000001-1"):
        url = f"/api/stats/{path}?site_id={SITE}"
        assert (await site.client.get(url, headers=reader)).status_code == 403
        assert (await site.client.get(url, headers=analyst)).status_code == 200
        assert (await site.client.get(f"{url}.other", headers=analyst)).status_code == 403
        assert (await site.client.get(url)).status_code == 401
    url = f"/api/stats/funnel?site_id={SITE}&steps=page:/,page:/"
    assert (await site.client.get(url, headers=reader)).status_code == 200
    assert (await site.client.get(url)).status_code == 401


async def test_properties_and_the_values_of_one(site: Running) -> None:
    found = await answer(site, "props")
    assert found["rows"] == [
        {"key": "is_customer", "visitors": 2, "events": 2},
        {"key": "plan", "visitors": 1, "events": 1},
    ]
    assert found["total_rows"] == 2
    found = await answer(site, "props/plan", metrics="visitors", order="-visitors")
    assert found["rows"] == [{"value": "(none)", "visitors": 3}, {"value": "pro", "visitors": 1}]


@pytest.mark.parametrize(
    ("path", "given", "status"),
    [
        ("sessions", {"limit": "10001"}, 400),
        ("sessions", {"offset": "-1"}, 400),
        ("sessions", {"order": "visitors"}, 400),
        ("sessions", {"filters": "page==' OR 1=1 --"}, 200),
        ("sessions/%00", {"period": None}, 404),
        ("props", {"offset": "7"}, 200),
        ("props", {"metrics": "visitors"}, 400),
        ("props/", {}, 400),
        ("props/a%00b", {}, 200),
        ("props/" + "k" * 301, {}, 400),
        ('props/\'%20OR%20"1"="1/~%5C', {}, 200),
    ],
)
async def test_what_is_asked_oddly_is_answered_plainly(
    path: str, given: dict[str, Any], status: int, site: Running
) -> None:
    found = await get(site, path, **given)
    assert found.status_code == status, found.text
    if status == 400:
        assert found.json()["rule"]
