from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.query.dimensions import Dimension
from mallard.query.metrics import Quantity
from mallard.query.sums import (
    Grouping,
    encoded,
    in_bucket,
    narrowed,
    packed,
    split,
    total,
    unpacked,
)

GROUPING = Grouping("example.com", (Dimension.PAGE,))
NUMBERS = [each.value for each in Quantity if each is not Quantity.REVENUE_AMOUNT]


def sums(*rows: tuple[str | None, str | None, int | None, str | None]) -> pa.Table:
    """Return sums without buckets: page, currency, every number, amount."""
    return pa.table(
        {
            "by_page": pa.array([row[0] for row in rows], pa.string()),
            "currency": pa.array([row[1] for row in rows], pa.string()),
            **{name: pa.array([row[2] for row in rows], pa.int64()) for name in NUMBERS},
            "revenue_amount": pa.array(
                [None if row[3] is None else Decimal(row[3]) for row in rows],
                pa.decimal128(38, 2),
            ),
        }
    )


def test_groups_of_a_bucket_are_added_up_and_what_none_knows_stays_null() -> None:
    first = in_bucket(sums(("/", None, 2, None), (None, None, None, None)), 0)
    second = in_bucket(narrowed(sums(("/", None, 300, None), ("/", "EUR", None, "1.50"))), 0)
    other = in_bucket(narrowed(sums(("/", None, 1, None))), 1)
    of_money = replace(GROUPING, money=True)
    for grouping, name, numbers in (
        (GROUPING, "visits", (302, None, None, 1)),
        (of_money, "revenue_amount", (None, Decimal("1.50"), None, None)),
    ):
        found = total(grouping, [first, second, other])
        assert found.schema == grouping.schema
        groups = ((0, "/", None), (0, "/", "EUR"), (0, None, None), (1, "/", None))
        assert {
            (row["bucket"], row["by_page"], row["currency"]): row[name] for row in found.to_pylist()
        } == dict(zip(groups, numbers, strict=True))


_TEXTS = st.sampled_from([None, "/", "/a", "/b"])
_ROWS = st.lists(st.tuples(_TEXTS, _TEXTS, st.integers(0, 2**40), st.none()), max_size=8)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(_ROWS, st.sampled_from([narrowed, encoded, packed])), max_size=4))
def test_texts_that_are_kept_in_different_ways_add_up_all_the_same(
    made: list[
        tuple[list[tuple[str | None, str | None, int, None]], Callable[[pa.Table], pa.Table]]
    ],
) -> None:
    expected: Counter[tuple[str | None, str | None]] = Counter()
    for rows, _ in made:
        for page, currency, number, _ in rows:
            expected[page, currency] += number
    tables = [
        in_bucket(keep(total(GROUPING, [in_bucket(sums(*rows), 0)] * 2)), 0) for rows, keep in made
    ]
    found = total(GROUPING, [*tables, GROUPING.schema.empty_table()])
    assert found.schema == GROUPING.schema
    assert {(row["by_page"], row["currency"]): row["visits"] for row in found.to_pylist()} == {
        group: 2 * number for group, number in expected.items()
    }


def test_nothing_adds_up_to_no_groups() -> None:
    assert total(GROUPING, []) == GROUPING.schema.empty_table()


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**31), 2**31) | st.none()))
def test_what_is_narrowed_is_the_same_once_it_is_widened(values: list[int | None]) -> None:
    table = sums(*((str(number), None, value, None) for number, value in enumerate(values)))
    assert narrowed(table).cast(table.schema).to_pylist() == table.to_pylist()


def test_small_numbers_take_few_bytes() -> None:
    table = sums(*(("/", None, number, None) for number in range(1_000)))
    assert narrowed(table).nbytes * 2.5 < table.nbytes


def test_rows_are_split_by_name_and_a_name_without_rows_has_none() -> None:
    table = sums(("/a", None, 1, None), ("/b", None, 2, None), ("/c", None, 3, None))
    table = table.append_column("day", pa.array([2, 1, 2]))
    found = split(table, "day", {1: "first", 3: "third"})
    assert found["first"]["by_page"].to_pylist() == ["/b"]
    assert found["third"].num_rows == 0
    assert set(found) == {"first", "third"}


def test_buckets_of_a_month_move_to_where_it_begins() -> None:
    month = total(GROUPING, [in_bucket(sums(("/", None, 1, None)), number) for number in range(3)])
    assert sorted(in_bucket(narrowed(month), 10)["bucket"].to_pylist()) == [10, 11, 12]


def test_texts_that_come_often_are_kept_once_and_are_what_they_were() -> None:
    texts = [f"page:/a-rather-long-name-{n % 50}" if n % 7 else None for n in range(1_000)]
    table = pa.table({"near": texts, "far": [*texts[1:], None], "visits": range(1_000)})
    assert encoded(table).cast(table.schema).equals(table)
    kept = packed(table)
    assert kept.get_total_buffer_size() < table.get_total_buffer_size() / 4
    assert unpacked(kept).cast(table.schema).equals(table)


def test_texts_that_come_once_are_kept_as_they_are() -> None:
    table = pa.table({"near": [f"/{n}" for n in range(100)], "visits": range(100)})
    assert packed(table)["near"].type == pa.string()
    plain = pa.table({"value": pa.nulls(3), "people": [1, 2, 3]})
    assert encoded(plain).equals(plain)
