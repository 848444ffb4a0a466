from __future__ import annotations

from pathlib import Path

import pytest

from mallard.cli.doctor import doctor


def test_a_sound_folder_passes_and_a_line_says_what_it_holds(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data.chmod(0o700)
    assert doctor(None, str(data)) == 0
    assert f"ok: {data} holds 1 events in 1 parts; no server runs on it." in capsys.readouterr().out


def test_what_is_wrong_fails_with_what_to_do(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data.chmod(0o755)
    assert doctor(None, str(data)) == 1
    assert f"WRONG: . can be read by others than their owner: chmod -R go-rwx {data}" in (
        capsys.readouterr().out
    )
