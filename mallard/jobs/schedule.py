"""What happens now and then: a table of jobs, and the thread that runs them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mallard.clock import Clock
from mallard.telemetry import Telemetry

INTERRUPT_SECONDS = 0.05

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do every period; a run that fails is counted, and the next one comes."""

    name: str
    period_seconds: float
    run: Callable[[], None]


class Schedule:
    """One thread that runs each job when its time has come, one at a time."""

    def __init__(
        self, jobs: Sequence[Job], clock: Clock, telemetry: Telemetry, name: str = "mallard-jobs"
    ) -> None:
        self._clock = clock
        self._telemetry = telemetry
        self._due = {job: clock.monotonic() + job.period_seconds for job in jobs}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, interrupt: Callable[[], None] | None = None) -> None:
        """Stop after the job that is running.

        interrupt: makes a long one end early; called again and again until it does.
        """
        self._stop.set()
        while self._thread.is_alive():
            if interrupt:
                interrupt()
            self._thread.join(INTERRUPT_SECONDS if interrupt else None)

    def run_due(self) -> float:
        """Run the jobs whose time has come and return the seconds until the next one's."""
        for job, due in self._due.items():
            if self._stop.is_set():
                break
            if due <= self._clock.monotonic():
                self._run_one(job)
                self._due[job] = self._clock.monotonic() + job.period_seconds
        return max(0.0, min(self._due.values()) - self._clock.monotonic())

    def _run(self) -> None:
        while not self._stop.wait(self.run_due()):
            pass

    def _run_one(self, job: Job) -> None:
        try:
            job.run()
        except Exception:  # noqa: BLE001 - the top of a thread; the other jobs go on
            self._telemetry.failures[job.name] += 1
            _log.exception("the job %r failed; it runs again later", job.name)
