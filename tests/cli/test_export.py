from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mallard.accounts.accounts import Accounts
from mallard.clock import Clock
from mallard.query.pieces import WHO
from mallard.store.reader import DATABASE
from mallard.transfer.exporter import SPILLED
from tests.cli.test_main import exit_code
from tests.factories import NOON_US

SITE = "example.com"
HOUR_US = 3_600_000_000


def exported(
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    data: Path,
    *arguments: str,
) -> tuple[bytes, str]:
    """Return what `mallard export` writes to its standard output, and what it says beside."""
    command = ("export", "--data", str(data), "--site", SITE, *arguments)
    assert exit_code(monkeypatch, *command) == 0
    found = capsysbinary.readouterr()
    return found.out, found.err.decode()


def test_events_in_parquet_and_in_the_log_are_written_in_each_form(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], data: Path
) -> None:
    names = ["in parquet", "in the log"]
    out, said = exported(monkeypatch, capsysbinary, data)
    rows = list(csv.DictReader(io.StringIO(out.decode())))
    assert [row["event_name"] for row in rows] == names
    assert not set(WHO) & set(rows[0])
    assert said == f"2 events of {SITE}\n"
    out, _ = exported(monkeypatch, capsysbinary, data, "--format", "ndjson", "--visitors")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [row["event_name"] for row in lines] == names
    assert set(WHO) <= set(lines[0])
    file = data.parent / "events.parquet"
    out, _ = exported(monkeypatch, capsysbinary, data, "--format", "parquet", "-o", str(file))
    assert (out, sorted(data.parent.iterdir())) == (b"", [data, file])
    assert pq.read_table(file)["event_name"].to_pylist() == names


def test_visits_are_written_too(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], data: Path
) -> None:
    out, said = exported(
        monkeypatch, capsysbinary, data, "--what", "sessions", "--format", "ndjson"
    )
    (visit,) = map(json.loads, out.splitlines())
    assert (visit["events"], said) == (2, f"1 sessions of {SITE}\n")


def test_days_are_those_of_the_sites_zone(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], data: Path
) -> None:
    assert NOON_US % (24 * HOUR_US) == 12 * HOUR_US  # 2024-05-01 12:00 UTC

    def counted(first: str, last: str) -> int:
        out, _ = exported(
            monkeypatch,
            capsysbinary,
            data,
            *("--from", first, "--to", last, "--format", "ndjson"),
        )
        return len(out.splitlines())

    assert (counted("2024-05-01", "2024-05-01"), counted("2024-05-02", "2024-05-02")) == (2, 0)
    accounts = Accounts(data / DATABASE, Clock())
    fields = {"timezone": "Pacific/Auckland"}  # twelve hours ahead
    accounts.change_now(lambda control: control.sites.set(SITE, fields))
    accounts.close()
    assert (counted("2024-05-01", "2024-05-01"), counted("2024-05-02", "2024-05-02")) == (0, 2)


def test_reports_are_those_of_the_server(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], data: Path
) -> None:
    accounts = Accounts(data / DATABASE, Clock())
    goal = {"event_name": "in the log", "display_name": "Logged"}
    accounts.change_now(lambda control: control.goals.add(SITE, goal))
    accounts.close()
    out, said = exported(monkeypatch, capsysbinary, data, "--what", "goals")
    (row,) = csv.DictReader(io.StringIO(out.decode()))
    assert (row["value"], row["visitors"], row["events"]) == ("Logged", "1", "1")
    assert said == f"1 rows of goals of {SITE}\n"
    days = ("--from", "2024-04-30", "--to", "2024-05-02", "--format", "ndjson")
    out, _ = exported(monkeypatch, capsysbinary, data, "--what", "timeseries", *days)
    found = [(row["time"], row["events"]) for row in map(json.loads, out.splitlines())]
    assert found == [("2024-04-30", 0), ("2024-05-01", 2), ("2024-05-02", 0)]
    for bounds in ((), ("--from", "2024-05-01"), ("--to", "2024-05-01")):
        out, _ = exported(
            monkeypatch, capsysbinary, data, "--what", "props:plan", "--format", "ndjson", *bounds
        )
        values = {row["value"]: row["visitors"] for row in map(json.loads, out.splitlines())}
        assert values == {"pro": 1, "(none)": 1}
    assert [*(data / SPILLED).iterdir()] == []


def test_a_report_has_the_parameters_of_stats(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], data: Path
) -> None:
    steps = "steps=event:in parquet,event:in the log"
    given = ("--what", "funnel", "--format", "ndjson", steps, "within=visitor")
    out, said = exported(monkeypatch, capsysbinary, data, *given)
    assert [json.loads(line)["step"] for line in out.splitlines()] == [1, 2]
    assert said == f"2 rows of funnel of {SITE}\n"
    days = ("--what", "summary", "--to", "2024-05-01", "metrics=events")
    out, _ = exported(monkeypatch, capsysbinary, data, *days, "filters=name==nothing")
    assert out == b"events\r\n0\r\n"
    out, _ = exported(monkeypatch, capsysbinary, data, *days)
    assert out == b"events\r\n2\r\n"


def test_a_site_without_events_is_a_file_without_rows(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], data: Path
) -> None:
    out, said = exported(monkeypatch, capsysbinary, data, "--site", "other.example")
    assert len(out.splitlines()) == 1
    assert said == "0 events of other.example\n"
    out, _ = exported(monkeypatch, capsysbinary, data, "--site", "other.example", "--what", "page")
    assert out == b"value,visitors,pageviews,bounce_rate,time_on_page,scroll_depth,exit_rate\r\n"


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--from", "2024-05-02", "--to", "2024-05-01"], 1, "is not after"),
        (["--from", "yesterday"], 2, "does not match"),
        (["--format", "json"], 2, "is not one of"),
        (["--what", "passwords"], 1, "is unknown. It must be one of events, sessions, summary,"),
        (["--what", "funnel"], 1, "steps is missing"),
        (["--what", "summary", "steps=page:/"], 1, "There is no parameter 'steps' here"),
        (["limit=1"], 1, "There is no parameter 'limit' here"),
        (["--what", "summary", "metrics"], 1, "'metrics' is no parameter"),
        (["--what", "summary", "period=day", "--from", "2024-05-01"], 1, "either named or"),
        (["-o", "nowhere/events.csv"], 3, "cannot be written"),
        (["--data", "nowhere"], 3, "is not a Mallard data folder"),
    ],
)
def test_what_cannot_be_is_said_and_leaves_no_file(
    arguments: list[str],
    code: int,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: Path,
) -> None:
    monkeypatch.chdir(data.parent)
    command = ("export", "--data", str(data), "--site", SITE, "-o", "events.csv", *arguments)
    assert exit_code(monkeypatch, *command) == code
    assert reason in capsys.readouterr().err
    assert list(data.parent.iterdir()) == [data]
