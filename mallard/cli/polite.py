"""Gives way to a server on the same machine: what reads beside it must not slow ingestion."""

from __future__ import annotations

import contextlib
import os

NICENESS = 10  # of 19: where a server wants a core too, it gets about nine tenths of it


def give_way() -> None:
    """Lower the priority of this process, for good; does nothing where a system has none.

    Linux with autogroups compares it within a session, and shares evenly between them (sched(7)).

    Never of a single thread of a server: one that waits for a core while it holds Python's
    interpreter would keep all others waiting.
    """
    if hasattr(os, "nice"):
        os.nice(NICENESS)


def take_what_is_left() -> None:
    """Give way so far that this process runs only where nobody else wants the core.

    A server's thread that wakes up then has it at once. From a process that is merely nice it often
    has to wait for the end of a turn, which is some milliseconds: beside two that never rest, 1 in
    100 waits of a thread was 8 ms longer than beside none, and 3 ms with this. Not for what has to
    end at some time, such as a backup: while all cores are busy this all but stands still.
    """
    give_way()
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):  # in some sandboxes nobody may
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
