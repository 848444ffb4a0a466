"""Sites, keys, goals and segments by command, also beside a server that runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from mallard.accounts.accounts import Accounts
from mallard.cli.main import main
from mallard.clock import Clock
from tests.end_to_end.server import RunningServer
from tests.waiting import until


class Shell:
    """Runs commands over one data folder."""

    def __init__(
        self, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._data = data
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str]:
        """Return the exit code, and what was printed or, where it failed, complained of."""
        argv = ["mallard", *arguments, "--data", str(self._data)]
        self._monkeypatch.setattr(sys, "argv", argv)
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        said = self._capsys.readouterr()
        return code, said.err if code else said.out

    def json(self, *arguments: str) -> Any:
        code, said = self.run(*arguments, "--json")
        assert code == 0, said
        return json.loads(said)


@pytest.fixture
def shell(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(data, monkeypatch, capsys)


def test_sites_are_added_changed_listed_and_removed(shell: Shell) -> None:
    assert shell.json("sites", "list") == []
    (made,) = shell.json("sites", "add", "a.example", "--timezone", "Europe/Berlin")
    (changed,) = shell.json("sites", "set", "a.example", "--currency", "eur", "--kind", "log")
    assert changed == {**made, "currency": "EUR", "kind": "log"}
    (without,) = shell.json("sites", "set", "a.example", "--currency", "")
    assert without == {**changed, "currency": None}
    _, table = shell.run("sites", "list")
    assert table.splitlines()[1].split()[:4] == ["a.example", "log", "Europe/Berlin", "-"]
    assert shell.run("sites", "add", "a.example") == (
        1,
        "mallard: The site is there already.\n",
    )
    assert shell.run("sites", "remove", "a.example") == (0, "")
    assert shell.run("sites", "remove", "a.example")[0] == 1
    assert shell.json("sites", "list") == []


def test_a_key_is_printed_once_and_opens_what_it_says(shell: Shell, data: Path) -> None:
    code, said = shell.run("keys", "create", "reports")
    assert code == 0
    token = next(line for line in said.splitlines() if line.startswith("mal_"))
    made = shell.json("keys", "create", "x", "--scope", "sql", "--site", "b.example")
    assert (made["scopes"], made["sites"]) == (["sql"], ["b.example"])
    accounts = Accounts(data / "mallard.db", Clock())
    directory = accounts.directory_now()
    accounts.close()
    assert {*directory.authenticate(token).scopes} == {"stats:read"}
    assert directory.authenticate(token).sites is None
    assert directory.authenticate(made["token"]).sites == frozenset({"b.example"})
    first, second = shell.json("keys", "list")
    assert first["name"] == "reports"
    assert second == {name: value for name, value in made.items() if name != "token"}
    assert token not in shell.run("keys", "list")[1]
    (revoked,) = shell.json("keys", "revoke", str(first["key_id"]))
    assert revoked["revoked_at"] is not None
    assert shell.run("keys", "revoke", "99")[0] == 1


def test_goals_are_added_listed_and_removed(shell: Shell) -> None:
    flags = ("--event", "signup", "--prop", "plan=pro=1", "--prop", "a=", "--name", "Pro")
    assert shell.run("goals", "add", "a.example", *flags)[0] == 1  # a property without a value
    flags = ("--event", "signup", "--prop", "plan=pro=1", "--name", "Pro", "--currency", "EUR")
    (signup,) = shell.json("goals", "add", "a.example", *flags)
    assert (signup["display_name"], signup["props"]) == ("Pro", {"plan": "pro=1"})
    (page,) = shell.json("goals", "add", "a.example", "--page", "/docs/**")
    assert shell.json("goals", "list", "a.example") == [signup, page]
    _, table = shell.run("goals", "list", "a.example")
    assert "plan=pro=1" in table
    assert shell.json("goals", "list", "b.example") == []
    assert shell.run("goals", "remove", "b.example", str(page["goal_id"]))[0] == 1
    assert shell.run("goals", "remove", "a.example", str(page["goal_id"])) == (0, "")
    assert shell.json("goals", "list", "a.example") == [signup]
    assert "one of page and event_name" in shell.run("goals", "add", "a.example")[1]
    assert shell.run("goals", "add", "a.example", "--event", "x", "--prop", "plan")[0] == 1


def test_segments_are_added_listed_and_removed(shell: Shell) -> None:
    filters = '[["is", "visit:country", ["DE"]]]'
    (made,) = shell.json("segments", "add", "a.example", "Germans", filters)
    assert made["filters"] == json.loads(filters)
    assert shell.json("segments", "list", "a.example") == [made]
    assert "Germans" in shell.run("segments", "list", "a.example")[1]
    assert shell.run("segments", "add", "a.example", "Germans", filters)[0] == 1
    for bad in (
        "{",
        "[]",
        "[NaN]",
        "[[1e999]]",
        '[["\\ud800"]]',
        "[" * 200,
        "\udcff",
        '[["is", "x", ["y"]]]',
    ):
        assert shell.run("segments", "add", "a.example", "x", bad)[0] == 1
    assert shell.run("segments", "remove", "a.example", str(made["segment_id"])) == (0, "")
    assert shell.json("segments", "list", "a.example") == []


@pytest.mark.parametrize("name", ["\udcff", "a\nb", "", "x" * 300, "\x1b[31m", "../x", "a b"])
def test_a_hostile_name_is_refused_with_a_rule(shell: Shell, name: str) -> None:
    for arguments in (
        ("sites", "add", name),
        ("sites", "add", "a.example", "--timezone", name),
        ("goals", "add", name, "--page", "/"),
        ("keys", "create", "x", "--site", name),
    ):
        code, said = shell.run(*arguments)
        assert (code, " It must be " in said) == (1, True), said
    assert shell.json("sites", "list") == shell.json("keys", "list") == []


def test_a_folder_that_is_none_is_not_made_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    shell = Shell(empty, monkeypatch, capsys)
    for arguments in (("keys", "create", "x"), ("sites", "list")):
        code, said = shell.run(*arguments)
        assert (code, said.startswith(f"mallard: {empty} is not a Mallard data")) == (3, True)
    assert not empty.exists()


def test_a_running_server_follows_within_a_second(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(server.data, monkeypatch, capsys)
    made = shell.json("keys", "create", "root", "--scope", "admin")
    headers = {"authorization": f"Bearer {made['token']}"}

    def status() -> int:
        return httpx.get(f"{server.url}/api/keys", headers=headers).status_code

    assert status() == 200
    shell.json("keys", "revoke", str(made["key_id"]))
    # A second is what is promised; what the machine needs to answer comes on top.
    until(lambda: status() == 401, "the server refuses the key", seconds=5.0)
    assert made["token"] not in server.logs
    secret = made["token"].removeprefix("mal_").encode()
    for path in server.data.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes(), path
