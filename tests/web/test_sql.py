"""`POST /api/sql` over HTTP: who may ask, of which sites, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.running import Running

COUNT = "SELECT site_id, count(*) AS n FROM events WHERE site_id LIKE 'sql-%' GROUP BY 1 ORDER BY 1"
A, B = "sql-a.example", "sql-b.example"


async def key(mallard: Running, *scopes: str, sites: Any = "*") -> dict[str, str]:
    fields = {"name": "test", "scopes": list(scopes), "sites": sites}
    _, token = await mallard.server.accounts.change(lambda control: control.keys.create(fields))
    return {"authorization": f"Bearer {token}"}


async def send(mallard: Running) -> None:
    for site, number in ((A, 1), (B, 2)):
        event = {"d": site, "n": "pageview", "u": f"https://{site}/"}
        answer = await mallard.client.post("/api/event/batch", json=[event] * number)
        assert answer.status_code == 202


async def test_a_key_sees_its_sites_and_no_others(mallard: Running) -> None:
    before = await key(mallard, "sql")
    counts = await mallard.client.post("/api/sql", json={"sql": COUNT}, headers=before)
    known = {row["site_id"]: row["n"] for row in counts.json()["rows"]}
    await send(mallard)
    of_a = await key(mallard, "sql", sites=[A])
    found = await mallard.client.post("/api/sql", json={"sql": COUNT}, headers=of_a)
    assert found.headers["cache-control"] == "no-store"
    assert found.json()["rows"] == [{"site_id": A, "n": known.get(A, 0) + 1}]
    for site_id, status in ((A, 200), (B, 403), ("nowhere.example", 403)):
        body = {"sql": COUNT, "site_id": site_id}
        answer = await mallard.client.post("/api/sql", json=body, headers=of_a)
        assert answer.status_code == status
    narrowed = await mallard.client.post(
        "/api/sql", json={"sql": COUNT, "site_id": B, "format": "csv"}, headers=before
    )
    assert narrowed.headers["content-type"] == "text/csv; charset=utf-8"
    assert narrowed.text == f'"site_id","n"\n"{B}",{known.get(B, 0) + 2}\n'


async def test_it_takes_a_key_with_its_scope(mallard: Running) -> None:
    body = {"sql": "SELECT 1"}
    nobody = await mallard.client.post("/api/sql", json=body)
    assert nobody.status_code == 401
    reader = await key(mallard, "stats:read", "export")
    assert (await mallard.client.post("/api/sql", json=body, headers=reader)).status_code == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"[]", None),
        (b'"SELECT 1"', None),
        (b"{}", "sql"),
        (b'{"sql": 1}', "sql"),
        (b'{"sql": " "}', "sql"),
        (b'{"sql": "SELECT 1", "sql": "SELECT 2"}', "sql"),
        (b'{"sql": "SELECT \\u0000"}', "sql"),
        (b'{"sql": "DROP VIEW events"}', "sql"),
        (b'{"sql": "SELECT 1", "format": "xlsx"}', "format"),
        (b'{"sql": "SELECT 1", "site_id": 1}', "site_id"),
        (b'{"sql": "SELECT 1", "site": "a"}', "site"),
        (b'{"sql": "SELECT 1", "as_of": "2026-01-01"}', "as_of"),
        (b'{"sql": "SELECT 1", "as_of": "2999-01-01T00:00:00Z"}', "as_of"),
    ],
)
async def test_a_body_that_is_wrong_is_told_why(
    mallard: Running, body: bytes, field: str | None
) -> None:
    asker = await key(mallard, "sql")
    answer = await mallard.client.post("/api/sql", content=body, headers=asker)
    assert answer.status_code == 400
    assert answer.json().get("field") == field
