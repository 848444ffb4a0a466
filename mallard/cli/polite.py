"""Gives way to a server on the same machine: what reads beside it must not slow ingestion."""

from __future__ import annotations

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
