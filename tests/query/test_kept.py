from __future__ import annotations

import pyarrow as pa

from mallard.query.kept import Kept


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
