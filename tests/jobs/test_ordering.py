from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from mallard.config import StoreConfig
from mallard.event import ARROW_SCHEMA
from mallard.jobs import ordering
from mallard.jobs.database import connect
from mallard.query.events import rows_of
from mallard.query.sessions import annotated
from mallard.query.sql import Sql
from tests.factories import NOON_US, make_event
from tests.stored import A, Stored


def test_a_run_is_joined_with_its_places_in_memory_and_not_with_the_events_of_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Stored(tmp_path / "data")
    stored.publish([make_event(site_id=A, timestamp=NOON_US + each) for each in range(3_000)])
    (part,) = stored.store.snapshot().parts
    plans: list[dict[str, Any]] = []

    def explained(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.Table]:
        ((_, text),) = connection.execute(f"EXPLAIN (FORMAT json) {query}").fetchall()
        plans.extend(json.loads(text))
        return tables(connection, query)

    tables = ordering.tables
    monkeypatch.setattr(ordering, "tables", explained)
    with duckdb.connect() as connection:
        connection.execute("SET VARIABLE rows_bytes = 1_000_000")
        events = rows_of([stored.store.source(part)])
        found = list(ordering.merged_rows(connection, events))
    stored.close()
    assert sum(table.num_rows for table in found) == 3_000
    assert len(plans) > 1, "one for each run"
    for plan in plans:
        (join,) = (node for node in nodes(plan) if "JOIN" in node["name"])
        kept = [str(node["extra_info"]) for node in nodes(join["children"][1])]
        assert any("places" in info for info in kept)


def test_a_site_day_of_any_size_is_ordered_in_little_memory(tmp_path: Path) -> None:
    rows, limit_bytes = 200_000, 24 * 2**20
    told = {
        "site_id": "'site'",
        "timestamp": f"make_timestamp({NOON_US} + (hash(range) % 40_000_000)::BIGINT * 1000)",
        "position": "range",
        "visitor_id": "(hash(range // 3) >> 1)::BIGINT",
        "event_type": "'page'",
        "event_name": "'pageview'",
        "pathname": "'/' || range % 1000",
    }
    columns = ", ".join(f"{told.get(name, 'NULL')} AS {name}" for name in ARROW_SCHEMA.names)
    events = Sql(f"SELECT {columns} FROM range({rows})")
    with connect(StoreConfig(), tmp_path) as connection:
        connection.execute(f"SET memory_limit = '{limit_bytes}B'")
        connection.execute(f"SET VARIABLE rows_bytes = {limit_bytes // 3}")
        first = ordering.annotated_rows(connection, events)
        next(first)
        del first  # the other runs would each make all events anew
        found = connection.execute("SELECT count(*), count(DISTINCT position) FROM places")
        assert found.fetchall() == [(rows, rows)]


@pytest.mark.parametrize("rows", [1_000_000, 12_000_000, 50_000_000])
def test_a_share_of_visitors_is_as_large_however_many_events_a_day_has(rows: int) -> None:
    with duckdb.connect() as connection:
        connection.execute("SET VARIABLE rows_bytes = 20_000_000")
        shares = ordering.visitor_shares(connection, Sql(f"FROM range({rows})"))
    of_each = rows / len(shares) * ordering.MARKED_BYTES
    assert 15_000_000 < of_each <= 20_000_000


def test_events_of_a_large_day_are_read_once_to_be_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Stored(tmp_path / "data")
    stored.publish([make_event(site_id=A, timestamp=NOON_US + each) for each in range(50)])
    (part,) = stored.store.snapshot().parts
    asked: list[Sql] = []

    def told(events: Sql) -> Sql:
        asked.append(events)
        return annotated(events)

    monkeypatch.setattr(ordering, "annotated", told)
    for rows_bytes, shares in ((10**9, 1), (10 * ordering.MARKED_BYTES, 6)):
        asked.clear()
        with duckdb.connect(config={"temp_directory": str(tmp_path)}) as connection:
            connection.execute(f"SET VARIABLE rows_bytes = {rows_bytes}")
            next(ordering.annotated_rows(connection, rows_of([stored.store.source(part)])))
        assert len(asked) == shares
        assert ["read_parquet" in each for each in asked] == [shares == 1] * shares
    stored.close()


@pytest.mark.parametrize("level", [0, 1])
def test_places_that_are_sorted_share_by_share_are_those_of_one_sort(
    level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 6_000
    made: list[str] = []
    make = ordering._make

    def counted(connection: duckdb.DuckDBPyConnection, name: str, *more: Any, **how: Any) -> None:
        made.append(name)
        make(connection, name, *more, **how)

    told = {
        "site_id": "'site ' || hash(range * 5) % 3",
        "timestamp": f"make_timestamp({NOON_US} + (hash(range) % 40_000)::BIGINT * 1_000_000)",
        "position": "range",
        "visitor_id": "(hash(range // 3) >> 1)::BIGINT",
        "event_type": "'page'",
        "event_name": "'name ' || hash(range * 7) % 4",
    }
    columns = ", ".join(f"{told.get(name, 'NULL')} AS {name}" for name in ARROW_SCHEMA.names)
    events = Sql(f"SELECT {columns} FROM range({rows})")
    monkeypatch.setattr(ordering, "_make", counted)
    orders: list[list[tuple[int]]] = []
    for rows_bytes in (10**9, rows * ordering.PLACED_BYTES // 4):
        made.clear()
        with duckdb.connect(config={"temp_directory": ""}) as connection:
            connection.execute(f"SET VARIABLE rows_bytes = {rows_bytes}")
            if level:
                next(ordering.annotated_rows(connection, events))
            else:
                next(ordering.merged_rows(connection, events))
            found = connection.execute("SELECT position FROM places ORDER BY rowid").fetchall()
        assert made.count("places") == (1 if rows_bytes == 10**9 else 5)
        orders.append(found)
    assert orders[0] == orders[1]
    assert len(orders[0]) == rows


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan["children"]:
        yield from nodes(child)
