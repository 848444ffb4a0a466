from __future__ import annotations

from datetime import date

import pyarrow.compute as pc

from mallard.cli.benchmark.history import History
from mallard.event import ARROW_SCHEMA

DAY = date(2026, 3, 2)


def test_days_follow_each_other_in_position_and_time_and_are_the_same_every_time() -> None:
    days = list(History(sites=5, events=2_000, first_day=DAY).days(2))
    again = list(History(sites=5, events=2_000, first_day=DAY).days(2))
    last = 0
    for number, (table, watermark) in enumerate(days):
        assert table.schema.equals(ARROW_SCHEMA)
        assert 1_500 < table.num_rows < 2_500
        assert table["position"].to_pylist() == list(range(last + 1, last + 1 + table.num_rows))
        loaded = table["loaded_at"].to_pylist()
        assert loaded == sorted(loaded)
        dates = {instant.date() for instant in table["timestamp"].to_pylist()}
        assert dates == {date(2026, 3, 2 + number)}
        assert len(pc.unique(table["site_id"])) == 5
        assert table.equals(again[number][0])
        last += table.num_rows
        assert watermark == last


def test_events_are_filled_as_in_life() -> None:
    table = History(sites=1, events=20_000, first_day=DAY, others_between=9).day(DAY)
    rows = table.num_rows

    def share(name: str) -> float:
        return float((rows - table[name].null_count) / rows)

    assert 0.08 < share("props") < 0.12
    assert 0.015 < share("revenue_amount") < 0.025
    assert 0.13 < share("utm_source") < 0.17
    assert 0.4 < pc.mean(pc.equal(table["event_type"], "engagement")).as_py() < 0.5
    assert len(pc.unique(table["pathname"])) > 1_000
    assert 8 < table["position"][-1].as_py() / rows < 12
