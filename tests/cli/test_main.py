from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mallard.cli.main import main

HEAVY = ("duckdb", "pyarrow", "starlette", "uvicorn", "ua_parser", "rich", "sqlalchemy")


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr("sys.argv", ["mallard", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def test_the_version_is_the_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == "mallard 0.1.0\n"


def test_an_unknown_command_or_flag_is_2(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code(monkeypatch, "swim") == 2
    assert exit_code(monkeypatch, "serve", "--fast") == 2


def test_a_wrong_setting_is_2_and_says_what_would_be_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MALLARD_SERVER_PROT", "80")
    assert exit_code(monkeypatch, "serve") == 2
    said = capsys.readouterr().err
    assert said == (
        "mallard: environment: unknown variable MALLARD_SERVER_PROT; "
        "did you mean MALLARD_SERVER_PORT?\n"
    )


def test_a_folder_that_cannot_be_used_is_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for command in ("verify", "shell"):
        assert exit_code(monkeypatch, command, "--data", str(tmp_path)) == 3
        assert capsys.readouterr().err.startswith(f"mallard: {tmp_path} is not a Mallard data")


def test_wrong_sql_and_a_damaged_part_are_1(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code(monkeypatch, "shell", "--data", str(data), "-c", "SELEC 1") == 1
    for part in (data / "recent").glob("*.parquet"):
        part.write_bytes(b"")
    assert exit_code(monkeypatch, "verify", "--data", str(data)) == 1


def test_help_loads_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys, mallard.cli.main as main\n"
        f"sys.exit(' '.join(name for name in {HEAVY} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr.strip() == ""


def test_what_the_system_refuses_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mallard.db").touch()
    (tmp_path / "wal").write_text("no folder")
    monkeypatch.setattr(
        "mallard.jobs.verify.LocalReader", lambda *_: (tmp_path / "wal" / "x").read_bytes()
    )
    assert exit_code(monkeypatch, "verify", "--data", str(tmp_path)) == 3
    said = capsys.readouterr().err
    assert said == f"mallard: [Errno 20] Not a directory: '{tmp_path}/wal/x'\n"


@pytest.mark.parametrize(
    "instant", ["2026-11-21", "2026-11-21T12:00:00", "2026-11-21 12:00:00.018000"]
)
def test_an_instant_is_taken_as_people_write_it_and_as_loaded_at_is_shown(
    instant: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: list[object] = []
    monkeypatch.setattr("mallard.cli.shell.shell", lambda *told: found.append(told[-1]))
    assert exit_code(monkeypatch, "shell", "--data", str(tmp_path), "--as-of", instant) == 0
    assert found == [datetime.fromisoformat(instant).replace(tzinfo=UTC)]
