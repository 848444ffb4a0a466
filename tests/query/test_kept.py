from __future__ import annotations

import tracemalloc

import pyarrow as pa

from mallard.query.kept import Kept, Value


def test_what_is_kept_is_bounded_and_the_least_used_goes_first() -> None:
    table = pa.table({"n": list(range(1_000))})  # 8,000 bytes and what Python takes
    kept = Kept(20_000)
    kept.keep({"a": table, "b": table})
    assert kept.get("a") is table
    kept.keep({"c": table})
    assert kept.get("b") is None
    assert kept.get("a") is table
    assert kept.size_bytes <= 20_000
    kept.keep({"large": pa.table({"n": list(range(10_000))})})
    assert kept.get("large") is None
    assert kept.get("c") is not None


def test_an_owner_has_its_share_and_leaves_the_rest_to_others() -> None:
    table = pa.table({"n": list(range(1_000))})
    kept = Kept(30_000)
    kept.keep({"other": table}, "other")
    for number in range(5):
        kept.keep({number: table}, "large")
    assert kept.get("other") is table
    assert [number for number in range(5) if kept.get(number)] == [3, 4]
    # Two of three parts are all that it may have at once, too.
    kept.keep({"too large": pa.table({"n": list(range(3_000))})}, "large")
    assert kept.get("too large") is None


def test_of_an_owner_the_least_used_goes_first() -> None:
    table = pa.table({"n": list(range(1_000))})
    kept = Kept(30_000)
    kept.keep({"a": table, "b": table}, "large")
    assert kept.get("a") is table
    kept.keep({"c": table}, "large")
    assert kept.get("b") is None
    assert kept.get("a") is table


def test_what_of_an_owner_went_for_others_counts_no_more() -> None:
    table = pa.table({"n": list(range(1_000))})
    kept = Kept(15_000)
    for number in range(5):
        kept.keep({number: table}, "large")
        kept.keep({"other": table})
        assert kept.get(number) is None
        assert kept.get("other") is table
    kept.keep({5: table}, "large")
    assert kept.get(5) is table


def test_a_value_takes_about_what_its_rows_take() -> None:
    rows = [(f"page:/{number}", number, 2 * number) for number in range(1_000)]
    tracemalloc.start()
    copied = [(f"page:/{number}", number, 2 * number) for number in range(1_000)]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert copied == rows
    assert taken / 2 < Value.of(rows).get_total_buffer_size() < taken * 2
