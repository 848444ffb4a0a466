from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mallard.cli.benchmark.history import History
from mallard.cli.benchmark.pruning import shares_read
from mallard.clock import Clock
from mallard.config import StoreConfig
from mallard.files import Files
from mallard.jobs import pieces
from mallard.jobs.database import connect
from mallard.jobs.day_files import write_days
from mallard.jobs.pieces import groups_of
from mallard.query.sql import Sql
from mallard.store.encoding import LEVEL_1_ROW_GROUP_ROWS
from mallard.store.local import LocalStore
from mallard.store.part import Part

DAY = date(2026, 3, 2)


def part_of(events: int, folder: Path, pathname: str = "pathname") -> Path:
    """Return a part of a site-day of so many events as people send them; pathname: SQL."""
    made = History(sites=1, events=events, first_day=DAY, others_between=9).day(DAY)
    store = LocalStore(folder / "data", Files(), Clock())
    with connect(StoreConfig(memory_bytes=2**30), folder) as connection:
        connection.register("made", made)
        rows = Sql(f"SELECT * REPLACE ({pathname} AS pathname) FROM made")
        (part, _) = write_days(store, connection, DAY.isoformat(), rows)
    store.close()
    assert isinstance(part, Part)
    return folder / "data" / part.location


def in_small(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let a day of so many times fewer events be cut as a large one."""
    for name in ("_ALONE_ROWS", "_HOURS_ROWS", "_PATHS_ROWS", "_THIRDS_ROWS", "_SAMPLED"):
        monkeypatch.setattr(pieces, name, getattr(pieces, name) // times)


@pytest.mark.parametrize(("events", "groups"), [(10_000, 8), (25_000, 10)])
def test_a_filter_on_name_hour_or_path_skips_most_of_a_site_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: int, groups: int
) -> None:
    in_small(monkeypatch, 20)
    part = part_of(events, tmp_path)
    shares = shares_read(part)
    assert shares["name"] < 0.15
    assert shares["hour"] < 0.5
    assert shares["path"] < 0.5
    assert pq.read_metadata(part).num_row_groups == groups


@pytest.mark.parametrize("words", ["", "/shop"])
def test_so_it_does_where_paths_have_no_words_in_common_or_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    in_small(monkeypatch, 20)
    part = part_of(10_000, tmp_path, f"'{words}/' || hash(pathname)")
    shares = shares_read(part)
    assert shares["hour"] < 0.5
    assert shares["path"] < 0.5


def test_a_day_without_paths_is_cut_by_hour_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small(monkeypatch, 20)
    part = part_of(10_000, tmp_path, "NULL::VARCHAR")
    assert pq.read_metadata(part).num_row_groups == 4


def test_a_filter_on_name_or_hour_skips_most_of_a_site_day_of_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small(monkeypatch, 20)
    shares = shares_read(part_of(8_000, tmp_path))
    assert shares["name"] < 0.15
    assert shares["hour"] < 0.5


def test_a_small_site_day_is_one_row_group(tmp_path: Path) -> None:
    assert pq.read_metadata(part_of(3_000, tmp_path)).num_row_groups == 1


@pytest.mark.parametrize("rows", [65_536, 200_003, 1_000_000, 7_654_321])
def test_row_groups_end_with_their_piece_and_none_is_too_large(rows: int) -> None:
    found = groups_of(
        [("a", 0, 11), ("b", 0, rows), ("b", 2, rows // 2), ("b", 72, 9), ("c", 72, 5)]
    )
    assert max(found) <= LEVEL_1_ROW_GROUP_ROWS
    assert (found[0], found[-2], found[-1]) == (11, 9, 5)
    ends = {sum(found[:count]) for count in range(len(found) + 1)}
    assert {0, 11, 11 + rows, 11 + rows + rows // 2, 16 + rows + rows // 2 + 9} <= ends
