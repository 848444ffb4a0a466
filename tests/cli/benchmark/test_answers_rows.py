from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from mallard.cli import bench
from mallard.cli.benchmark import answers_rows, answers_store, served_rows
from mallard.cli.benchmark.processes import Cores
from mallard.cli.benchmark.rates import Setting

FIRST, LAST = answers_store.FIRST_DAY, date(2025, 3, 2)


@pytest.fixture
def few_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_store, "DAYS", 2)
    for module in (answers_rows, served_rows):
        monkeypatch.setattr(module, "YEAR", (FIRST, LAST))
    monkeypatch.setattr(answers_rows, "MONTH", (LAST, LAST))
    monkeypatch.setattr(answers_rows, "SHIFT", LAST - FIRST)
    monkeypatch.setattr(answers_rows, "ASKED", 3)
    monkeypatch.setattr(served_rows, "POLL_SECONDS", 0.5)


@pytest.mark.usefixtures("few_days")
def test_a_short_run_measures_every_row_and_every_answer_is_what_plain_sql_says(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    data = answers_store.stored_year(tmp_path, 4_000, said.append)
    assert said
    work = tmp_path / "work"
    work.mkdir()
    setting = Setting(work, Cores(), seconds=0.3, rounds=1)
    rows = bench.measure_answers(setting, data, said.append)
    assert [row.what for row in rows if not row.sound or row.value <= 0] == []
    for what in ("dashboard of 13 panels", "funnel", "p95 of their questions", "peak memory"):
        assert any(what in row.what for row in rows), what
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*.parquet")}
    assert answers_store.stored_year(tmp_path, 4_000, pytest.fail) == data
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*.parquet")} == before
