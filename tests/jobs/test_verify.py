from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.config import RetentionConfig
from mallard.errors import StorageError
from mallard.files import Files
from mallard.jobs import contents, summing
from mallard.jobs.expiry import Expiry
from mallard.jobs.ordering import MARKED_BYTES
from mallard.jobs.verify import Findings, verify
from mallard.query.sessions import annotated
from mallard.query.sql import Sql
from mallard.store.part import Derived, Part
from mallard.store.reader import LocalReader
from mallard.store.snapshot import Change
from tests.factories import make_event
from tests.rooms import Rooms
from tests.stored import A, B, Stored, date


def check(data: Path) -> Findings:
    return verify(data, Files())


def fill(data: Path) -> tuple[Path, Path]:
    """Make a folder of two parts and three segments; return the path of one of each."""
    rooms = Rooms(data, segment_bytes=1)
    for _ in range(2):
        rooms.append(make_event(), make_event())
        rooms.flusher.flush()
    for _ in range(3):
        rooms.append(make_event())
    rooms.close()
    segments = sorted((data / "wal").iterdir())
    assert len(segments) == 3
    return data / next(rooms.store.snapshot().parts).location, segments[1]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def test_a_whole_folder_has_no_problem_and_its_events_are_counted(tmp_path: Path) -> None:
    fill(tmp_path)
    findings = check(tmp_path)
    assert (findings.problems, findings.notes) == ([], [])
    assert (findings.parts, findings.part_rows, findings.log_events) == (2, 4, 3)
    assert findings.part_bytes == sum(
        path.stat().st_size
        for path in (tmp_path / "recent").iterdir()
        if path.name != "empty.parquet"
    )


def test_a_folder_with_nothing_in_it_but_a_store_is_whole(tmp_path: Path) -> None:
    Rooms(tmp_path).close()
    assert check(tmp_path).problems == []
    with pytest.raises(StorageError, match="not a Mallard data folder"):
        check(tmp_path / "wal")


@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_flipped_bit_in_a_part_is_a_problem_that_names_it(place: float, tmp_path: Path) -> None:
    part, _ = fill(tmp_path)
    flip(part, int(part.stat().st_size * place))
    (problem,) = check(tmp_path).problems
    assert f"recent/{part.name}" in problem
    assert "SHA-256" in problem


def test_a_part_that_is_gone_is_a_problem_that_names_it(tmp_path: Path) -> None:
    part, _ = fill(tmp_path)
    part.unlink()
    (problem,) = check(tmp_path).problems
    assert f"recent/{part.name} cannot be read" in problem


def test_a_damaged_segment_is_a_problem_that_names_it_and_what_was_lost(tmp_path: Path) -> None:
    _, segment = fill(tmp_path)
    flip(segment, 60)
    damaged, missing = check(tmp_path).problems
    assert f"wal/{segment.name} is damaged" in damaged
    assert "1 events, positions 6 to 6" in missing


def test_a_segment_that_is_gone_is_a_hole_that_is_named(tmp_path: Path) -> None:
    _, segment = fill(tmp_path)
    segment.unlink()
    (problem,) = check(tmp_path).problems
    assert "positions 6 to 6" in problem


def test_a_last_segment_that_is_gone_is_a_problem_that_names_it(tmp_path: Path) -> None:
    fill(tmp_path)
    last = max((tmp_path / "wal").iterdir())
    last.unlink()
    (problem,) = check(tmp_path).problems
    assert problem.startswith(f"wal/{last.name} is missing, and it held acknowledged events: those")
    assert "from position 7 on are in no part, and nothing says how many there were; put" in problem


def test_a_segment_with_a_wrong_name_is_a_problem_that_tells_the_right_one(tmp_path: Path) -> None:
    _, segment = fill(tmp_path)
    segment.rename(segment.with_name(f"{9:020}.wal"))
    problems = check(tmp_path).problems
    assert any(f"it is wal/{segment.name}, renamed" in problem for problem in problems)


