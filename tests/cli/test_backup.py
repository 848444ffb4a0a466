from __future__ import annotations

from pathlib import Path

import pytest

from mallard.cli.backup import backup, restore


def test_a_backup_and_a_restore_say_what_they_copied(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, restored = tmp_path / "backup", tmp_path / "restored"
    assert backup(data, target, with_secret=False) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{target} holds 1 events in 1 files and 1 in the log. 1 files (")
    assert said.endswith(" bytes) were copied, 0 old ones removed.\n")
    assert backup(data, target, with_secret=False) == 0
    assert "0 files (0 bytes) were copied" in capsys.readouterr().out
    assert restore(target, restored) == 0
    assert f"{restored} holds 1 events in 1 files and 1 in the log." in capsys.readouterr().out


def test_the_secret_is_copied_when_asked_for_and_missed_aloud_otherwise(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "secret").write_bytes(b"sixteen letters!")
    backup(data, tmp_path / "one", with_secret=False)
    assert "the secret is not in it" in capsys.readouterr().out
    assert not (tmp_path / "one" / "secret").exists()
    backup(data, tmp_path / "other", with_secret=True)
    assert "the secret is not in it" not in capsys.readouterr().out
    restore(tmp_path / "other", tmp_path / "restored")
    assert (tmp_path / "restored" / "secret").read_bytes() == b"sixteen letters!"


def test_damage_is_a_problem_and_the_exit_code_says_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = next((data / "recent").glob("2024*"))
    part.write_bytes(bytes(part.stat().st_size))
    assert backup(data, tmp_path / "backup", with_secret=False) == 1
    assert f"PROBLEM: recent/{part.name} is not what was written" in capsys.readouterr().out
    assert restore(tmp_path / "backup", tmp_path / "restored") == 1
    assert f"PROBLEM: recent/{part.name} is missing" in capsys.readouterr().out
