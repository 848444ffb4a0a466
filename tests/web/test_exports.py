"""`GET /api/export` over HTTP."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from mallard.query.pieces import WHO
from mallard.transfer import exporter
from tests.query.noisy import Failing
from tests.web import test_reports
from tests.web.running import Running, started
from tests.web.test_direct import listening
from tests.web.test_reports import site
from tests.web.test_sql import key
from tests.web.test_stats import get

__all__ = ["site"]

SITE = "export.example"
Json = dict[str, Any]


async def test_the_same_events_come_in_each_form_in_order_of_position(mallard: Running) -> None:
    events = [{"d": SITE, "n": "pageview", "u": f"https://{SITE}/{i}"} for i in range(5)]
    assert (await mallard.client.post("/api/event/batch", json=events)).status_code == 202
    asker = await key(mallard, "export", sites=[SITE])
    url = f"/api/export?site_id={SITE}"
    text = await mallard.client.get(url, headers=asker)
    assert text.headers["content-disposition"] == f'attachment; filename="{SITE}_events.csv"'
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert [row["pathname"] for row in rows] == [f"/{i}" for i in range(5)]
    assert not set(WHO) & set(rows[0])
    lines = await mallard.client.get(f"{url}&format=ndjson", headers=asker)
    found = [json.loads(line) for line in lines.text.splitlines()]
    assert [row["position"] for row in found] == sorted(int(row["position"]) for row in rows)
    parquet = await mallard.client.get(f"{url}&format=parquet", headers=asker)
    table = pq.read_table(io.BytesIO(parquet.content))
    assert table["event_id"].to_pylist() == [row["event_id"] for row in found]
    visits = await mallard.client.get(f"{url}&what=sessions", headers=asker)
    (visit,) = csv.DictReader(io.StringIO(visits.text))
    assert visit["pageviews"] == "5"
    assert not set(WHO) & set(visit)


async def sent(site: Running, what: str, form: str = "csv", **given: str) -> httpx.Response:
    asked = {"site_id": test_reports.SITE, "what": what, "format": form, **given}
    return await site.client.get("/api/export", params=asked, headers={"host": "localhost"})


async def test_a_report_is_sent_in_each_form_as_it_is_asked_for(site: Running) -> None:
    given = {"filters": "page!=/blog/**", "metrics": "visitors,bounce_rate", "order": "value"}
    answer = await get(site, "breakdown/page", **given)
    expected = [row for row in answer.json()["rows"] if row["value"] != "/"]
    given["filters"] += ";page!=/"
    for form in ("csv", "ndjson", "parquet"):
        found = await sent(site, "page", form, **given)
        assert found.status_code == 200, found.text
        name = f'filename="{test_reports.SITE}_page.{form}"'
        assert found.headers["content-disposition"].endswith(name)
        assert read(found.content, form) == (expected if form != "csv" else texts(expected))


def read(content: bytes, form: str) -> list[Json]:
    if form == "parquet":
        found: list[Json] = pq.read_table(io.BytesIO(content)).to_pylist()
        return found
    if form == "ndjson":
        return [json.loads(line) for line in content.splitlines()]
    return [*csv.DictReader(io.StringIO(content.decode()))]


def texts(rows: list[Json]) -> list[dict[str, str]]:
    return [{name: str(value) for name, value in row.items()} for row in rows]


async def test_what_is_wrong_is_told_before_a_byte_is_sent(site: Running) -> None:
    # That there are too many intervals is seen when the report is answered, in its process.
    for what, given, field in (
        ("funnel", {}, "steps"),
        ("page", {"filters": "page"}, "filters"),
        ("time:hour", {"from": "2020-01-01", "to": "2024-01-01"}, "interval"),
        ("visits/2024-09-16-0000000000000001-1", {}, "visitors"),
    ):
        found = await sent(site, what, **given)
        assert (found.status_code, found.json()["field"]) == (400, field), what


async def test_there_is_room_for_the_next_after_one_that_failed(site: Running) -> None:
    for _ in range(5):
        found = await sent(site, "time:hour", **{"from": "2020-01-01", "to": "2024-01-01"})
        assert found.status_code == 400
    assert (await sent(site, "summary")).status_code == 200


async def test_one_that_fails_midway_is_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exporter, "WholeTask", Failing)
    with started(tmp_path) as (_, app):
        async with listening(app) as port, httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{port}/api/export?site_id={SITE}&what=page"
            async with client.stream("GET", url) as answer:
                assert answer.status_code == 200
                received = 0
                with pytest.raises(httpx.RemoteProtocolError):
                    async for some in answer.aiter_raw():
                        received += len(some)
            assert received == 2**20
    assert "the disk is gone" not in caplog.text


async def test_the_head_of_an_export_starts_none(site: Running) -> None:
    url = f"/api/export?site_id={test_reports.SITE}&what="
    local = {"host": "localhost"}
    found = await site.client.head(f"{url}summary", headers=local)
    assert (found.status_code, found.content) == (200, b"")
    assert (await site.client.head(f"{url}passwords", headers=local)).status_code == 400


async def test_a_visit_by_its_name_and_the_ids_of_visits_are_for_an_admin(site: Running) -> None:
    admin, exporter = await key(site, "admin"), await key(site, "export")
    url = f"/api/export?site_id={test_reports.SITE}&what=visits"
    for asker in (admin, exporter):
        hidden = await site.client.get(url, headers=asker)
        (head, *_) = csv.reader(io.StringIO(hidden.text))
        assert not {"id", *WHO} & set(head)
        assert "started_at" in head
    shown = await site.client.get(f"{url}&visitors=true", headers=admin)
    (last, *_) = csv.DictReader(io.StringIO(shown.text))
    assert {"id", "user_id"} <= set(last)
    one = f"{url}/{last['id']}"
    events = await site.client.get(f"{one}&visitors=true&format=ndjson", headers=admin)
    assert [json.loads(line)["page"] for line in events.text.splitlines()] == ["/blog/a"]
    refused = await site.client.get(f"{one}&visitors=true", headers=exporter)
    assert refused.status_code == 403
    unknown = f"{url}/2024-09-16-0000000000000009-1&visitors=true"
    assert (await site.client.get(unknown, headers=admin)).status_code == 404


async def test_ids_are_for_an_admin_who_asks_for_them(mallard: Running) -> None:
    url = f"/api/export?site_id={SITE}&visitors=true"
    asker, admin = await key(mallard, "export"), await key(mallard, "admin")
    assert (await mallard.client.get(url, headers=asker)).status_code == 403
    found = await mallard.client.get(url, headers=admin)
    assert set(WHO) <= set(next(csv.reader(io.StringIO(found.text))))


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("site_id=other.example", 403),
        (f"site_id={SITE}&what=passwords", 400),
        (f"site_id={SITE}&format=json", 400),
        (f"site_id={SITE}&from=2024-01-02&to=2024-01-01", 400),
        (f"site_id={SITE}&from=yesterday", 400),
        (f"site_id={SITE}&limit=1", 400),
        (f"site_id={SITE}&what=page&limit=99999999999999999999", 400),
        (f"site_id={SITE}&what=page&what=summary", 400),
        (f"site_id={SITE}&what=summary&steps=page:/", 400),
        (f"site_id={SITE}&what=page%00", 400),
        (f"site_id={SITE}&what=summary/", 400),
        (f"site_id={SITE}&what=breakdown", 400),
        (f"site_id={SITE}&what=breakdown/", 400),
        (f"site_id={SITE}&what=props/", 400),
        (f"site_id={SITE}&what=page&filters=a%00", 400),
        (f"site_id={SITE}&visitors=yes", 400),
    ],
)
async def test_what_cannot_be_is_refused(mallard: Running, query: str, status: int) -> None:
    asker = await key(mallard, "export", sites=[SITE])
    answer = await mallard.client.get(f"/api/export?{query}", headers=asker)
    assert answer.status_code == status