def test_a_torn_end_is_a_note_and_no_problem(tmp_path: Path) -> None:
    fill(tmp_path)
    last = max((tmp_path / "wal").iterdir())
    content = last.read_bytes().rstrip(b"\0")
    last.write_bytes(content + content[:30])
    findings = check(tmp_path)
    assert findings.problems == []
    assert "never finished" in findings.notes[0]
    last.write_bytes(content[:-1])  # its only event: acknowledged, or the segment had no name
    (problem,) = check(tmp_path).problems
    assert "holds no whole event" in problem


def test_a_part_in_quarantine_stays_a_problem_until_it_is_back(tmp_path: Path) -> None:
    part, _ = fill(tmp_path)
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    Rooms(tmp_path).close()
    (problem,) = check(tmp_path).problems
    assert f"recent/{part.name}" in problem
    assert "2 events are missing" in problem
    part.write_bytes(
        content
    )  # put back: the next start takes it in, and must not be told otherwise
    findings = check(tmp_path)
    assert len(findings.problems) == 1
    assert findings.notes == []
    Rooms(tmp_path).close()
    assert check(tmp_path).problems == []


def test_a_file_that_no_commit_names_is_noted(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "recent" / "left.parquet").write_bytes(b"x")
    findings = check(tmp_path)
    assert findings.problems == []
    assert "recent/left.parquet" in findings.notes[0]


def test_a_check_changes_nothing(tmp_path: Path) -> None:
    part, segment = fill(tmp_path)
    flip(part, 50)
    flip(segment, 60)
    paths = [
        path for path in tmp_path.rglob("*") if path.is_file() and "mallard.db" not in path.name
    ]
    before = {path: path.read_bytes() for path in paths}
    check(tmp_path)
    assert {path: path.read_bytes() for path in paths} == before
    assert check(tmp_path).problems == check(tmp_path).problems


def test_a_server_may_run_and_flush_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = Rooms(tmp_path, segment_bytes=1)
    for _ in range(3):
        rooms.append(make_event())

    class Interrupted(Files):
        def read(self, path: Path) -> bytes:
            if path.suffix == ".wal":
                rooms.flusher.flush()  # between listing the log and reading it
                rooms.buffer.close()  # the log is trimmed when this returns
            return super().read(path)

    findings = verify(tmp_path, Interrupted())
    assert findings.problems == []
    assert (findings.part_rows, findings.log_events) == (3, 0)
    rooms.close()


def test_files_of_a_newer_manifest_than_the_one_that_is_there_are_a_problem_but_in_a_backup(
    stored: Stored,
) -> None:
    older = stored.data / "mallard.db.tmp"
    with LocalReader(stored.data, Files()) as reader:
        reader.copy_manifest(older)
    stored.flush(10, A)
    newer = stored.store.snapshot().recent[-1]
    stored.close()
    content = older.read_bytes()
    (stored.data / "mallard.db").write_bytes(content)
    found = check(stored.data)  # as a backup is that did not end
    assert (found.problems, found.notes) == ([], [])
    older.unlink()
    (problem,) = check(stored.data).problems
    assert problem.startswith(f"1 files, such as {newer.location}, hold events that are nowhere")


# --- contents, visits and sums ---


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    """Two compacted days of two sites with visits and sums, and one of level 0."""
    made = Stored(tmp_path / "data", day=10)
    for day in (0, 1):
        made.flush(day, A, B, A, A)
    made.settle()
    made.sum_up(A, 0, 1)
    made.flush(10, A, B)
    made.clock.pass_by(60)
    made.store.sweep()
    yield made
    made.close()


def deep(stored: Stored) -> Findings:
    return verify(stored.data, Files(), days=None)


def replaced(stored: Stored, part: Part, rows: pa.Table) -> None:
    """Put other rows in a part's place, with a manifest that says the new bytes are right."""
    path = stored.data / part.location
    pq.write_table(rows, path, row_group_size=2)
    digest = sha256(path.read_bytes()).hexdigest()
    with contextlib.closing(sqlite3.connect(stored.data / "mallard.db")) as database:
        database.execute(
            "UPDATE manifest_part SET digest = ?, size_bytes = ? WHERE location = ?",
            (digest, path.stat().st_size, part.location),
        )
        database.commit()


