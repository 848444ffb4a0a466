"""The command `mallard serve` as an operator meets it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httpx
import pytest

from mallard.cli.serve import _listen
from mallard.config import ServerConfig
from mallard.errors import ConfigError
from tests.end_to_end.server import RunningServer, run

# An address and an agent that a scan of everything written can look for.
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"
NAMES = "SELECT event_name FROM events ORDER BY position"


def send(server: RunningServer, name: str) -> None:
    answer = httpx.post(
        f"{server.url}/api/event",
        json={"d": "example.com", "n": name, "u": "https://example.com/?token=in-a-query"},
        headers={"User-Agent": AGENT},
    )
    assert (answer.status_code, answer.content) == (202, b"")


def test_a_server_stopped_gracefully_has_everything_in_parquet_and_starts_again(
    server: RunningServer,
) -> None:
    send(server, "before")
    assert server.terminate() == 0
    assert list((server.data / "recent").glob("*.parquet"))
    server.restart()
    send(server, "after")
    assert server.shell("SELECT event_name FROM events ORDER BY position") == [
        ["before"],
        ["after"],
    ]


def test_a_killed_server_starts_again_with_what_it_acknowledged(server: RunningServer) -> None:
    send(server, "before")
    server.kill9()
    server.restart()
    send(server, "after")
    assert server.shell("SELECT event_name FROM events ORDER BY position") == [
        ["before"],
        ["after"],
    ]


def test_the_shell_shows_an_event_the_moment_it_is_acknowledged(server: RunningServer) -> None:
    send(server, "just now")
    assert server.shell("SELECT site_id, event_name FROM events") == [["example.com", "just now"]]


def test_a_second_server_on_the_folder_is_refused_and_the_first_goes_on(
    server: RunningServer,
) -> None:
    second = run("serve", "--data", str(server.data), "--port", "0")
    assert second.returncode == 3
    assert second.stderr == (
        f"mallard: {server.data} is in use by another Mallard server (process {server.pid}). "
        "Stop that one, or give this one a folder of its own with --data.\n"
    )
    send(server, "still")
    assert server.shell("SELECT event_name FROM events") == [["still"]]


def test_a_port_that_is_taken_is_an_error_that_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--data", str(tmp_path / "data"), "--port", str(port))
    assert done.returncode == 2
    assert done.stderr.startswith(f"mallard: cannot listen on 127.0.0.1:{port}: ")
    assert "--port" in done.stderr
    assert not (tmp_path / "data").exists()


def test_an_address_that_is_not_this_machines_is_an_error_about_the_host() -> None:
    with pytest.raises(ConfigError, match=r"server\.host must be an address of this") as caught:
        _listen(ServerConfig(host="192.0.2.1"))
    assert caught.value.field == "server.host"


@pytest.mark.parametrize("name", ["", "wal", "mallard.sql", "mallard.db"])
def test_what_stands_in_the_way_in_the_folder_is_named_without_a_traceback(
    tmp_path: Path, name: str
) -> None:
    data = tmp_path / "data"
    if name:
        data.mkdir()
    if name == "mallard.sql":
        (data / name).mkdir()
    else:
        (data / name).write_bytes(b"x" * 4096)
    done = run("serve", "--data", str(data), "--port", "0")
    assert done.returncode == 3
    assert done.stderr.startswith("mallard: ")
    assert str(data / name) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_bad_setting_stops_the_start_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mallard.toml"
    path.write_text("[server]\nport = 0\ndate = 'data'\n")
    done = run("serve", "--config", str(path))
    assert done.returncode == 2
    assert done.stderr == (
        f'mallard: {path}, line 3: unknown key "date" in [server]; did you mean "data"?\n'
    )


@pytest.mark.parametrize(
    ("setting", "right"),
    [
        ('[proxy]\ntrusted = ["cloudfare"]\n', "cloudflare"),
        ('[geo]\ndatabase = "nowhere.mmdb"\n', "geo.database must name a City or Country file"),
    ],
)
def test_a_room_that_refuses_its_setting_names_the_line_too(
    tmp_path: Path, setting: str, right: str
) -> None:
    path = tmp_path / "mallard.toml"
    path.write_text(setting)
    done = run("serve", "--config", str(path), "--data", str(tmp_path / "data"), "--port", "0")
    assert done.returncode == 2
    assert done.stderr.startswith(f"mallard: {path}, line 2: ")
    assert right in done.stderr


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_is_structured_and_holds_nothing_of_a_visitor(tmp_path: Path, form: str) -> None:
    settings = {"log.format": form, "log.level": "debug"}
    with RunningServer(tmp_path, settings) as server:
        send(server, "pageview")
        httpx.get(f"{server.url}/api/event?d=example.com&u=https://example.com/?token=in-a-query")
        httpx.post(f"{server.url}/api/event?token=in-a-query", content=b"{")
        server.terminate()
        logged = [line for line in server.logs.splitlines() if line[:2] in {"20", '{"'}]
    assert len(logged) >= 3
    if form == "json":
        assert all(
            {"at", "level", "logger", "message"} <= json.loads(line).keys() for line in logged
        )
    assert "Traceback" not in server.logs
    for private in ("in-a-query", "Firefox", "python-httpx"):
        assert private not in server.logs
    assert not [line for line in logged if "127.0.0.1" in line]


def test_whoever_is_not_its_owner_reads_nothing_of_the_folder(server: RunningServer) -> None:
    send(server, "pageview")
    sql = {"sql": "SELECT count(*) FROM events", "site_id": "example.com", "format": "csv"}
    assert httpx.post(f"{server.url}/api/sql", json=sql).is_success
    report = {"site_id": "example.com", "period": "day"}
    assert httpx.get(f"{server.url}/api/stats/summary", params=report).is_success
    assert httpx.get(f"{server.url}/api/export", params={"site_id": "example.com"}).is_success
    server.shell("FROM events")
    server.terminate()
    found = [server.data, *server.data.rglob("*")]
    assert [path for path in found if path.stat().st_mode & 0o077] == []
    assert {"lock", "mallard.db", "recent", "tmp"} <= {path.name for path in found}
