"""Sums are added up in bounded memory, however many groups they have, and come to the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from mallard.config import QueryConfig
from mallard.query import running_sums
from mallard.query.dimensions import Dimension
from mallard.query.engine import Engine, Session
from mallard.query.metrics import Level
from mallard.query.running_sums import RunningSums, folded, read
from mallard.query.sql import Sql
from mallard.query.sums import Grouping, encoded, unpacked

QUESTION = Grouping("example.com", (Dimension.PAGE, Dimension.CITY), level=Level.COUNTS)
COUNTS = [each.value for each in QUESTION.quantities]
KIB = 1024
ROWS = 1_000


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(QueryConfig(workers=1, threads=1), tmp_path)
    yield made
    made.close()


def sums(first: int, rows: int = ROWS) -> pa.Table:
    """Return sums of so many groups; their numbers and texts say which."""
    numbers = range(first, first + rows)
    return pa.table(
        {
            "bucket": pa.array([0] * rows, pa.int32()),
            "by_page": [f"/{number}" for number in numbers],
            "by_city": [f"city {number % 7}" for number in numbers],
            "currency": pa.nulls(rows, pa.string()),
            **{name: pa.array(numbers, pa.int64()) for name in COUNTS},
        }
    )


def test_what_is_held_at_any_time_does_not_grow_with_the_number_of_groups(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_sums, "HELD_BYTES", 200 * KIB)
    held: list[int] = []

    def arriving() -> Iterator[pa.Table]:
        for number in range(200):
            yield sums(number * ROWS)
            held.append(pa.total_allocated_bytes())

    def work(session: Session) -> tuple[int, list[tuple[int, int]]]:
        before = pa.total_allocated_bytes()
        running = RunningSums(session, QUESTION)
        running.add(arriving())
        found = running.result()
        assert running.are_large
        told = session.rows(Sql(f"SELECT count(*), sum(visitors)::BIGINT FROM {found}"))
        return before, told

    before, told = engine.submit(work).result(60)
    assert told == [(200 * ROWS, sum(range(200 * ROWS)))]
    # All of them take 20 MB. To add some up takes a few times as much as they do.
    assert max(held) - before < 5 * 200 * KIB


def test_groups_that_come_again_and_again_stay_in_one_table(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_sums, "HELD_BYTES", 400 * KIB)

    def work(session: Session) -> pa.Table | Sql:
        running = RunningSums(session, QUESTION)
        running.add(sums(0) for _ in range(50))
        return running.result()

    found = engine.submit(work).result(60)
    assert isinstance(found, pa.Table)
    assert sorted(found["visitors"].to_pylist()) == [50 * number for number in range(ROWS)]


@pytest.mark.parametrize("form", [lambda table: table, encoded])
def test_tables_that_were_put_into_the_database_and_made_there_add_up_to_the_same(
    form: Callable[[pa.Table], pa.Table], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [sums(0, 30), sums(20, 30), sums(40, 30)]
    ((whole, rows),) = folded(QUESTION, [*tables, sums(45, 10)])
    assert rows == 100
    monkeypatch.setattr(running_sums, "HELD_BYTES", 1)

    def work(session: Session) -> pa.Table:
        running = RunningSums(session, QUESTION)
        running.add_query(Sql(f"FROM {session.take(sums(45, 10))}"))
        running.add(map(form, tables))
        return session.table(Sql(f"FROM {running.result()}"))

    found = engine.submit(work).result(60)
    order = [("by_page", "ascending")]
    assert found.sort_by(order).to_pylist() == unpacked(whole).sort_by(order).to_pylist()


@pytest.mark.parametrize("rows", [30_000, 500_000])
def test_of_a_large_result_what_is_too_large_to_be_held_stays_in_the_database(
    rows: int, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_sums, "HELD_BYTES", 1024 * KIB)

    def work(session: Session) -> list[bool]:
        query = Sql(f"""
            SELECT least(range // 1_000, 2) AS number, '/' || range AS page, range AS events
            FROM range({rows})""")
        are_held = []
        for number, found in enumerate(read(session, query, rows, "number", range(4), 1024 * KIB)):
            are_held.append(isinstance(found, pa.Table))
            sums = session.take(found) if isinstance(found, pa.Table) else Sql(f"({found})")
            counted = session.rows(Sql(f"SELECT count(*), min(page), max(events) FROM {sums}"))
            last = (rows - 2_000, "/10000", rows - 1)
            expected = [(1_000, "/0", 999), (1_000, "/1000", 1_999), last, (0, None, None)]
            assert counted == [expected[number]]
        return are_held

    assert engine.submit(work).result(60) == [True, True, rows == 30_000, True]