def rows_in(stored: Stored, file: Part | Derived) -> pa.Table:
    return pq.ParquetFile(stored.data / file.location).read()


def test_files_of_visits_and_sums_are_checked_and_all_made_again_when_asked(
    stored: Stored,
) -> None:
    findings = deep(stored)
    assert (findings.problems, findings.notes) == ([], [])
    assert (findings.parts, findings.derived, findings.days) == (5, 5, 4)
    assert verify(stored.data, Files(), days=1).days == 1


def test_a_damaged_file_of_sums_is_a_problem_that_can_be_mended(stored: Stored) -> None:
    sums = stored.store.snapshot().rollups[A, "2024-05"]
    flip(stored.data / sums.location, 50)
    (problem,) = check(stored.data).problems
    assert problem.startswith(f"{sums.location} is not the file that was written")
    assert problem.endswith("It can be made again: remove it and start the server.")


def test_a_level_0_part_that_is_not_sorted_or_of_another_date_is_a_problem(
    stored: Stored,
) -> None:
    part = stored.store.snapshot().recent[0]
    rows = rows_in(stored, part)
    replaced(stored, part, rows.take([1, 0]))
    (problem,) = check(stored.data).problems
    assert problem == f"{part.location} is not sorted by site_id, timestamp, position."
    later = pc.add(rows["timestamp"], pa.scalar(DAY_US, pa.duration("us")))
    replaced(
        stored, part, rows.set_column(rows.schema.get_field_index("timestamp"), "timestamp", later)
    )
    (problem,) = check(stored.data).problems
    assert problem == f"{part.location} holds events of other dates than {part.date}."


def test_a_part_with_an_event_twice_and_another_missing_is_a_problem(stored: Stored) -> None:
    day = stored.store.snapshot().days[A, date(0)]
    rows = rows_in(stored, day.parts[0])
    replaced(stored, day.parts[0], rows.take([0, 0, 2]))
    assert f"{day.parts[0].location} holds other rows than the manifest says." in (
        check(stored.data).problems
    )


def test_an_event_in_another_visit_is_a_problem(stored: Stored) -> None:
    day = stored.store.snapshot().days[A, date(0)]
    rows = rows_in(stored, day.parts[0])
    other = pc.add(rows["visit"], pa.scalar(1, pa.int16()))
    replaced(
        stored, day.parts[0], rows.set_column(rows.schema.get_field_index("visit"), "visit", other)
    )
    assert f"{A} on {date(0)}: 3 events are in another visit than the definition says." in (
        check(stored.data).problems
    )


