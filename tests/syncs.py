"""Syncs as the kernel makes them beside the event loop, wherever the tests run."""

from __future__ import annotations

import os
import weakref

from mallard.uring import Syncs


class StandIn(Syncs):
    """Syncs at once; is over at once too, or when the test says so."""

    def __init__(self) -> None:
        self.at_once = True
        self.under_way = False
        self.descriptor, self._over = os.pipe()
        for descriptor in (self.descriptor, self._over):
            weakref.finalize(self, os.close, descriptor)

    def begin(self, descriptor: int) -> None:
        os.fdatasync(descriptor)
        self.under_way = True
        if self.at_once:
            self.let_end()

    def let_end(self) -> None:
        os.write(self._over, b".")

    def end(self) -> None:
        os.read(self.descriptor, 1)
        self.under_way = False
