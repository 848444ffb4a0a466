"""Exports in pieces are the same as the whole, whatever lies where."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import pytest

from mallard.errors import QueryTooLarge, StorageError
from mallard.jobs import database
from mallard.query import pieces as cutting
from mallard.query.forms import Form
from mallard.query.pieces import Piece, Seen, Wanted, What, pieces
from mallard.query.tail import view_of
from mallard.transfer import exporter
from mallard.transfer.exporter import SPILLED, export_folder
from tests.stored import A, B, Stored


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    made = Stored(tmp_path, day=10)
    for day in (0, 1, 2):
        made.flush(day, A, B, A, A)
    made.settle()
    made.flush(1, A, B)
    made.flush(3, A)
    return made


@pytest.mark.parametrize("rows", [1, 2, 4, 100])
def test_pieces_of_any_size_give_each_event_once_and_in_order(
    stored: Stored, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting.pieces, "__defaults__", (rows,))
    sink = io.BytesIO()
    count = export_folder(stored.data, Wanted(A, What.EVENTS), Form.NDJSON, sink)
    found = [json.loads(line)["position"] for line in sink.getvalue().splitlines()]
    assert found == [1, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15]
    assert count == 11
    sink = io.BytesIO()
    export_folder(stored.data, Wanted(A, What.SESSIONS), Form.NDJSON, sink)
    visits = [json.loads(line) for line in sink.getvalue().splitlines()]
    order = [(row["date"], row["first_position"]) for row in visits]
    assert order == sorted(set(order))
    assert sum(row["events"] for row in visits) == 11


@pytest.mark.parametrize("rows", [1, 100])
def test_an_export_as_of_an_instant_has_what_was_stored_by_then(
    stored: Stored, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting.pieces, "__defaults__", (rows,))
    before: dict[What, bytes] = {}
    for what in What:
        sink = io.BytesIO()
        export_folder(stored.data, Wanted(A, what), Form.NDJSON, sink)
        before[what] = sink.getvalue()
    instant_us = stored.clock.us
    stored.clock.pass_by(1)
    stored.flush(1, A, A)
    stored.settle()
    stored.flush(3, A)
    for what, expected in before.items():
        sink = io.BytesIO()
        export_folder(stored.data, Wanted(A, what, as_of_us=instant_us), Form.NDJSON, sink)
        assert sink.getvalue() == expected
        sink = io.BytesIO()
        export_folder(stored.data, Wanted(A, what), Form.NDJSON, sink)
        assert sink.getvalue() != expected


def test_pieces_touch_and_cover_all(stored: Stored) -> None:
    seen = Seen(stored.store.snapshot(), view_of([]), stored.store.source)
    cut = pieces(Wanted(A, What.EVENTS), seen, 3)
    assert len(cut) >= 3
    assert [each.end for each in cut[:-1]] == [each.first for each in cut[1:]]
    assert (cut[0].first, cut[-1].end) == (0, 16)
    assert pieces(Wanted("nowhere.example", What.EVENTS), seen) == [Piece(0, 16)]


class Watching(io.BytesIO):
    """Notes which folders there are beside the data when something is written."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.seen: set[str] = set()

    def write(self, content: bytes, /) -> int:  # type: ignore[override]
        self.seen |= {f"{each.name} {each.stat().st_mode:o}" for each in self._folder.iterdir()}
        return super().write(content)


def test_what_does_not_fit_in_memory_lies_beside_the_data_while_it_is_needed(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(stored.data / "nowhere"))
    watching = Watching(stored.data / SPILLED)
    export_folder(stored.data, Wanted(A, What.EVENTS), Form.CSV, watching)
    (spilled,) = watching.seen
    assert spilled.startswith("export-")
    assert spilled.endswith(" 40700")
    assert list((stored.data / SPILLED).iterdir()) == []
    # Where the next start of a server removes what a crash left, and erasure looks.
    assert SPILLED == database.SPILLED


def test_what_is_spilled_is_bounded_and_goes(stored: Stored) -> None:
    with exporter._connect(stored.data) as connection:
        ((most,),) = connection.sql("SELECT current_setting('max_temp_directory_size')").fetchall()
        assert most == "2.0 GiB"
        assert list((stored.data / SPILLED).iterdir()) != []
    assert list((stored.data / SPILLED).iterdir()) == []


def test_what_goes_wrong_is_said_in_words(stored: Stored) -> None:
    with (
        pytest.raises(StorageError, match="puts others in the place"),
        exporter._connect(stored.data) as connection,
    ):
        connection.sql("FROM read_parquet('nowhere.parquet')")
    with pytest.raises(QueryTooLarge), exporter._connect(stored.data) as connection:
        connection.execute("SET memory_limit = '1MB'; SET max_temp_directory_size = '0B'")
        connection.sql("SELECT list(range) FROM range(10_000_000)").fetchall()


def test_a_folder_that_may_only_be_read_is_exported(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, **_: object) -> None:
        raise PermissionError(self)

    monkeypatch.setattr(Path, "mkdir", refuse)
    sink = io.BytesIO()
    assert export_folder(stored.data, Wanted(A, What.EVENTS), Form.NDJSON, sink) == 11
