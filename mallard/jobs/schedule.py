"""What happens now and then: a table of jobs, and the thread that runs them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import duckdb

from mallard.clock import Clock
from mallard.errors import StorageError
from mallard.telemetry import Telemetry

INTERRUPT_SECONDS = 0.05
# What a full or failing disk makes of a job. Anything else is a mistake of ours.
_DISK = (StorageError, OSError, duckdb.IOException, duckdb.OutOfMemoryException)

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
        self._failing: dict[str, str] = {}  # by job, what was said of its last run
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
        except Exception as error:  # noqa: BLE001 - the top of a thread; the other jobs go on
            self._telemetry.failures[job.name] += 1
            self._say(job, error)
        else:
            if self._failing.pop(job.name, None) is not None:
                _log.warning("the job %r works again", job.name)

    def _say(self, job: Job, error: Exception) -> None:
        """Log why a run failed: the disk's reasons in a line, and once while they are the same."""
        if not isinstance(error, _DISK):
            _log.error("the job %r failed; it runs again later", job.name, exc_info=error)
        elif self._failing.get(job.name) != str(error):
            _log.error("the job %r failed and runs again later: %s", job.name, error)
        self._failing[job.name] = str(error)
