"""The management API: sites, goals, segments and keys in JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from mallard.web.admin import BODY_BYTES_MAX
from tests.web.running import Running, running

LOCAL = {"host": "localhost"}


class Caller:
    """Asks with one key."""

    def __init__(self, mallard: Running, token: str) -> None:
        self._client = mallard.client
        self._headers = {"authorization": f"Bearer {token}"}

    async def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        json = {} if body is None else {"json": body}
        return await self._client.request(method, path, headers=self._headers, **json)

    async def made(self, path: str, **body: Any) -> dict[str, Any]:
        answer = await self.ask("POST", path, body)
        assert answer.status_code == 201, answer.text
        assert answer.headers["cache-control"] == "no-store"
        found: dict[str, Any] = answer.json()
        return found


async def caller(mallard: Running, *scopes: str, sites: Any = "*") -> Caller:
    """Make a key as the command does, and return one who uses it."""
    fields = {"name": "test", "scopes": list(scopes), "sites": sites}
    _, token = await mallard.server.accounts.change(lambda control: control.keys.create(fields))
    return Caller(mallard, token)


@pytest.fixture
async def admin(mallard: Running) -> Caller:
    return await caller(mallard, "admin")


async def test_a_site_is_added_changed_and_removed(admin: Caller) -> None:
    made = await admin.made("/api/sites", site_id="www.one.example", timezone="Europe/Berlin")
    assert {name: made[name] for name in ("site_id", "kind", "timezone", "currency")} == {
        "site_id": "one.example",
        "kind": "web",
        "timezone": "Europe/Berlin",
        "currency": None,
    }
    again = await admin.ask("POST", "/api/sites", {"site_id": "one.example"})
    assert (again.status_code, again.json()["error"]) == (409, "conflict")
    changed = await admin.ask("PATCH", "/api/sites/one.example", {"currency": "eur"})
    assert changed.json() == {**made, "currency": "EUR"}
    assert (await admin.ask("GET", "/api/sites/one.example")).json() == changed.json()
    assert changed.json() in (await admin.ask("GET", "/api/sites")).json()["sites"]
    gone = await admin.ask("DELETE", "/api/sites/one.example")
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await admin.ask("DELETE", "/api/sites/one.example")).status_code == 404


async def test_a_site_that_nobody_added_has_the_defaults_and_can_be_set(admin: Caller) -> None:
    defaults = (await admin.ask("GET", "/api/sites/two.example")).json()
    assert (defaults["timezone"], defaults["created_at"]) == ("UTC", None)
    await admin.ask("PATCH", "/api/sites/two.example", {"timezone": "Asia/Tokyo"})
    assert (await admin.ask("GET", "/api/sites/two.example")).json()["created_at"] is not None


async def test_what_goes_with_a_site_goes_when_it_is_removed(admin: Caller) -> None:
    for site in ("three.example", "four.example"):
        await admin.made("/api/sites", site_id=site)
        await admin.made(f"/api/sites/{site}/goals", event_name="signup")
        await admin.made(
            f"/api/sites/{site}/segments", name="x", filters=[["is", "visit:os", ["b"]]]
        )
    await admin.ask("DELETE", "/api/sites/three.example")
    for site, left in (("three.example", 0), ("four.example", 1)):
        for kind in ("goals", "segments"):
            assert len((await admin.ask("GET", f"/api/sites/{site}/{kind}")).json()[kind]) == left


async def test_goals_are_added_replaced_and_removed(admin: Caller) -> None:
    path = "/api/sites/goals.example/goals"
    page = await admin.made(path, page="/blog/**")
    assert (page["display_name"], page["event_name"], page["props"]) == ("Visit /blog/**", None, {})
    signup = await admin.made(path, event_name="signup", props={"plan": "pro"}, currency="usd")
    assert (signup["display_name"], signup["currency"]) == ("signup", "USD")
    taken = await admin.ask("POST", path, {"event_name": "other", "display_name": "signup"})
    assert (taken.status_code, taken.json()["field"]) == (409, "display_name")
    one = f"{path}/{page['goal_id']}"
    put = await admin.ask("PUT", one, {"page": "/docs/*", "display_name": "Reads"})
    assert put.json() == {**page, "page": "/docs/*", "display_name": "Reads"}
    assert (await admin.ask("PUT", one, {"page": "/", "display_name": "signup"})).status_code == 409
    assert (await admin.ask("GET", path)).json() == {"goals": [put.json(), signup]}
    elsewhere = one.replace("goals.example", "other.example")
    assert (await admin.ask("DELETE", elsewhere)).status_code == 404
    assert (await admin.ask("DELETE", one)).status_code == 204
    assert (await admin.ask("PUT", one, {"page": "/"})).status_code == 404
    assert (await admin.ask("GET", path)).json() == {"goals": [signup]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "event_name"),
        ({"page": "/", "event_name": "x"}, "page"),
        ({"page": "blog"}, "page"),
        ({"page": "/", "currency": "EUR"}, "currency"),
        ({"event_name": "engagement"}, "event_name"),
        ({"event_name": "x", "props": {"a": 1}}, "props"),
        ({"event_name": "x", "props": {"a\n": "b"}}, "props"),
        ({"event_name": "x", "props": {str(i): "x" for i in range(31)}}, "props"),
        ({"event_name": "x" * 257}, "event_name"),
        ({"event_name": "x", "prop": {}}, "prop"),
    ],
)
async def test_a_goal_that_is_none_is_refused(admin: Caller, body: Any, field: str) -> None:
    answer = await admin.ask("POST", "/api/sites/refused.example/goals", body)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert answer.json()["rule"]
    assert (await admin.ask("GET", "/api/sites/refused.example/goals")).json() == {"goals": []}


async def test_segments_are_added_replaced_and_removed(admin: Caller) -> None:
    path = "/api/sites/segments.example/segments"
    filters = [["or", [["is", "visit:country", ["DE"]], ["contains", "event:page", ["/ü"]]]]]
    made = await admin.made(path, name="Germans", filters=filters)
    assert made["filters"] == filters
    assert (
        await admin.ask("POST", path, {"name": "Germans", "filters": filters})
    ).status_code == 409
    one = f"{path}/{made['segment_id']}"
    put = await admin.ask(
        "PUT", one, {"name": "Danes", "filters": [["is", "visit:country", ["DK"]]]}
    )
    assert (await admin.ask("GET", path)).json() == {"segments": [put.json()]}
    assert (await admin.ask("DELETE", one)).status_code == 204
    assert (await admin.ask("DELETE", one)).status_code == 404
    hostile: tuple[Any, ...] = (
        None,
        [],
        {},
        "is",
        [["x" * 20_000]],
        [["a\0b"]],
        [["is", "visit:planet", ["Mars"]]],
    )
    for bad in hostile:
        refused = await admin.ask("POST", path, {"name": "x", "filters": bad})
        assert (refused.status_code, refused.json()["field"]) == (400, "filters")


async def test_a_key_is_shown_once_and_worth_nothing_when_revoked(
    mallard: Running, admin: Caller
) -> None:
    made = await admin.made("/api/keys", name="n", scopes=["admin", "sql", "sql"], sites="*")
    token = made.pop("token")
    assert (made["scopes"], made["sites"], made["revoked_at"]) == (["sql", "admin"], "*", None)
    listed = await admin.ask("GET", "/api/keys")
    assert made in listed.json()["keys"]
    assert token not in listed.text
    other = Caller(mallard, token)
    assert (await other.ask("GET", "/api/keys")).status_code == 200
    for _ in range(2):
        assert (await admin.ask("DELETE", f"/api/keys/{made['key_id']}")).status_code == 204
    refused = await other.ask("GET", "/api/keys")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert (await admin.ask("DELETE", "/api/keys/999999")).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": ["sql"], "sites": "*"}, "name"),
        ({"name": "x", "sites": "*"}, "scopes"),
        ({"name": "x", "scopes": [], "sites": "*"}, "scopes"),
        ({"name": "x", "scopes": ["root"], "sites": "*"}, "scopes"),
        ({"name": "x", "scopes": [{}], "sites": "*"}, "scopes"),
        ({"name": "x", "scopes": "admin", "sites": "*"}, "scopes"),
        ({"name": "x", "scopes": ["sql"]}, "sites"),
        ({"name": "x", "scopes": ["sql"], "sites": []}, "sites"),
        ({"name": "x", "scopes": ["sql"], "sites": ["a", "*"]}, "sites"),
        ({"name": "x", "scopes": ["sql"], "sites": None}, "sites"),
        ({"name": "x", "scopes": ["sql"], "sites": "*", "token": "mal_"}, "token"),
    ],
)
async def test_a_key_that_says_too_little_is_refused(admin: Caller, body: Any, field: str) -> None:
    answer = await admin.ask("POST", "/api/keys", body)
    assert (answer.status_code, answer.json()["field"]) == (422 if field == "name" else 400, field)


PATHS: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/api/sites", None),
    ("POST", "/api/sites", {"site_id": "new.example"}),
    ("GET", "/api/sites/b.example", None),
    ("PATCH", "/api/sites/b.example", {}),
    ("DELETE", "/api/sites/b.example", None),
    ("GET", "/api/sites/b.example/goals", None),
    ("POST", "/api/sites/b.example/goals", {"page": "/"}),
    ("PUT", "/api/sites/b.example/goals/1", {"page": "/"}),
    ("DELETE", "/api/sites/b.example/goals/1", None),
    ("GET", "/api/sites/b.example/segments", None),
    ("POST", "/api/sites/b.example/segments", {"name": "x", "filters": [[]]}),
    ("PUT", "/api/sites/b.example/segments/1", {"name": "x", "filters": [[]]}),
    ("DELETE", "/api/sites/b.example/segments/1", None),
    ("GET", "/api/keys", None),
    ("POST", "/api/keys", {"name": "x", "scopes": ["admin"], "sites": "*"}),
    ("DELETE", "/api/keys/1", None),
)


@pytest.mark.parametrize(("method", "path", "body"), PATHS)
async def test_nothing_is_managed_without_a_key_that_may(
    mallard: Running, method: str, path: str, body: Any
) -> None:
    """Not with each other scope, and not with one for other sites."""
    reader = await caller(mallard, "stats:read", "sql", "export")
    elsewhere = await caller(mallard, "admin", sites=["a.example"])
    nobody = await mallard.client.request(method, path, headers=LOCAL, json=body)
    assert nobody.status_code == 401
    assert (await reader.ask(method, path, body)).status_code == 403
    found = await elsewhere.ask(method, path, body)
    if (method, path) == ("GET", "/api/sites"):
        assert found.json() == {"sites": []}
    else:
        assert found.status_code == 403
    assert (await mallard.server.accounts.directory()).site("new.example").created_at is None


async def test_an_open_server_is_not_open_to_changes(tmp_path: Path) -> None:
    async with running(tmp_path) as fresh:
        for method, path, body in PATHS:
            answer = await fresh.client.request(method, path, headers=LOCAL, json=body)
            assert answer.status_code == 403, path
        assert not (await fresh.server.accounts.directory()).has_keys


async def test_every_path_is_in_the_list_above(mallard: Running, admin: Caller) -> None:
    for path in {path for _, path, _ in PATHS}:
        allowed = {*(await admin.ask("OPTIONS", path)).headers["allow"].split(", ")} - {"HEAD"}
        assert allowed == {method for method, each, _ in PATHS if each == path}


async def test_a_key_for_some_sites_manages_those_and_sees_no_other(mallard: Running) -> None:
    root = await caller(mallard, "admin")
    for site in ("mine.example", "theirs.example"):
        await root.made("/api/sites", site_id=site)
    key = await caller(mallard, "admin", sites=["mine.example", "unborn.example"])
    sites = (await key.ask("GET", "/api/sites")).json()["sites"]
    assert [site["site_id"] for site in sites] == ["mine.example"]
    await key.made("/api/sites/mine.example/goals", page="/")
    assert (await key.ask("PATCH", "/api/sites/mine.example", {})).status_code == 200
    known = await key.ask("GET", "/api/sites/theirs.example")
    unknown = await key.ask("GET", "/api/sites/nowhere.example")
    assert (known.status_code, known.json()) == (unknown.status_code, unknown.json())
    other = await caller(mallard, "sql", sites=["mine.example"])
    assert (await other.ask("GET", "/api/sites")).status_code == 403


@pytest.mark.parametrize(
    "path",
    ["a%00b", "a%ED%A0%80", "..", "%2e%2e", "x" * 257, "a'--", "a%20b", "a%0d%0ab", "%F0%9F%A6%86"],
)
async def test_a_hostile_site_in_a_path_is_refused(admin: Caller, path: str) -> None:
    for method, rest, body in (
        ("GET", "", None),
        ("PATCH", "", {}),
        ("DELETE", "", None),
        ("POST", "/goals", {"page": "/"}),
    ):
        answer = await admin.ask(method, f"/api/sites/{path}{rest}", body)
        assert answer.status_code in (400, 404, 405), answer.text


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "x", "9" * 18, "9" * 5000, "%D9%A3", "1%00"])
async def test_a_hostile_number_in_a_path_is_not_found(admin: Caller, number: str) -> None:
    for path in ("/api/keys", "/api/sites/a.example/goals", "/api/sites/a.example/segments"):
        assert (await admin.ask("DELETE", f"{path}/{number}")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'"x"', b"1", b"\xff", b"[" * 100_000),
        *(b'{"name": "a", "name": "b"}', b'{"name": "\\ud800"}'),
    ],
)
async def test_a_hostile_body_is_refused(mallard: Running, body: bytes) -> None:
    fields = {"name": "t", "scopes": ["admin"], "sites": "*"}
    _, token = await mallard.server.accounts.change(lambda control: control.keys.create(fields))
    for path in ("/api/sites", "/api/keys", "/api/sites/a.example/goals"):
        answer = await mallard.client.post(
            path, content=body, headers={"authorization": f"Bearer {token}"}
        )
        assert answer.status_code == (413 if len(body) > BODY_BYTES_MAX else 400), answer.text