def test_the_visits_of_a_large_day_are_told_apart_some_visitors_after_the_others(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = stored.store.snapshot().days[A, date(0)]
    rows = rows_in(stored, day.parts[0])
    sources, shares = [stored.store.source(part) for part in day.parts], list[str]()

    def counted(events: Sql) -> Sql:
        shares.append(events)
        return annotated(events)

    monkeypatch.setattr(contents, "annotated", counted)
    told: list[str | None] = []
    for visit in (None, 1):
        if visit:
            at = rows.schema.get_field_index("visit")
            other = pc.add(rows["visit"], pa.scalar(visit, pa.int16()))
            replaced(stored, day.parts[0], rows.set_column(at, "visit", other))
        with duckdb.connect() as connection:
            connection.execute(f"SET VARIABLE rows_bytes = {MARKED_BYTES}")
            told.append(contents.visits_problem(connection, sources, None))
    assert told == [None, "3 events are in another visit than the definition says"]
    assert len(shares) == len(set(shares)) * 2 == 2 * (rows.num_rows + 1)


@pytest.mark.parametrize("at_once", [500_000, 1])
def test_visits_or_sums_that_the_definition_does_not_give_are_a_problem(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    for module in (contents, summing):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", at_once)
    monkeypatch.setattr(summing, "SMALL_DAY_ROWS", at_once - 1)
    assert deep(stored).problems == []
    snapshot = stored.store.snapshot()
    visits, sums = snapshot.days[A, date(1)].sessions, snapshot.rollups[A, "2024-05"]
    assert visits is not None
    for file in (visits, sums):
        path = stored.data / file.location
        rows = pq.ParquetFile(path).read()
        name = "pageviews"
        more = pc.add(rows[name], pa.scalar(1, rows[name].type))
        pq.write_table(rows.set_column(rows.schema.get_field_index(name), name, more), path)
        with contextlib.closing(sqlite3.connect(stored.data / "mallard.db")) as database:
            database.execute(
                "UPDATE manifest_derived SET digest = ? WHERE location = ?",
                (sha256(path.read_bytes()).hexdigest(), file.location),
            )
            database.commit()
    of_visits, of_sums = deep(stored).problems
    assert of_visits.startswith(f"{A} on {date(1)}: its file of visits is not what the definition")
    assert of_sums.startswith(f"{A} in 2024-05: its sums are not what the definition makes")


def test_events_that_are_stored_twice_are_a_problem(stored: Stored) -> None:
    part = stored.store.snapshot().recent[0]
    with stored.store.merge_writer(part.date) as writer:
        writer.write(rows_in(stored, part))
        twice = writer.finish_part()
    change = Change("merge", added=(twice,), lost_rows=-2, lost_position_sum=-part.position_sum)
    with contextlib.closing(sqlite3.connect(stored.data / "mallard.db")) as database:
        stored.store.swap(change)
        database.execute("UPDATE manifest_version SET detail = '{}'")
        database.commit()
    (problem,) = check(stored.data).problems
    assert problem == (
        "The parts hold 12 events and 0 were removed, but positions up to 10 were given: some "
        "events are stored twice."
    )


def test_positions_that_are_nowhere_are_noted_and_those_that_retention_took_are_not(
    stored: Stored,
) -> None:
    Expiry(RetentionConfig(days=9), stored.store, stored.clock).run()
    findings = check(stored.data)
    assert (findings.notes, findings.retired) == ([], 5)  # two parts, their visits, and sums
    assert findings.retired_bytes > 20_000
    with contextlib.closing(sqlite3.connect(stored.data / "mallard.db")) as database:
        database.execute("UPDATE manifest_version SET detail = '{}'")
        database.commit()
    (note,) = check(stored.data).notes
    assert note.startswith("4 of the positions up to 10 hold no event that retention")


def test_what_is_compacted_meanwhile_is_looked_for_in_a_newer_manifest(stored: Stored) -> None:
    acted: list[Path] = []

    class Meanwhile(Files):
        def chunks(self, path: Path) -> Iterator[bytes]:
            if not acted:
                acted.append(path)
                stored.flush(0, A, B)
                stored.settle()
                stored.store.sweep(hurry=True)
            return super().chunks(path)

    findings = verify(stored.data, Meanwhile())
    assert findings.problems == []
    assert (findings.part_rows, findings.parts) == (12, 5)


def test_a_damaged_part_is_told_when_its_visits_are_made_again_too(stored: Stored) -> None:
    part = stored.store.snapshot().days[A, date(0)].parts[0]
    (stored.data / part.location).write_bytes(b"no Parquet")
    problem, visits, sums = deep(stored).problems
    assert problem.startswith(f"{part.location} is not the file that was written")
    assert visits.startswith(f"{A} on {date(0)}: cannot be read")
    assert sums.startswith(f"{A} in 2024-05: cannot be read")


def test_a_file_that_cannot_be_read_is_a_problem_with_the_reason(stored: Stored) -> None:
    part = stored.store.snapshot().recent[0]
    (stored.data / part.location).unlink()
    (stored.data / part.location).mkdir()
    (problem,) = check(stored.data).problems
    assert problem.startswith(f"{part.location} cannot be read (Is a directory). Put it back from")
    assert "its 2 events" in problem
