"""Runs maintenance of a store once for disk operations in it, which fail or are the last one.

A folder is built once; then for each operation a copy of it is opened, the maintenance is run until
that operation, and what is left is opened again, as the next start does.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from mallard.errors import MallardError
from mallard.files import Files
from mallard.jobs.verify import verify
from tests.beside import looking_at
from tests.faults import Crash, Fault, FaultyFiles, sample
from tests.stored import Stored

Maintain = Callable[[Stored], None]


@dataclass(frozen=True)
class Aftermath:
    """A folder after an operation failed. where: which one and how, for a test's message."""

    data: Path
    where: str


def at_every_step(
    folder: Path,
    fault: Fault,
    build: Maintain,
    maintain: Maintain,
    *,
    day: int,
    every: int,
) -> Iterator[Aftermath]:
    """Yield what is left of each run of `maintain`, which fails at another operation each time.

    folder: an empty one. build: fills a store. day: when it is maintained, from 2024-05-01. Where
    the fault is an error, the same process then tries again, and has to succeed. every: 1 for each
    operation, otherwise for each so-manieth of a kind.
    """
    built = folder / "built"
    built.mkdir()
    stored = Stored(built, day=day)
    build(stored)
    stored.close()
    shutil.copytree(built, folder / "whole")
    counting = FaultyFiles(0, fault)
    stored = Stored(folder / "whole", counting, day)
    opened = counting.steps
    maintain(stored)
    kinds = counting.kinds[opened:]
    stored.close()
    for step in sample(kinds, fault, every):
        data = folder / f"{step}"
        shutil.copytree(built, data)
        files = FaultyFiles(0, fault)
        with contextlib.suppress(Crash):
            _run(Stored(data, files, day), files, step, maintain)
        assert files.step_name == kinds[step - 1], "the steps are others each time"
        yield Aftermath(data, f"{fault.name} at step {step}, {files.step_name}")
        shutil.rmtree(data)


def events_in(data: Path) -> Counter[int]:
    """Count the positions that a reader beside the server finds in a folder."""
    with looking_at(data) as connection:
        rows = connection.execute("SELECT position FROM events").fetchall()
    return Counter(position for (position,) in rows)


def assert_is_sound(after: Aftermath, events: int) -> None:
    """Raise AssertionError unless events 1 to so many are there once, and every file is whole."""
    assert events_in(after.data) == Counter(range(1, events + 1)), after.where
    found = verify(after.data, Files())
    assert found.problems == [], after.where


def _run(stored: Stored, files: FaultyFiles, step: int, maintain: Maintain) -> None:
    try:
        files.fail_from_here(step)
        with contextlib.suppress(MallardError, OSError, sqlite3.Error, duckdb.Error):
            maintain(stored)
        if files.step_name and not files.crashed:
            maintain(stored)  # the disk works again
    finally:
        stored.close()
