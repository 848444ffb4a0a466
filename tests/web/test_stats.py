"""Reports for curl and spreadsheets, over the events of test_reports."""

from __future__ import annotations

import csv
import io
from functools import partial
from typing import Any

import httpx
import pytest

from mallard.accounts.control import Control
from mallard.site import Segment
from tests.web.running import Running
from tests.web.test_reports import SITE, custom, site

__all__ = ["site"]


async def get(site: Running, path: str, **given: Any) -> httpx.Response:
    params = {"site_id": SITE, "period": "all", **given}
    return await site.client.get(
        f"/api/stats/{path}",
        params={name: value for name, value in params.items() if value is not None},
        headers={"host": "localhost"},
    )


async def rows(site: Running, path: str, **given: Any) -> list[dict[str, Any]]:
    answer = await get(site, path, **given)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["rows"]
    return found


async def test_a_summary(site: Running) -> None:
    answer = await get(site, "summary")
    assert answer.json() == {
        "site_id": SITE,
        "from": "2024-09-15T00:00:00+00:00",
        "to": "2024-09-16T23:59:59+00:00",
        "rows": [
            {
                "visitors": 3,
                "visits": 3,
                "pageviews": 5,
                "events": 7,
                "views_per_visit": 1.67,
                "bounce_rate": 33,
                "visit_duration": 100,
            }
        ],
    }


async def test_a_summary_beside_another_period(site: Running) -> None:
    (row,) = await rows(
        site, "summary", period="day", metrics="visitors", compare="previous_period"
    )
    assert row == {"visitors": 2, "compared": {"visitors": 1}, "change": {"visitors": 100}}
    (row,) = await rows(
        site, "summary", period="day", metrics="visitors", compare="2024-09-01..2024-09-15"
    )
    assert row["compared"] == {"visitors": 1}


async def test_a_series_has_a_row_for_each_day(site: Running) -> None:
    given = {"period": None, "from": "2024-09-14", "to": "2024-09-17"}
    found = await rows(site, "timeseries", metrics="visitors,bounce_rate", **given)
    assert found == [
        {"time": "2024-09-14", "visitors": 0, "bounce_rate": None},
        {"time": "2024-09-15", "visitors": 1, "bounce_rate": 0},
        {"time": "2024-09-16", "visitors": 2, "bounce_rate": 50},
        {"time": "2024-09-17", "visitors": 0, "bounce_rate": None},
    ]
    assert len(await rows(site, "timeseries", period="day", interval="hour")) == 24


async def test_a_breakdown_is_filtered_ordered_and_paged(site: Running) -> None:
    answer = await get(
        site,
        "breakdown/page",
        metrics="visitors",
        filters="country==DE;page!=/nothing",
        order="-visitors",
        limit=1,
    )
    assert answer.json()["rows"] == [{"value": "/", "visitors": 1}]
    assert answer.json()["total_rows"] == 2
    found = await rows(site, "breakdown/props:is_customer", metrics="visitors", order="-visitors")
    assert [row["value"] for row in found] == ["(none)", "false", "true"]
    found = await rows(site, "breakdown/event:page", filters="page==/blog/*")
    assert {row["value"] for row in found} == {"/blog/a", "/blog/b"}


async def test_goals_with_their_conversions(site: Running) -> None:
    found = await rows(site, "goals", metrics="visitors,conversion_rate")
    assert found[0] == {"value": "Blog", "visitors": 2, "conversion_rate": 66.67}


async def test_csv_is_what_a_spreadsheet_reads_and_runs_nothing(site: Running) -> None:
    await site.server.buffer.append([custom(9, "x", 1)._replace(pathname="=cmd|'/c calc'!A1")])
    answer = await get(site, "breakdown/page", metrics="visitors", format="csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    found = list(csv.DictReader(io.StringIO(answer.text)))
    assert {"value": "/", "visitors": "2"} in found
    assert {"value": "'=cmd|'/c calc'!A1", "visitors": "1"} in found
    answer = await get(
        site, "summary", period="day", metrics="visitors", compare="previous_year", format="csv"
    )
    assert answer.text.splitlines() == [
        "visitors,compared.visitors,change.visitors",
        "3,0,100",
    ]


async def test_what_is_saved_as_a_segment_filters_by_its_name(site: Running) -> None:
    for name, country in (("Berlin; or so", "DE"), ("North", "EE")):
        fields = {"name": name, "filters": [["is", "visit:country", [country]]]}
        await site.server.accounts.change(partial(_add_segment, fields))

    async def visitors(filters: str) -> Any:
        (row,) = await rows(site, "summary", filters=filters, metrics="visitors")
        return row["visitors"]

    assert await visitors(r"segment==Berlin\; or so") == 1
    assert await visitors("segment!=North") == 2
    assert await visitors(r"segment==Berlin\; or so|North;page==/blog/**") == 1
    (step, _) = await rows(site, "funnel", filters="segment==North", steps="page:/**,page:/")
    assert step["visitors"] == 1


def _add_segment(fields: dict[str, Any], control: Control) -> Segment:
    return control.segments.add(SITE, fields)


@pytest.mark.parametrize(
    ("path", "given", "field"),
    [
        ("summary", {"site_id": None}, "site_id"),
        ("summary", {"days": "7"}, "days"),
        ("summary", {"from": "2024-09-01"}, "period"),
        ("summary", {"period": None, "from": "2024-09-01"}, "date_range"),
        ("summary", {"format": "xml"}, "format"),
        ("summary", {"compare": "yesterday"}, "compare"),
        ("summary", {"filters": "page"}, "filters"),
        ("summary", {"filters": "segment==Nobody"}, "filters"),
        ("summary", {"filters": "segment~No"}, "filters"),
        ("timeseries", {"interval": "minute"}, "interval"),
        ("breakdown/nothing", {}, "dimensions"),
        ("breakdown/page", {"limit": "all"}, "limit"),
        ("breakdown/page", {"order": "-events"}, "order_by"),
    ],
)
async def test_a_mistake_is_named(
    path: str, given: dict[str, Any], field: str, site: Running
) -> None:
    answer = await get(site, path, **given)
    assert answer.status_code == 400
    assert answer.json()["field"] == field


async def test_an_interval_that_only_the_period_before_had_events_in_is_compared_too(
    site: Running,
) -> None:
    found = await rows(
        site,
        "timeseries",
        period=None,
        **{"from": "2024-09-17", "to": "2024-09-18"},
        compare="previous_period",
        metrics="visitors,bounce_rate",
        interval="day",
    )
    assert found == [
        {
            "time": f"2024-09-{17 + n}",
            "visitors": 0,
            "bounce_rate": None,
            "compared": {"visitors": 1 + n, "bounce_rate": 50 * n},
            "change": {"visitors": -100, "bounce_rate": None},
        }
        for n in range(2)
    ]


async def test_a_series_of_too_many_intervals_is_refused(site: Running) -> None:
    long = {"period": None, "from": "2000-01-01", "to": "2024-01-01"}
    answer = await get(site, "timeseries", **long, interval="hour")
    assert (answer.status_code, answer.json()["field"]) == (400, "interval")


async def test_a_list_is_ordered_by_its_own_column_too(site: Running) -> None:
    found = await rows(site, "breakdown/page", order="-value", limit="2", metrics="visitors")
    assert [row["value"] for row in found] == ["/pricing", "/blog/b"]
