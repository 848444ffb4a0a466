"""What a key is for, and on which sites."""

from __future__ import annotations

import re

import pytest

from mallard.accounts.access import Principal, Scope, digest, new_token
from mallard.accounts.directory import Directory
from mallard.errors import Forbidden, Unauthenticated


def holder(*scopes: Scope, sites: set[str] | None = None) -> Principal:
    return Principal(1, "k", frozenset(scopes), None if sites is None else frozenset(sites))


def test_a_scope_allows_what_it_says_and_no_more() -> None:
    for scope in Scope:
        for wanted in Scope:
            may = scope is wanted or scope is Scope.ADMIN
            assert holder(scope).may(wanted, "a.example") == may, (scope, wanted)
            assert holder(scope).may(wanted) == may


def test_a_key_for_some_sites_is_for_no_other_and_not_for_the_server() -> None:
    principal = holder(Scope.ADMIN, sites={"a.example"})
    assert [principal.may(Scope.STATS, site) for site in ("a.example", "A.EXAMPLE", "b")] == [
        True,
        False,
        False,
    ]
    assert not principal.may(Scope.ADMIN)


@pytest.mark.parametrize(
    ("principal", "site", "rule"),
    [
        (holder(Scope.STATS), "a", "the scope sql"),
        (holder(Scope.SQL, sites={"b"}), "a", "a site of the key"),
        (holder(Scope.SQL, sites={"b"}), None, "a key with sites *"),
    ],
)
def test_what_is_missing_is_said(principal: Principal, site: str | None, rule: str) -> None:
    with pytest.raises(Forbidden) as caught:
        principal.require(Scope.SQL, site)
    assert caught.value.rule == rule
    holder(Scope.SQL, Scope.STATS).require(Scope.SQL, site)


def test_tokens_differ_and_can_be_recognised() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch("mal_[0-9a-f]{64}", token) for token in tokens)


@pytest.mark.parametrize(
    "token",
    [
        *("", "mal_", "mal_" + "0" * 63, "mal_" + "0" * 65, "mal_" + "A" * 64),
        *("mal_" + "0" * 64 + "\n", "\0", "\ud800" * 68, "mal_" + "\u0663" * 64),
        *("x" * 100_000, "' OR 1=1 --"),
    ],
)
def test_what_has_not_the_form_of_a_token_is_unknown(token: str) -> None:
    with pytest.raises(Unauthenticated):
        Directory(keys={b"": holder(Scope.ADMIN)}).authenticate(token)


def test_a_token_of_another_key_is_unknown() -> None:
    mine, other = new_token(), new_token()
    kept = digest(mine)
    assert kept is not None
    directory = Directory(keys={kept: holder(Scope.SQL)})
    assert directory.authenticate(mine).scopes == {Scope.SQL}
    with pytest.raises(Unauthenticated):
        directory.authenticate(other)
