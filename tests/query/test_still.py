"""What a site has at one instant, taken elsewhere."""

from __future__ import annotations

import itertools
import pickle
from contextlib import closing
from datetime import date as day_of
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa

from mallard.query.period import Period, buckets, slices
from mallard.query.sql import Sql
from mallard.query.still import Paging, still
from mallard.query.sums import Grouping
from mallard.query.tail import view_of
from tests.stored import A, B, Stored, date


def test_it_answers_elsewhere_of_one_site_and_adds_nothing_up_twice(tmp_path: Path) -> None:
    stored = Stored(tmp_path, day=10)
    stored.flush(0, A, B, A)
    stored.settle()
    stored.flush(1, A, B)
    of_site = still(view_of([]), stored.store.snapshot(), A, stored.store.source)
    assert {site for site, _ in of_site.of.days} == {A}
    answers = pickle.loads(pickle.dumps(of_site)).answers()
    assert answers.first_date(A).isoformat() == date(0)
    first, last = day_of.fromisoformat(date(0)), day_of.fromisoformat(date(1))
    period = Period.of_days(first, last, ZoneInfo("UTC"))
    pieces, grouping = slices(buckets(period, None)), Grouping(A)
    with duckdb.connect() as connection, closing(Paging(connection.cursor())) as session:
        sums = answers.sums(session, grouping, pieces)
        assert isinstance(sums, pa.Table)
        assert sums["events"].to_pylist() == [3]
        assert answers.sums(session, grouping, pieces) is sums
    stored.close()


def test_pages_of_rows_are_put_in_order_once() -> None:
    asked = itertools.count()

    def query() -> Sql:
        next(asked)
        return Sql("SELECT range % 3 AS a, range AS b FROM range(7)")

    with duckdb.connect() as connection, closing(Paging(connection.cursor())) as session:
        pages = [session.page("key", query, "a DESC, b", 3, offset) for offset in (0, 3, 6, 9)]
    ordered = [(2, 2), (2, 5), (1, 1), (1, 4), (0, 0), (0, 3), (0, 6)]
    assert pages == [ordered[:3], ordered[3:6], ordered[6:], []]
    assert next(asked) == 1
