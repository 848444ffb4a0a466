from __future__ import annotations

from pathlib import Path

import pytest

from mallard.errors import StorageError
from mallard.files import Files
from mallard.jobs.verify import Findings, verify
from tests.factories import make_event
from tests.rooms import Rooms


def check(data: Path) -> Findings:
    return verify(data, Files())


def fill(data: Path) -> tuple[Path, Path]:
    """Make a folder of two parts and three segments; return the path of one of each."""
    rooms = Rooms(data, segment_bytes=1)
    for _ in range(2):
        rooms.append(make_event(), make_event())
        rooms.flusher.flush()
    for _ in range(3):
        rooms.append(make_event())
    rooms.close()
    segments = sorted((data / "wal").iterdir())
    assert len(segments) == 3
    return data / next(rooms.store.snapshot().parts).location, segments[1]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def test_a_whole_folder_has_no_problem_and_its_events_are_counted(tmp_path: Path) -> None:
    fill(tmp_path)
    findings = check(tmp_path)
    assert (findings.problems, findings.notes) == ([], [])
    assert (findings.parts, findings.part_rows, findings.log_events) == (2, 4, 3)
    assert findings.part_bytes == sum(
        path.stat().st_size
        for path in (tmp_path / "recent").iterdir()
        if path.name != "empty.parquet"
    )


def test_a_folder_with_nothing_in_it_but_a_store_is_whole(tmp_path: Path) -> None:
    Rooms(tmp_path).close()
    assert check(tmp_path).problems == []
    with pytest.raises(StorageError, match="not a Mallard data folder"):
        check(tmp_path / "wal")


@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_flipped_bit_in_a_part_is_a_problem_that_names_it(place: float, tmp_path: Path) -> None:
    part, _ = fill(tmp_path)
    flip(part, int(part.stat().st_size * place))
    (problem,) = check(tmp_path).problems
    assert f"recent/{part.name}" in problem
    assert "SHA-256" in problem


def test_a_part_that_is_gone_is_a_problem_that_names_it(tmp_path: Path) -> None:
    part, _ = fill(tmp_path)
    part.unlink()
    (problem,) = check(tmp_path).problems
    assert f"recent/{part.name} cannot be read" in problem


def test_a_damaged_segment_is_a_problem_that_names_it_and_what_was_lost(tmp_path: Path) -> None:
    _, segment = fill(tmp_path)
    flip(segment, 60)
    damaged, missing = check(tmp_path).problems
    assert f"wal/{segment.name} is damaged" in damaged
    assert "1 events, positions 6 to 6" in missing


def test_a_segment_that_is_gone_is_a_hole_that_is_named(tmp_path: Path) -> None:
    _, segment = fill(tmp_path)
    segment.unlink()
    (problem,) = check(tmp_path).problems
    assert "positions 6 to 6" in problem


def test_a_torn_end_is_a_note_and_no_problem(tmp_path: Path) -> None:
    fill(tmp_path)
    last = max((tmp_path / "wal").iterdir())
    last.write_bytes(last.read_bytes()[:-1])
    findings = check(tmp_path)
    assert findings.problems == []
    assert "never finished" in findings.notes[0]


def test_a_part_in_quarantine_stays_a_problem_until_it_is_back(tmp_path: Path) -> None:
    part, _ = fill(tmp_path)
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    Rooms(tmp_path).close()
    (problem,) = check(tmp_path).problems
    assert f"recent/{part.name}" in problem
    assert "2 events are missing" in problem
    part.write_bytes(
        content
    )  # put back: the next start takes it in, and must not be told otherwise
    findings = check(tmp_path)
    assert len(findings.problems) == 1
    assert findings.notes == []
    Rooms(tmp_path).close()
    assert check(tmp_path).problems == []


def test_a_file_that_no_commit_names_is_noted(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "recent" / "left.parquet").write_bytes(b"x")
    findings = check(tmp_path)
    assert findings.problems == []
    assert "recent/left.parquet" in findings.notes[0]


def test_a_check_changes_nothing(tmp_path: Path) -> None:
    part, segment = fill(tmp_path)
    flip(part, 50)
    flip(segment, 60)
    paths = [
        path for path in tmp_path.rglob("*") if path.is_file() and "mallard.db" not in path.name
    ]
    before = {path: path.read_bytes() for path in paths}
    check(tmp_path)
    assert {path: path.read_bytes() for path in paths} == before
    assert check(tmp_path).problems == check(tmp_path).problems


def test_a_server_may_run_and_flush_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = Rooms(tmp_path, segment_bytes=1)
    for _ in range(3):
        rooms.append(make_event())

    class Interrupted(Files):
        def read(self, path: Path) -> bytes:
            if path.suffix == ".wal":
                rooms.flusher.flush()  # between listing the log and reading it
                rooms.buffer.close()  # the log is trimmed when this returns
            return super().read(path)

    findings = verify(tmp_path, Interrupted())
    assert findings.problems == []
    assert (findings.part_rows, findings.log_events) == (3, 0)
    rooms.close()
