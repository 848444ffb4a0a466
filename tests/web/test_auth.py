"""Who asks: keys, and when nobody has to say who they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request

from mallard.accounts.access import EVERYBODY, Principal, Scope
from mallard.accounts.accounts import Accounts
from mallard.clock import Clock
from mallard.config import Config, ProxyConfig, ServerConfig
from mallard.errors import Unauthenticated
from mallard.web.auth import Guard

KEY = {"name": "k", "scopes": ["sql"], "sites": ["a.example"]}


def request(**headers: str) -> Request:
    """A request with these headers; underscores in their names become dashes."""
    named = {"host": "localhost:8000", **headers}
    raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in named.items()]
    return Request({"type": "http", "headers": raw})


@pytest.fixture
async def accounts(tmp_path: Path) -> AsyncIterator[Accounts]:
    path = tmp_path / "mallard.db"
    path.touch()
    accounts = Accounts(path, Clock())
    yield accounts
    accounts.close()


async def is_open(accounts: Accounts, config: Config | None = None, **headers: str) -> bool:
    try:
        found = await Guard(accounts, config or Config()).principal(request(**headers))
    except Unauthenticated:
        return False
    return found == EVERYBODY


@pytest.mark.parametrize(
    "host", ["localhost:8000", "LOCALHOST", "127.0.0.1:80", "127.1.2.3", "[::1]:8000"]
)
async def test_a_server_that_only_this_machine_reaches_is_open(
    accounts: Accounts, host: str
) -> None:
    assert await is_open(accounts, host=host)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "localhost.evil.example",
        "192.0.2.1",
        "",
        ":8000",
        "0.0.0.0",
        "[::1]x",
        "a:b:c",
    ],
)
async def test_it_is_not_for_what_another_name_led_to(accounts: Accounts, host: str) -> None:
    assert not await is_open(accounts, host=host)


@pytest.mark.parametrize("header", ["x_forwarded_for", "forwarded", "via", "x_real_ip"])
async def test_it_is_not_for_what_came_through_a_proxy(accounts: Accounts, header: str) -> None:
    assert not await is_open(accounts, None, **{header: "192.0.2.1"})


@pytest.mark.parametrize(
    ("site", "expected"),
    [("none", True), ("same-origin", True), ("same-site", False), ("cross-site", False)],
)
async def test_it_is_not_for_somebody_elses_page(
    accounts: Accounts, site: str, expected: bool
) -> None:
    assert await is_open(accounts, None, sec_fetch_site=site) == expected


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "analytics.example"])
async def test_a_server_that_others_reach_is_not_open(accounts: Accounts, host: str) -> None:
    assert not await is_open(accounts, Config(server=ServerConfig(host=host)))


async def test_a_server_behind_a_proxy_is_not_open(accounts: Accounts) -> None:
    assert not await is_open(accounts, Config(proxy=ProxyConfig(trusted=("loopback",))))


async def test_the_first_key_closes_it_and_its_revocation_does_not_open_it(
    accounts: Accounts,
) -> None:
    assert await is_open(accounts)
    key, _ = await accounts.change(lambda control: control.keys.create(KEY))
    assert not await is_open(accounts)
    await accounts.change(lambda control: control.keys.revoke(key.key_id))
    assert not await is_open(accounts)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
async def test_a_key_says_who_asks_and_its_use_is_noted(accounts: Accounts, scheme: str) -> None:
    key, token = await accounts.change(lambda control: control.keys.create(KEY))
    found, directory = await Guard(accounts, Config()).look(
        request(authorization=f"{scheme} {token}", host="far.example")
    )
    assert found == Principal(key.key_id, "k", frozenset({Scope.SQL}), frozenset({"a.example"}))
    assert directory.has_keys
    (kept,) = await accounts.read(lambda control: control.keys.all())
    assert kept.last_used_on is not None


@pytest.mark.parametrize("header", ["Bearer", "Bearer mal_x", "Basic bWFs", "mal_", "", "\u00ff"])
async def test_a_wrong_key_is_refused_on_an_open_server_too(
    accounts: Accounts, header: str
) -> None:
    with pytest.raises(Unauthenticated):
        await Guard(accounts, Config()).principal(request(authorization=header))
