from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mallard.files import Files
from mallard.jobs.checking import REST_SECONDS, Checking
from mallard.jobs.verify import verify
from tests.stored import A, B, Stored, date


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    """A day that is over and compacted, with sums, and one that is not."""
    made = Stored(tmp_path / "data", day=1)
    made.flush(0, A, B)
    made.settle()
    made.sum_up(A, 0)
    made.flush(1, A)
    yield made
    made.close()


def harm(path: Path) -> None:
    """Change the file and not its size, as a failing disk does."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def checking(stored: Stored, failures: list[int]) -> Checking:
    return Checking(stored.store, lambda: len(failures), stored.clock)


def test_after_a_question_that_failed_a_damaged_part_is_set_aside_and_the_others_are_read(
    stored: Stored,
) -> None:
    failures: list[int] = []
    job = checking(stored, failures)
    day = stored.store.snapshot().days[A, date(0)]
    harm(stored.data / day.parts[0].location)
    job.run()
    assert stored.store.snapshot().quarantined == ()
    failures.append(1)
    job.run()
    ((part, why),) = stored.store.snapshot().quarantined
    assert part == day.parts[0]
    assert "SHA-256" in why
    assert stored.positions() == [2, 3]


def test_visits_and_sums_that_are_damaged_are_dropped_to_be_made_again(stored: Stored) -> None:
    snapshot = stored.store.snapshot()
    visits, sums = snapshot.days[A, date(0)].sessions, next(iter(snapshot.rollups.values()))
    assert visits is not None
    for file in (visits, sums):
        harm(stored.data / file.location)
    checking(stored, [1]).run()
    after = stored.store.snapshot()
    assert after.days[A, date(0)].sessions is None
    assert after.rollups == {}
    assert after.days[B, date(0)] == snapshot.days[B, date(0)]
    assert stored.positions() == [1, 2, 3]
    assert verify(stored.data, Files()).problems == []


def test_a_whole_store_is_not_read_again_and_again_whatever_fails(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, checked = [1], list[str]()
    monkeypatch.setattr(stored.store, "check", lambda file: checked.append(file.location))
    now = [1_000.0]
    monkeypatch.setattr(stored.clock, "monotonic", lambda: now[0])
    job = checking(stored, failures)
    job.run()
    once = len(checked)
    assert once == len(list(stored.store.snapshot().files))
    failures.append(2)
    now[0] += REST_SECONDS - 1
    job.run()
    assert len(checked) == once
    now[0] += 1
    job.run()
    job.run()
    assert len(checked) == 2 * once
    job.interrupt()
    failures.append(3)
    now[0] += REST_SECONDS
    job.run()
    assert len(checked) == 2 * once
