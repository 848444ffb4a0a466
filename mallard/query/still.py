"""What is stored of one site at one instant, for answers in another process or beside a server."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from mallard.query.answers import Answers, Count, Q
from mallard.query.engine import Session
from mallard.query.period import Slice
from mallard.query.sql import Sql
from mallard.query.tail import Tail, TailView, view_of_rows
from mallard.store.part import Derived, Part
from mallard.store.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Still:
    """It can be sent to another process, as long as there are its files.

    of: the snapshot of the site's files. sources: where each is, by its location. fresh: the site's
    events that are not in parts, of `ARROW_SCHEMA`.
    """

    of: Snapshot
    sources: Mapping[str, str]
    fresh: pa.Table

    def snapshot(self) -> Snapshot:
        """Return what there is."""
        return self.of

    @contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """Give what there is; whoever made this keeps the files."""
        yield self.of

    def source(self, file: Part | Derived) -> str:
        """Return where a query engine reads a file."""
        return self.sources[file.location]

    def answers(self) -> Answers:
        """Return what answers from it."""
        return _Remembering(self, _Fixed(self.fresh), 0)


def still(
    tail: TailView, snapshot: Snapshot, site_id: str, source: Callable[[Part | Derived], str]
) -> Still:
    """Return what a snapshot, and the tail taken before it, have of a site."""
    found = dataclasses.replace(
        snapshot,
        recent=tuple(part for part in snapshot.recent if site_id in part.sites),
        days={key: day for key, day in snapshot.days.items() if key[0] == site_id},
        rollups={key: file for key, file in snapshot.rollups.items() if key[0] == site_id},
        quarantined=(),
    )
    fresh = tail.all_after(snapshot.watermark, {site_id}).combine_chunks()
    return Still(found, {file.location: source(file) for file in found.files}, fresh)


class Paging(Session):
    """A session that gives one page after the other of the same rows: they are ordered once."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        super().__init__(cursor, itertools.count())
        self._ordered: dict[Hashable, Sql] = {}

    def page(
        self, key: Hashable, query: Callable[[], Sql], order: str, limit: int, offset: int
    ) -> list[tuple[Any, ...]]:
        """Return so many rows of a query's, put in an order, after so many others."""
        if key not in self._ordered:
            number = f"row_number() OVER (ORDER BY {order}) AS place_in_order"
            self._ordered[key] = self.made(Sql(f"SELECT *, {number} FROM ({query()})"))
        return self.rows(
            Sql(f"""
            SELECT * EXCLUDE (place_in_order) FROM {self._ordered[key]}
            WHERE place_in_order > {int(offset)} AND place_in_order <= {int(offset + limit)}
            ORDER BY place_in_order""")
        )


class _Fixed(Tail):
    """A tail that nothing is added to."""

    def __init__(self, rows: pa.Table) -> None:
        self._view = dataclasses.replace(view_of_rows(rows), seen_at=math.inf)

    @property
    def last_position(self) -> int:
        return self._view.last_position

    def view(self) -> TailView:
        return self._view


class _Remembering(Answers):
    """Adds nothing up twice for a session, however many pages of a report are made of it.

    What is too large for Python's memory lies in the session's database, which spills it to disk.
    """

    def __init__(self, store: Still, tail: Tail, cache_bytes: int) -> None:
        super().__init__(store, tail, cache_bytes)
        self._found: dict[Hashable, pa.Table | Sql] = {}

    def added(
        self, session: Session, question: Q, pieces: Sequence[Slice], count: Count[Q]
    ) -> pa.Table | Sql:
        key = question, tuple(pieces)
        if key not in self._found:
            self._found[key] = super().added(session, question, pieces, count)
        return self._found[key]
