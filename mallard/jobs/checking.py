"""Looks for a damaged file once questions could not be answered, so that the next ones can be.

A part that is not what was written is set aside, and what can be made again is dropped; the store
says so. Invariant: everything is read at most once in REST_SECONDS, whatever fails.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from mallard.clock import Clock
from mallard.errors import CorruptData
from mallard.store.store import Store

REST_SECONDS = 600.0

_log = logging.getLogger(__name__)


class Checking:
    """The job; one thread runs it."""

    def __init__(self, store: Store, failures: Callable[[], int], clock: Clock) -> None:
        """failures: how many questions could not be answered so far."""
        self._store = store
        self._failures = failures
        self._clock = clock
        self._seen = 0
        self._next = clock.monotonic()
        self._stopping = False

    def interrupt(self) -> None:
        """Have a look that is under way end early."""
        self._stopping = True

    def run(self) -> None:
        """Read every live file, if a question failed since the last look."""
        failures = self._failures()
        if failures == self._seen or self._clock.monotonic() < self._next:
            return
        self._seen = failures
        _log.warning("a question could not be answered; every stored file is looked at")
        with self._store.reading() as snapshot:
            for file in snapshot.files:
                if self._stopping:
                    return
                with contextlib.suppress(CorruptData):
                    self._store.check(file)
        self._next = self._clock.monotonic() + REST_SECONDS
