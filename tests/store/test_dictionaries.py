from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.clock import Clock
from mallard.event import Frame, to_table
from mallard.files import Files
from mallard.store.dictionaries import arranged
from mallard.store.local import LocalStore
from tests.factories import NOON_US, make_event


def coded(texts: Sequence[str | None]) -> pa.DictionaryArray:
    return pa.array(texts, pa.string()).dictionary_encode()


@given(st.lists(st.none() | st.text(max_size=3)))
def test_each_row_says_what_it_said(texts: list[str | None]) -> None:
    assert arranged(coded(texts)).to_pylist() == texts


def test_what_is_said_most_comes_first_and_what_is_said_as_often_in_its_own_order() -> None:
    texts = ["rare", "b", "a", "often", None] + ["a", "b"] * 3 + ["often"] * 8
    assert arranged(coded(texts)).dictionary.to_pylist() == ["often", "a", "b", "rare"]


@pytest.mark.parametrize(
    ("different", "texts"),
    [(4, 4), (5, 9), (16, 16), (17, 129), (128, 129), (129, 129), (1_399, 1_399), (1_400, 2_049)],
)
def test_a_dictionary_has_so_many_texts_that_numbers_fill_bytes(different: int, texts: int) -> None:
    # All but one are among those that could be taken to fill it.
    blanks = ["".join(some) for some in islice(product(" \t\n\r", repeat=6), different - 1)]
    said = [
        ["often", *(f"often{some}" for some in blanks)][row % different] for row in range(9_999)
    ]
    said += ["often"] * 9_999
    found = arranged(coded(said))
    assert len(found.dictionary) == len(set(found.dictionary.to_pylist())) == texts
    assert found.to_pylist() == said


def test_of_few_rows_a_dictionary_has_the_texts_that_are_said() -> None:
    assert len(arranged(coded([str(row % 20) for row in range(500)])).dictionary) == 20


def test_what_may_not_be_filled_has_the_texts_that_are_said() -> None:
    said = [str(row % 20) for row in range(10_000)]
    assert len(arranged(coded(said), fill=False).dictionary) == 20


def test_among_the_ids_that_senders_make_a_part_has_none_that_no_row_says(tmp_path: Path) -> None:
    events = tuple(
        make_event(timestamp=NOON_US, company_id=str(uuid4()), browser_version=str(number))
        for number in range(20)
    )
    rows = pa.concat_tables([to_table([Frame(1, 1, 3, events)])] * 500)
    store = LocalStore(tmp_path, Files(), Clock(), lambda snapshot: None)
    with store.day_writer(events[0].site_id, "2024-05-01") as writer:
        writer.write(rows.append_column("visit", pa.nulls(rows.num_rows, pa.int16())))
        part = writer.finish_part()
    names = ["company_id", "browser_version"]
    found = pq.read_table(store.source(part), columns=names, read_dictionary=names)
    store.close()
    assert [len(found[name].chunk(0).dictionary) for name in names] == [20, 129]


def test_nobody_who_reads_it_sees_a_text_that_no_row_says(tmp_path: Path) -> None:
    said = [str(row % 20) for row in range(10_000)]
    column = arranged(coded(said))
    assert len(column.dictionary) == 129
    path = tmp_path / "versions.parquet"
    pq.write_table(pa.table({"version": column}), path)
    assert pq.read_table(path)["version"].to_pylist() == said
    statistics = pq.read_metadata(path).row_group(0).column(0).statistics
    assert (statistics.min, statistics.max) == ("0", "9")
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW part AS FROM read_parquet('{path}')")
        # DuckDB may look at those texts too; they can be made numbers like the others.
        of_each = connection.execute(
            "SELECT version::INT, count(*) FROM part WHERE version::INT >= 0 GROUP BY 1 ORDER BY 1"
        ).fetchall()
        assert of_each == [(number, 500) for number in range(20)]
        assert connection.execute(
            "SELECT count(*) FROM part WHERE length(version) > 2"
        ).fetchall() == [(0,)]
