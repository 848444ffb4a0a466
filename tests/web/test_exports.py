"""`GET /api/export` over HTTP."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mallard.config import Config, QueryConfig
from mallard.query.pieces import WHO
from mallard.query.plausible import names
from mallard.transfer import reports
from mallard.transfer.reports import METRICS
from tests.web import test_reports
from tests.web.running import Running, running
from tests.web.test_reports import custom, site, view
from tests.web.test_sql import key

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


async def exported(site: Running, what: str, form: str) -> list[Json]:
    given = {"site_id": test_reports.SITE, "what": what, "format": form}
    answer = await site.client.get("/api/export", params=given, headers={"host": "localhost"})
    assert answer.status_code == 200, answer.text
    if form == "parquet":
        found: list[Json] = pq.read_table(io.BytesIO(answer.content)).to_pylist()
        return found
    if form == "ndjson":
        return [json.loads(line) for line in answer.text.splitlines()]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    numbers = {name: [float(row[name]) if row[name] else None for row in rows] for name in METRICS}
    return [
        {**row, **{name: values[n] for name, values in numbers.items()}}
        for n, row in enumerate(rows)
    ]


async def reported(site: Running, path: str, **given: str) -> list[list[Any]]:
    asked = {"site_id": test_reports.SITE, "period": "all", "metrics": ",".join(METRICS), **given}
    answer = await site.client.get(
        f"/api/stats/{path}", params=asked, headers={"host": "localhost"}
    )
    assert answer.status_code == 200, answer.text
    return [list(row.values()) for row in answer.json()["rows"]]


async def test_every_report_is_exported_as_it_is_asked_for(site: Running) -> None:
    hostile = [view(9, "=cmd|'/c calc'!A1", 5), custom(9, "-2+3", 6, referrer_source="@x")]
    await site.server.buffer.append([*hostile, view(9, "/later", day=-4)])
    whats = [*names.DIMENSIONS, "page", "props:plan", "goals", "timeseries", "time:hour"]
    for what in whats:
        path, given = f"breakdown/{what}", {}
        if what == "goals":
            path = what
        elif what in {"timeseries", "time:hour"}:
            path, given = "timeseries", {"interval": "hour" if what == "time:hour" else "day"}
        expected = await reported(site, path, **given)
        assert expected, what
        for form in ("ndjson", "parquet", "csv"):
            rows = [list(row.values()) for row in await exported(site, what, form)]
            quoted = [
                [f"'{row[0]}" if form == "csv" and row[0][:1] in "=+-@" else row[0], *row[1:]]
                for row in expected
            ]
            assert rows == quoted, (what, form)
    assert "'=cmd|'/c calc'!A1" in {row["page"] for row in await exported(site, "page", "csv")}


async def test_a_report_of_pages_of_rows_is_exported_whole(
    site: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await exported(site, "page", "ndjson")
    assert len(whole) == 4
    # Nothing is answered from what was asked before: something new came in.
    await site.server.buffer.append([view(9, "/", day=-4)])
    monkeypatch.setattr(reports, "LIMIT_MAX", 2)
    paged = await exported(site, "page", "ndjson")
    assert len({row["page"] for row in paged}) == 4
    for form in ("parquet", "csv"):
        assert await exported(site, "page", form) == paged


async def test_a_report_of_too_many_rows_is_refused_with_what_to_do(tmp_path: Path) -> None:
    async with running(tmp_path, Config(query=QueryConfig(sql_rows_max=2))) as mallard:
        await mallard.server.buffer.append(test_reports.EVENTS)
        url = f"/api/export?site_id={test_reports.SITE}&what="
        local = {"host": "localhost"}
        refused = await mallard.client.get(f"{url}page", headers=local)
        assert (refused.status_code, refused.json()["error"]) == (422, "query_too_large")
        told = "The report has 4 rows, which is more than 2; ask for less of time, or /api/v2/query"
        assert refused.json()["detail"].startswith(told)
        assert (await mallard.client.get(f"{url}hostname", headers=local)).status_code == 200
        assert (await mallard.client.get(f"{url}events", headers=local)).status_code == 200


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
    ],
)
async def test_what_cannot_be_is_refused(mallard: Running, query: str, status: int) -> None:
    asker = await key(mallard, "export", sites=[SITE])
    answer = await mallard.client.get(f"/api/export?{query}", headers=asker)
    assert answer.status_code == status
