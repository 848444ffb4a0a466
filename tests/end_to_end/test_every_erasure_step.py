"""Each disk operation of an erasure in turn fails, tears or is the last one."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from mallard.errors import MallardError
from mallard.files import Files
from mallard.jobs.erasure import DISCARDED
from mallard.jobs.verify import verify
from tests.beside import looking_at
from tests.end_to_end.test_every_disk_step import let_threads_crash
from tests.erasing import KEPT, MARK, ErasingRooms, holders, of_other, of_subject, user
from tests.faults import Crash, Fault, FaultyFiles, sample, sampled
from tests.stored import FAULTS
from tests.waiting import until

BEFORE, AFTER = Counter({MARK: 3, KEPT: 3}), Counter({KEPT: 3})
FAILURES = (MallardError, OSError, sqlite3.Error, duckdb.Error, RuntimeError)


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


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose only rule has nothing left to do but for a damaged file of two events."""
    data = tmp_path_factory.mktemp("waiting") / "data"
    rooms = ErasingRooms(data)
    rooms.append(of_subject(), of_other())
    rooms.flusher.flush()
    rooms.settle()
    (part,) = rooms.store.snapshot().parts
    path = data / part.location
    path.write_bytes(path.read_bytes()[:-9] + bytes(9))
    rooms.append(of_subject(1), of_other(1))
    rooms.erasure.begin(user())
    rooms.erasure.run()
    assert "damaged" in rooms.erasure.status()[0]["waits_for"]
    rooms.close()
    return data


def users(data: Path) -> Counter[str]:
    with looking_at(data) as connection:
        return Counter(name for (name,) in connection.sql("SELECT user_id FROM events").fetchall())


def erase(rooms: ErasingRooms, files: FaultyFiles) -> None:
    """Erase the subject, whatever happens."""
    with contextlib.suppress(*FAILURES):
        rooms.erasure.begin(user())
        run_to_the_end(rooms, files)


def give_up(rooms: ErasingRooms, files: FaultyFiles) -> None:
    """Give up the file that the rule waits for, and end the rule, whatever happens."""
    with contextlib.suppress(*FAILURES):
        (rule,) = rooms.erasure.status()
        rooms.erasure.discard(rule["rule"])
        run_to_the_end(rooms, files)


def run_to_the_end(rooms: ErasingRooms, files: FaultyFiles) -> None:
    def is_over() -> bool:
        if files.crashed:
            raise Crash
        rooms.erasure.run()
        return any(each["completed_at"] for each in rooms.erasure.receipts())

    until(is_over, "the rule is over")


@dataclass(frozen=True)
class Aftermath:
    """A folder after the operation failed; where: which one and how."""

    data: Path
    where: str


Act = Callable[[ErasingRooms, FaultyFiles], None]


def kinds_of_steps(data: Path, act: Act) -> list[str]:
    """Return what disk operations an act consists of, in order."""
    files = FaultyFiles(0, Fault.EIO)
    rooms = ErasingRooms(data, files)
    opened = files.steps
    act(rooms, files)
    rooms.close()
    return files.kinds[opened:]


def at_every_step(
    folder: Path, built: Path, act: Act, fault: Fault, every: int
) -> Iterator[Aftermath]:
    """Yield what is left after each so-manieth operation of a kind failed."""
    shutil.copytree(built, folder / "whole")
    kinds = kinds_of_steps(folder / "whole", act)
    assert len(kinds) > 20, "an act has many operations"
    for step in sample(kinds, fault, every):
        data = folder / f"{step}"
        shutil.copytree(built, data)
        files = FaultyFiles(0, fault)
        with contextlib.suppress(Crash):
            rooms = ErasingRooms(data, files)
            try:
                files.fail_from_here(step)
                act(rooms, files)
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
    for after in at_every_step(tmp_path, built, erase, fault, every):
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


@sampled(12)
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_step_fails_a_damaged_file_is_kept_or_given_up_and_the_receipt_says_so(
    fault: Fault, every: int, waiting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_threads_crash(monkeypatch)
    for after in at_every_step(tmp_path, waiting, give_up, fault, every):
        assert users(after.data) == Counter({KEPT: 1}), after.where
        rooms = ErasingRooms(after.data, Files())
        (rule,) = [each["rule"] for each in (*rooms.erasure.status(), *rooms.erasure.receipts())]
        if all(version.reason != DISCARDED for version in rooms.store.history()):
            ((damaged, _),) = rooms.store.snapshot().quarantined
            assert (after.data / "quarantine" / Path(damaged.location).name).is_file(), after.where
            assert rooms.erasure.discard(rule) == 2, after.where
        receipt = rooms.finish(rule)
        assert list(receipt["discarded"].values()) == [2], after.where
        assert receipt["not_searched"] == [], after.where
        assert users(after.data) == Counter({KEPT: 1}), after.where
        rooms.close()
        assert holders(after.data) == set(), after.where
        assert verify(after.data, Files()).problems == [], after.where
