"""Reports as tables, a page after the other: what a server and the command export of one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pyarrow as pa

from mallard.errors import InvalidInput, QueryTooLarge
from mallard.event import Frame
from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.events import Folder
from mallard.query.forms import Form, Sink, write
from mallard.query.plausible import names
from mallard.query.plausible.answering import answer
from mallard.query.plausible.compact import full_name
from mallard.query.plausible.filtering import Context
from mallard.query.plausible.reading import LIMIT_MAX, read_query
from mallard.query.sql import Sql
from mallard.query.tail import Tail
from mallard.store.part import Derived, Part
from mallard.store.snapshot import Snapshot

# What all dimensions have. A rate that does not exist is null.
METRICS = ("visitors", "visits", "pageviews", "events", "bounce_rate", "visit_duration")
_TYPES = (pa.int64(), pa.int64(), pa.int64(), pa.int64(), pa.float64(), pa.float64())
_CACHE_BYTES = 32 * 2**20  # a report of many pages asks for the same sums again and again
# What they are called where they are not called by their dimension.
_REPORTS = {"timeseries": "time:day", "goals": names.GOAL}


def dimension_of(what: str) -> str:
    """Return the dimension that a report is by, in words of Stats API v2; raises InvalidInput."""
    dimension = _REPORTS.get(what) or full_name(what)
    if dimension not in {*names.TIMES, names.GOAL} and names.dimension(dimension) is None:
        raise InvalidInput(
            f"what {what!r} is unknown.",
            field="what",
            rule="events, sessions, timeseries, goals, or a dimension such as page",
        )
    return dimension


@dataclass(frozen=True, slots=True)
class Report:
    """A row for each value of a dimension, or for each interval of a time's.

    dimension and date_range are in words of Stats API v2.
    """

    site_id: str
    dimension: str
    date_range: object


def write_report(
    session: Session,
    answers: Answers,
    context: Context,
    wanted: Report,
    form: Form,
    sink: Sink,
    rows_max: int | None = None,
) -> int:
    """Write a report as its pages are made, and return how many rows it has.

    rows_max: with more, QueryTooLarge is raised. Raises InvalidInput for what is no report.
    """

    def queries() -> Iterator[Sql]:
        for page in _pages(session, answers, context, wanted, rows_max):
            taken = session.take(page)
            yield Sql(f"FROM {taken}")
            session.let_go(taken)

    return write(session.cursor, queries(), form, sink)


def _pages(
    session: Session, answers: Answers, context: Context, wanted: Report, rows_max: int | None
) -> Iterator[pa.Table]:
    dimension = wanted.dimension
    is_series = dimension in names.TIMES  # which has no pages
    for number in itertools.count():
        document = {
            "site_id": wanted.site_id,
            "metrics": list(METRICS),
            "date_range": wanted.date_range,
            "dimensions": [dimension],
            "pagination": {"limit": LIMIT_MAX, "offset": LIMIT_MAX * number},
            "include": {"total_rows": True},
        }
        asked = replace(read_query(document, context), every_interval=is_series)
        found = answer(session, answers, asked, context.goals)
        if rows_max is not None and found["meta"]["total_rows"] > rows_max:
            raise QueryTooLarge(
                f"The report has {found['meta']['total_rows']:,} rows, which is more than "
                f"{rows_max:,}; ask for less of time, or /api/v2/query for pages of it."
            )
        yield _table(dimension, found["results"])
        if is_series or len(found["results"]) < LIMIT_MAX:
            return


def _table(dimension: str, results: list[dict[str, Any]]) -> pa.Table:
    values = [None if each is None else str(each) for each in (r["dimensions"][0] for r in results)]
    columns = {dimension.partition(":")[2].replace(":", "_"): pa.array(values, pa.string())}
    for number, (metric, kind) in enumerate(zip(METRICS, _TYPES, strict=True)):
        columns[metric] = pa.array([each["metrics"][number] for each in results], kind)
    return pa.table(columns)


@contextmanager
def asking(
    folder: Folder, connection: duckdb.DuckDBPyConnection
) -> Iterator[tuple[Session, Answers]]:
    """Give what answers from a data folder as it was at one instant.

    Its files are there for half a minute after a server has put others in their place.
    """
    still = _Still(folder)
    session = Session(connection.cursor(), itertools.count())
    try:
        yield session, Answers(still, Tail(still), _CACHE_BYTES)
    finally:
        session.close()


class _Still:
    """Stands for a store and for a buffer that nobody writes to."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def snapshot(self) -> Snapshot:
        return self._folder.snapshot

    @contextmanager
    def reading(self) -> Iterator[Snapshot]:
        yield self._folder.snapshot

    def source(self, file: Part | Derived) -> str:
        return self._folder.source(file)

    def tail(self) -> tuple[Frame, ...]:
        return tuple(self._folder.tail)
