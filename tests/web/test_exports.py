"""`GET /api/export` over HTTP."""

from __future__ import annotations

import csv
import io
import json

import pyarrow.parquet as pq
import pytest

from mallard.query.pieces import WHO
from tests.web.running import Running
from tests.web.test_sql import key

SITE = "export.example"


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
