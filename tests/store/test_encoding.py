from __future__ import annotations

import subprocess
from datetime import date
from decimal import Decimal
from hashlib import shake_128
from pathlib import Path

import duckdb
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mallard.cli.benchmark.history import History
from mallard.config import StoreConfig
from mallard.event import ARROW_SCHEMA, SCHEMA_VERSION, Frame, to_table
from mallard.files import Files
from mallard.jobs.database import connect
from mallard.jobs.ordering import annotated_rows
from mallard.query.events import rows_of
from mallard.query.sql import Sql
from mallard.store.encoding import (
    LEVEL_1_ROW_GROUP_ROWS,
    PART_SCHEMA,
    condensed,
    file_schema,
    writer_options,
)
from mallard.store.writer import DICTIONARY_BYTES, FileWriter
from tests.factories import make_event
from tests.stored import A, B, Stored

DAY = date(2026, 3, 2)
INSTANTS = ["timestamp", "sent_at", "received_at", "loaded_at"]


def write(rows: pa.Table, path: Path, *, whole_ms: bool = True) -> None:
    folder = path.parent
    form = (file_schema(whole_ms), writer_options(1), LEVEL_1_ROW_GROUP_ROWS)
    with FileWriter(Files(), folder, form) as writer:
        writer.write(condensed(rows))
        writer.finish(path)


def sorted_day(events: int) -> pa.Table:
    made = History(sites=1, events=events, first_day=DAY, others_between=9).day(DAY)
    with connect(StoreConfig(memory_bytes=2**30), None) as connection:
        connection.register("made", made)
        rows = [table for _, table in annotated_rows(connection, Sql("FROM made"))]
    return pa.concat_tables(rows).select(PART_SCHEMA.names).cast(PART_SCHEMA)


@pytest.fixture(scope="module")
def day() -> pa.Table:
    return sorted_day(3_000)


