"""Each disk operation of an erasure in turn fails, tears or is the last one."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from mallard.errors import MallardError
from mallard.files import Files
from mallard.jobs.verify import verify
from mallard.query.events import open_folder
from tests.end_to_end.test_every_disk_step import let_threads_crash
from tests.erasing import KEPT, MARK, ErasingRooms, holders, of_other, of_subject, user
from tests.faults import Crash, Fault, FaultyFiles, sample, sampled
from tests.stored import FAULTS
from tests.waiting import until

BEFORE, AFTER = Counter({MARK: 3, KEPT: 3}), Counter({KEPT: 3})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the subject in both levels, visits, sums and the log."""
    data = tmp_path_factory.mktemp("built") / "data"
    rooms = ErasingRooms(data)
    rooms.append(of_subject(), of_other())
    rooms.flusher.flush()
    rooms.settle()
    rooms.append(of_subject(1), of_other(1))
    rooms.flusher.flush()
    rooms.append(of_subject(1), of_other(1))
    rooms.close()
    return data


def users(data: Path) -> Counter[str]:
    with open_folder(data) as connection:
        return Counter(name for (name,) in connection.sql("SELECT user_id FROM events").fetchall())


def erase(rooms: ErasingRooms, files: FaultyFiles) -> None:
    """Erase the subject, whatever happens."""
    with contextlib.suppress(MallardError, OSError, sqlite3.Error, duckdb.Error, RuntimeError):
        rule = rooms.erasure.begin(user())

        def is_over() -> bool:
            if files.crashed:
                raise Crash
            rooms.erasure.run()
            return any(each["completed_at"] for each in rooms.erasure.receipts())

        until(is_over, f"the rule {rule} is over")


@dataclass(frozen=True)
class Aftermath:
    """A folder after the operation failed; where: which one and how."""

    data: Path
    where: str


def kinds_of_steps(data: Path) -> list[str]:
    """Return what disk operations an erasure consists of, in order."""
    files = FaultyFiles(0, Fault.EIO)
    rooms = ErasingRooms(data, files)
    opened = files.steps
    erase(rooms, files)
    rooms.close()
    return files.kinds[opened:]


def at_every_step(folder: Path, built: Path, fault: Fault, every: int) -> Iterator[Aftermath]:
    """Yield what is left after each so-manieth operation of a kind failed."""
    shutil.copytree(built, folder / "whole")
    kinds = kinds_of_steps(folder / "whole")
    assert len(kinds) > 60, "an erasure has many operations"
    for step in sample(kinds, fault, every):
        data = folder / f"{step}"
        shutil.copytree(built, data)
        files = FaultyFiles(0, fault)
        with contextlib.suppress(Crash):
            rooms = ErasingRooms(data, files)
            try:
                files.fail_from_here(step)
                erase(rooms, files)
            finally:
                with contextlib.suppress(Crash, sqlite3.Error):
                    rooms.close()
        yield Aftermath(data, f"{fault.name} at step {step}, {files.step_name}")
        shutil.rmtree(data)


@sampled(12)  # an operation takes a fifth of a second
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_step_fails_the_subject_is_there_or_erased_and_others_exactly_once(
    fault: Fault, every: int, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_threads_crash(monkeypatch)
    for after in at_every_step(tmp_path, built, fault, every):
        found = users(after.data)
        assert found in (BEFORE, AFTER), after.where
        rooms = ErasingRooms(after.data, Files())
        rules = [each["rule"] for each in rooms.erasure.status()]
        receipts = [each["rule"] for each in rooms.erasure.receipts()]
        began = bool(rules or receipts)
        assert found == (AFTER if began else BEFORE), after.where
        (rule,) = [*rules, *receipts] if began else [rooms.erasure.begin(user())]
        rooms.finish(rule)
        assert users(after.data) == AFTER, after.where
        rooms.close()
        assert holders(after.data) == set(), after.where
        assert verify(after.data, Files()).problems == [], after.where
