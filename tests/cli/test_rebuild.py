from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from mallard.cli.main import mallard
from mallard.cli.rebuild import rebuild
from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.config import StoreConfig
from mallard.errors import StorageError
from mallard.files import FolderLock
from mallard.jobs.compaction import Compactor
from mallard.store.snapshot import Snapshot
from mallard.telemetry import Telemetry
from tests.factories import NOON_US
from tests.stored import A, B, SettableClock, Stored


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Two settled site-days of two months with visits, and an event of another date."""
    stored = Stored(tmp_path)
    stored.flush(0, A, B)
    stored.flush(31, A)
    clock = SettableClock(NOON_US + 400 * DAY_US)
    Compactor(StoreConfig(), stored.store, tmp_path, lambda: 1 << 40, clock, Telemetry()).run()
    stored.flush(40, A)
    stored.close()
    yield tmp_path


def look(folder: Path) -> Snapshot:
    stored = Stored(folder)
    stored.close()
    return stored.store.snapshot()


def test_visits_and_sums_are_made_again_and_it_says_how_many(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = look(folder)
    old = {file.location for file in before.derived}
    assert len(old) == 3
    assert rebuild(None, str(folder)) == 0
    after = look(folder)
    new = {file.location for file in after.derived}
    assert len(new) == 6 and not new & old
    assert list(after.parts) == list(before.parts)
    there = {
        str(path.relative_to(folder))
        for kind in ("sessions", "rollups")
        for path in (folder / kind).rglob("*.parquet")
    }
    assert there == new
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Dropped 3 files."
    assert said[1].startswith("Made the visits of 3 site-days and the sums of 3 site-months in ")
    assert said[2:] == ["1 dates wait for compaction, which makes theirs."]


def test_a_day_whose_events_are_damaged_is_a_problem_and_the_others_are_made(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (part,) = next(day.parts for (site, _), day in look(folder).days.items() if site == B)
    path = folder / part.location
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert rebuild(None, str(folder)) == 1
    assert "PROBLEM: b.example has no sums of 2024-05: " in capsys.readouterr().out


def test_a_folder_that_a_server_has_is_refused_and_nothing_is_dropped(folder: Path) -> None:
    before = look(folder)
    lock = FolderLock(folder)
    try:
        with pytest.raises(StorageError, match="in use by another Mallard server"):
            rebuild(None, str(folder))
    finally:
        lock.release()
    assert look(folder).version == before.version


def test_what_is_no_data_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not a Mallard data folder"):
        rebuild(None, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_command_takes_the_folder(folder: Path) -> None:
    result = CliRunner().invoke(mallard, ["rebuild", "--data", str(folder)])
    assert result.exit_code == 0
    assert "Dropped 3 files." in result.output
