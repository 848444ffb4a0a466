from __future__ import annotations

import errno
import logging
import threading

import pytest

from mallard.clock import Clock
from mallard.errors import StorageError
from mallard.jobs.schedule import Job, Schedule
from mallard.telemetry import Telemetry
from tests.waiting import until


class SetClock(Clock):
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


def test_each_job_runs_once_a_period_and_the_wait_is_until_the_next_one() -> None:
    clock, ran = SetClock(), list[str]()
    jobs = [
        Job("slow", 10.0, lambda: ran.append("slow")),
        Job("fast", 4.0, lambda: ran.append("fast")),
    ]
    schedule = Schedule(jobs, clock, Telemetry())
    assert schedule.run_due() == 4.0
    assert ran == []
    clock.seconds += 4.0
    assert schedule.run_due() == 4.0
    assert ran == ["fast"]
    clock.seconds += 5.0  # a second late
    assert schedule.run_due() == 1.0
    assert ran == ["fast", "fast"]
    clock.seconds += 60.0  # after a long sleep each runs once, not once for every period missed
    assert schedule.run_due() == 4.0
    assert ran == ["fast", "fast", "slow", "fast"]


def test_a_job_that_fails_is_counted_and_the_others_and_its_next_run_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, telemetry, ran = SetClock(), Telemetry(), list[str]()

    def fail() -> None:
        ran.append("salts")
        raise RuntimeError("the salt is gone")

    jobs = [Job("salts", 1.0, fail), Job("geo", 1.0, lambda: ran.append("geo"))]
    schedule = Schedule(jobs, clock, telemetry)
    for _ in range(2):
        clock.seconds += 1.0
        schedule.run_due()
    assert ran == ["salts", "geo", "salts", "geo"]
    assert telemetry.failures == {"salts": 2}
    assert "the salt is gone" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), StorageError("The manifest is full.")]
)
def test_a_disk_that_fails_is_said_once_in_a_line_and_so_is_that_it_works_again(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    clock, telemetry, errors = SetClock(), Telemetry(), [error, error, None, None]

    def run() -> None:
        if found := errors.pop(0):
            raise found

    schedule = Schedule([Job("erasure", 1.0, run)], clock, telemetry)
    with caplog.at_level(logging.INFO):
        while errors:
            clock.seconds += 1.0
            schedule.run_due()
    assert telemetry.failures == {"erasure": 2}
    assert [record.getMessage() for record in caplog.records] == [
        f"the job 'erasure' failed and runs again later: {error}",
        "the job 'erasure' works again",
    ]
    assert "Traceback" not in caplog.text


def test_the_thread_runs_what_is_due_and_stops_when_told() -> None:
    ran = threading.Event()
    schedule = Schedule([Job("geo", 0.001, ran.set)], Clock(), Telemetry())
    schedule.start()
    until(ran.is_set, "the job runs")
    schedule.stop()
    before = threading.active_count()
    schedule.stop()  # a second time does nothing
    assert threading.active_count() == before
    assert "mallard-jobs" not in {thread.name for thread in threading.enumerate()}


def test_a_long_job_is_interrupted_until_it_ends_and_no_other_begins() -> None:
    clock, begun, interrupts = SetClock(), threading.Event(), list[int]()
    third = threading.Event()

    def run() -> None:
        begun.set()
        assert third.wait(10)

    def interrupt() -> None:
        interrupts.append(1)
        if len(interrupts) == 3:
            third.set()

    never: list[int] = []
    jobs = [Job("long", 0.0, run), Job("next", 0.0, lambda: never.append(1))]
    schedule = Schedule(jobs, clock, Telemetry())
    schedule.start()
    assert begun.wait(10)
    schedule.stop(interrupt)
    assert len(interrupts) == 3
    assert never == []
