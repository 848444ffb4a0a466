from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.event import ARROW_SCHEMA, Event, Frame, to_table
from mallard.store.part import encode_recent, split_by_date, to_parquet
from tests.factories import NOON_US, make_event
from tests.sql import ask
from tests.strategies import EVENTS


def test_rows_are_split_at_midnight_utc_to_the_microsecond() -> None:
    midnight = NOON_US - NOON_US % DAY_US + DAY_US
    instants = [midnight, midnight - 1, midnight + DAY_US, 0]
    table = to_table([Frame(1, 1, 0, tuple(make_event(timestamp=t) for t in instants))])
    split = [rows["position"].to_pylist() for rows in split_by_date(table)]
    assert split == [[4], [2], [1], [3]]
    assert split_by_date(table.slice(0, 0)) == []


def test_a_part_is_sorted_by_site_and_time_and_says_what_it_holds() -> None:
    events = (
        make_event(site_id="b", timestamp=NOON_US),
        make_event(site_id="a", timestamp=NOON_US + 5),
        make_event(site_id="a", timestamp=NOON_US + 1),
    )
    part, content = encode_recent(to_table([Frame(2**62, 99, 3, events)]))
    rows = pq.read_table(pa.BufferReader(content))
    assert rows["site_id"].to_pylist() == ["a", "a", "b"]
    assert rows["position"].to_pylist() == [2**62 + 2, 2**62 + 1, 2**62]
    assert part.location == f"recent/2024-05-01_{2**62:020d}-{2**62 + 2:020d}.parquet"
    assert (part.level, part.date, part.sites, part.rows) == (0, "2024-05-01", ("a", "b"), 3)
    assert (part.first_timestamp, part.last_timestamp) == (NOON_US, NOON_US + 5)
    assert part.position_sum == 3 * 2**62 + 3  # more than 64 bits hold
    assert part.last_loaded_at == 99
    assert part.size_bytes == len(content)
    assert part.digest == sha256(content).hexdigest()


@given(st.lists(EVENTS, min_size=1, max_size=8), st.sets(st.sampled_from(Event._fields[8:47])))
def test_a_part_holds_every_value_of_its_rows_whichever_columns_say_nothing(
    events: list[Event], silent: set[str]
) -> None:
    nothing: dict[str, Any] = dict.fromkeys(silent)
    events = [event._replace(**nothing) for event in events]
    for rows in split_by_date(to_table([Frame(7, 99, 3, events)])):
        _, content = encode_recent(rows)
        found = pq.read_table(pa.BufferReader(content))
        assert found.schema.equals(ARROW_SCHEMA)
        expected = sorted(
            rows.to_pylist(), key=lambda row: (row["site_id"], row["timestamp"], row["position"])
        )
        assert found.to_pylist() == expected


def test_the_same_rows_make_the_same_bytes() -> None:
    table = to_table([Frame(1, 99, 3, (make_event(), make_event(props='{"a": 1}')))])
    assert encode_recent(table) == encode_recent(table)


def test_types_are_as_designed_for_pyarrow_and_for_duckdb(tmp_path: Path) -> None:
    event = make_event(visitor_id=-(2**63), revenue_amount=Decimal("10.10"), screen_width=1920)
    path = tmp_path / "part.parquet"
    path.write_bytes(to_parquet(to_table([Frame(1, NOON_US, 3, (event,))])))
    assert pq.read_schema(path).equals(ARROW_SCHEMA)
    assert pq.read_schema(path).metadata[b"mallard.schema_version"] == b"1"
    rows = ask("SELECT column_name, column_type FROM (DESCRIBE FROM read_parquet($1))", [str(path)])
    types = dict(rows)
    for name in ("timestamp", "loaded_at", "received_at", "sent_at"):
        assert types[name] == "TIMESTAMP"
    assert types["visitor_id"] == "BIGINT"
    assert types["revenue_amount"] == "DECIMAL(12,2)"
    assert types["interactive"] == "BOOLEAN"
    assert types["props"] == "VARCHAR"
    noon = datetime.fromtimestamp(NOON_US / 1e6, UTC).replace(tzinfo=None)
    query = "SELECT visitor_id, revenue_amount, timestamp FROM read_parquet($1)"
    assert ask(query, [str(path)]) == [(-(2**63), Decimal("10.10"), noon)]
