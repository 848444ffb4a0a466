from __future__ import annotations

from pathlib import Path

import pytest

from mallard.cli.verify import verify
from mallard.processes import NICENESS


def test_a_sound_folder_is_counted_and_passes(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(data) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 events in 1 parts (")
    assert said.endswith("and 1 in the log.\nEverything is as the manifest says.\n")


def test_it_gives_way_to_a_server_on_the_same_machine(
    data: Path, asked_to_be_nice: list[int]
) -> None:
    verify(data)
    assert asked_to_be_nice == [NICENESS]


def test_one_flipped_bit_in_a_part_is_a_problem(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = max((data / "recent").glob("*.parquet"), key=lambda path: path.stat().st_size)
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    assert verify(data) == 1
    said = capsys.readouterr().out
    assert f"PROBLEM: recent/{part.name} is not the file that was written" in said


def test_what_a_start_would_remove_is_a_note_and_no_problem(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "recent" / "orphan.parquet").write_bytes(b"")
    assert verify(data) == 0
    assert "note: recent/orphan.parquet is not in the manifest" in capsys.readouterr().out