def test_what_is_left_out_is_read_again(day: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(day, path)
    with duckdb.connect() as connection:
        read = connection.sql(rows_of([str(path)])).to_arrow_table().cast(ARROW_SCHEMA)
    assert read.equals(day.select(ARROW_SCHEMA.names))
    stored = pq.read_table(path)
    assert pc.unique(stored["url"]).to_pylist() == ["https://site-0.example"]
    assert stored["loaded_at"].null_count > 0.9 * day.num_rows


def test_an_event_that_came_late_was_stored_when_it_was_received(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    late = make_event()
    received_us = late.timestamp + 86_400_000_000
    rows = to_table([Frame(1, received_us, 1, [late._replace(received_at=received_us)])])
    write(rows.append_column("visit", pa.nulls(1, pa.int16())), path)
    assert pq.read_table(path)["loaded_at"].null_count == 1
    with duckdb.connect() as connection:
        read = connection.sql(rows_of([str(path)])).to_arrow_table().cast(ARROW_SCHEMA)
    assert read.equals(rows)


@pytest.mark.parametrize(
    ("url", "pathname", "stored"),
    [
        ("https://www.example.com/a/b", "/a/b", "https://www.example.com"),
        ("http://example.com/", "/", "http://example.com"),
        ("https://example.com/%C3%A9", "/é", "https://example.com/%C3%A9"),
        ("https://example.com/a", "/b/a", "https://example.com/a"),
        ("//example.com/a", "/a", "//example.com/a"),
        ("/a", "/a", "/a"),
        ("app://screen/a", "/a", "app://screen/a"),
        ("https://example.com/a", None, "https://example.com/a"),
        ("https://example.com", None, "https://example.com"),
        ("https://example.com/a\n/b", "/b", "https://example.com/a\n/b"),
        (None, "/a", None),
        (None, None, None),
    ],
)
def test_an_url_is_cut_only_where_its_path_says_the_rest(
    url: str | None, pathname: str | None, stored: str | None, tmp_path: Path
) -> None:
    event = make_event(url=url, pathname=pathname)
    rows = to_table([Frame(1, 1, 1, [event])])
    rows = rows.append_column("visit", pa.nulls(1, pa.int16()))
    write(rows, tmp_path / "a.parquet", whole_ms=False)
    assert pq.read_table(tmp_path / "a.parquet")["url"].to_pylist() == [stored]
    with duckdb.connect() as connection:
        (read,) = connection.sql(rows_of([str(tmp_path / "a.parquet")])).to_arrow_table()["url"]
    assert read.as_py() == url


def test_instants_that_are_no_whole_milliseconds_are_kept_and_read_beside_others(
    day: pa.Table, tmp_path: Path
) -> None:
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    write(day, paths[0])
    at = day.schema.get_field_index("timestamp")
    finer = pc.add(day["timestamp"], pa.scalar(1, pa.duration("us")))
    write(day.set_column(at, PART_SCHEMA.field(at), finer), paths[1], whole_ms=False)
    with duckdb.connect() as connection:
        for order in (paths, paths[::-1]):
            query = rows_of([str(path) for path in order])
            read = connection.sql(f"SELECT timestamp FROM ({query})").to_arrow_table()["timestamp"]
            expected = (
                [finer, day["timestamp"]] if order[0] == paths[1] else [day["timestamp"], finer]
            )
            assert read.to_pylist() == [value for some in expected for value in some.to_pylist()]


def test_every_reader_finds_the_types_and_the_version(day: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(day, path)
    query = (
        f"SELECT count(*), sum(revenue_amount), max(timestamp), sum(position), "
        f"sum(engaged_ms), count(DISTINCT pathname), count(url) FROM '{path}'"
    )
    amount = pc.sum(day["revenue_amount"]).as_py()
    with duckdb.connect() as connection:
        expected = connection.execute(query).fetchone()
        types = {row[0]: row[1] for row in connection.execute(f"DESCRIBE FROM '{path}'").fetchall()}
    assert expected is not None
    assert expected[:3] == (day.num_rows, amount, pc.max(day["timestamp"]).as_py())
    assert types["revenue_amount"] == "DECIMAL(12,2)"
    assert {types[name] for name in INSTANTS} == {"TIMESTAMP"}

    program = Path(__file__).parents[2] / ".venv" / "bin" / "duckdb"
    if program.exists():
        told = subprocess.run(
            [program, "-csv", "-noheader", "-c", query], capture_output=True, text=True, check=True
        ).stdout.strip()
        assert told.split(",")[:2] == [str(day.num_rows), str(amount)]
        assert told.split(",")[3:] == [str(value) for value in expected[3:]]

    arrow = pq.read_table(path)
    assert arrow.schema.field("revenue_amount").type == pa.decimal128(12, 2)
    assert arrow.schema.field("timestamp").type == pa.timestamp("ms")
    assert arrow.schema.metadata[b"mallard.schema_version"] == str(SCHEMA_VERSION).encode()

    frame = polars.read_parquet(path)
    assert frame.schema["revenue_amount"] == polars.Decimal(12, 2)
    assert frame.schema["timestamp"] == polars.Datetime("ms")
    assert frame["revenue_amount"].sum() == Decimal(amount)
    assert frame["position"].to_list() == day["position"].to_pylist()
    assert frame["pathname"].to_list() == day["pathname"].to_pylist()


def test_visits_stand_together_and_custom_events_by_name_at_the_end(day: pa.Table) -> None:
    names = day["event_name"].to_pylist()
    common = [name in {"pageview", "engagement"} for name in names]
    first = common.index(False)
    assert not any(common[first:])
    assert names[first:] == sorted(names[first:])
    keys = list(zip(day["visitor_id"].to_pylist(), day["visit"].to_pylist(), strict=True))[:first]
    runs = [key for at, key in enumerate(keys) if at == 0 or key != keys[at - 1]]
    assert len(runs) == len(set(keys))


def test_a_large_site_day_takes_some_fifteen_bytes_an_event(tmp_path: Path) -> None:
    rows = sorted_day(100_000)
    write(rows, tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size / rows.num_rows < 15.5


def test_texts_too_many_for_a_dictionary_are_written_page_by_page(
    day: pa.Table, tmp_path: Path
) -> None:
    rows = pa.concat_tables([day, day])
    texts = [shake_128(str(number).encode()).hexdigest(192) for number in range(rows.num_rows)]
    at = rows.schema.get_field_index("referrer")
    rows = rows.set_column(at, PART_SCHEMA.field(at), pa.array(texts))
    write(rows, tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet")["referrer"].to_pylist() == texts
    column = pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(at)
    assert column.total_uncompressed_size > 2 * DICTIONARY_BYTES
    assert column.data_page_offset - column.dictionary_page_offset < DICTIONARY_BYTES / 2


def test_a_page_of_texts_is_within_the_mebibyte_beyond_which_zstd_takes_twice_the_memory(
    day: pa.Table, tmp_path: Path
) -> None:
    rows = pa.concat_tables([day] * 4)
    texts = [shake_128(str(number).encode()).hexdigest(60) for number in range(rows.num_rows)]
    at = rows.schema.get_field_index("props")
    rows = rows.set_column(at, PART_SCHEMA.field(at), pa.array(texts))
    write(rows, tmp_path / "a.parquet")
    column = pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(at)
    header = (tmp_path / "a.parquet").read_bytes()[column.data_page_offset :]
    # In Thrift's compact protocol: an i32, whether it is a page of data, and the next, its size.
    assert header[0] == header[2] == 0x15
    size = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(header[3:6])) // 2
    assert header[5] < 0x80, "the last byte of the size"
    assert column.total_uncompressed_size > 2**20 > size > 2**20 * 3 // 4


def test_a_small_part_is_mostly_events(tmp_path: Path) -> None:
    write(PART_SCHEMA.empty_table(), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 6_000


def test_polars_reads_what_was_merged_beside_what_was_flushed(tmp_path: Path) -> None:
    stored = Stored(tmp_path)
    for _ in range(3):
        stored.flush(0, A, B)
    flushed = [*stored.store.snapshot().recent]
    with stored.store.merge_writer(flushed[0].date) as writer:
        for part in flushed[:2]:
            writer.write(pq.ParquetFile(stored.store.source(part)).read().cast(ARROW_SCHEMA))
        merged = writer.finish_part()
    schema = pq.read_schema(stored.store.source(merged))
    assert schema.metadata[b"mallard.schema_version"] == str(SCHEMA_VERSION).encode()
    assert schema.field("pathname").type == pa.string()
    paths = [stored.store.source(part) for part in (merged, flushed[2])]
    for order in (paths, paths[::-1], [str(tmp_path / "recent" / "*.parquet")]):
        frame = polars.read_parquet(order)
        assert set(frame["site_id"]) == {A, B}
        assert frame.schema["pathname"] == polars.String
    stored.close()
