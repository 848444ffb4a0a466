"""A folder with everything that can hold a person's events, and the job that erases them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.config import ErasureConfig, StoreConfig
from mallard.event import Event
from mallard.files import Files
from mallard.jobs.compaction import Compactor
from mallard.jobs.erasure import Erasure
from mallard.jobs.rollup import Rollups
from mallard.query.rules import Condition, Definition, about
from tests.factories import NOON_US, make_event
from tests.rooms import Rooms
from tests.waiting import until

# What marks the subject, wherever it is written.
MARK = "zqxsubject"
KEPT = "zqxother"
WORK = StoreConfig(close_after_seconds=0.0, late_merge_seconds=0.0)
MINUTE_US = 60_000_000


def of_subject(day: int = 0, **values: Any) -> Event:
    """A pageview whose every text says whose it is."""
    return make_event(
        **{
            "timestamp": NOON_US + day * DAY_US,
            "visitor_id": 7,
            "user_id": MARK,
            "url": f"https://example.com/{MARK}",
            "pathname": f"/{MARK}",
            "props": f'{{"name": "{MARK}"}}',
            **values,
        }
    )


def of_other(day: int = 0, **values: Any) -> Event:
    """A pageview of somebody else, one minute later."""
    at = NOON_US + day * DAY_US + MINUTE_US
    return make_event(**{"timestamp": at, "user_id": KEPT, "pathname": f"/{KEPT}", **values})


def user(user_id: str = MARK) -> Definition:
    """The rule that drops a user's events."""
    return Definition(conditions=(about("user", user_id),))


class ErasingRooms(Rooms):
    """Rooms with the erasure, which nothing runs by itself."""

    def __init__(self, data: Path, files: Files | None = None, **settings: Any) -> None:
        super().__init__(data, files=files, **settings)
        self.erasure = Erasure(
            ErasureConfig(grace_seconds=0.0),
            WORK,
            data,
            self.files,
            self.store,
            self.buffer,
            self.flusher,
            self.clock,
        )

    def settle(self) -> None:
        """Compact every date, and keep the sums of every month."""
        rooms = (WORK, self.store, self.data, lambda: 2**40, self.clock, self.telemetry)
        Compactor(*rooms).run()
        Rollups(*rooms).run()

    def fill(self) -> None:
        """Put the subject and somebody else into files of every kind, and into the log."""
        for day in (0, 1):
            self.append(of_subject(day), of_other(day))
            self.append(of_subject(day, timestamp=NOON_US + day * DAY_US + 2 * MINUTE_US))
        self.flusher.flush()
        self.settle()
        self.append(of_subject(2), of_other(2))
        self.flusher.flush()
        self.append(of_subject(2), of_other(2, event_name="in the log"))

    def finish(self, rule_id: str) -> dict[str, Any]:
        """Run the job until a rule is over; return its receipt."""

        def look() -> dict[str, Any] | None:
            self.erasure.run()
            receipts = {receipt["rule"]: receipt for receipt in self.erasure.receipts()}
            found = receipts.get(rule_id)
            return found if found and found["completed_at"] else None

        return until(look, f"the rule {rule_id} is over: {self.erasure.status()}")


def holders(folder: Path, mark: str = MARK) -> set[str]:
    """Return the files below a folder in which a text can be read, the first folder of each."""
    return {
        name.split("/")[0]
        for name, content in _contents(folder)
        if mark.encode().lower() in content.lower()
    }


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        yield name, name.encode()
        if not path.is_file():
            continue
        yield name, path.read_bytes()
        if path.suffix == ".parquet" and path.parent.name != "quarantine":
            with pq.ParquetFile(path) as file:
                yield name, repr(file.read(use_threads=False).to_pylist()).encode()
        elif path.suffix == ".db":
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
                yield name, "\n".join(database.iterdump()).encode()


def said(values: Sequence[str], column: str = "user_id", operator: str = "is") -> Definition:
    """The rule that drops what has these values in a column."""
    return Definition(conditions=(Condition(column, operator, tuple(values)),))
