from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.errors import InvalidInput, NotFound
from mallard.event import Event
from mallard.jobs.erasure import PROMPT_TRIES, RULES_MAX
from mallard.jobs.receipt import Terms, rule_text
from mallard.jobs.verify import verify
from mallard.query.events import open_folder
from mallard.query.rules import Definition
from mallard.query.sessions import SESSION_SCHEMA
from mallard.store.part import Part
from mallard.store.snapshot import Change, Rule
from tests import oracle
from tests.erasing import KEPT, MARK, ErasingRooms, holders, of_other, of_subject, said, user
from tests.factories import make_event
from tests.strategies import VISITED_EVENTS

EVERYWHERE = {"events", "recent", "rollups", "sessions", "wal"}


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[ErasingRooms]:
    rooms = ErasingRooms(tmp_path / "data")
    yield rooms
    rooms.close()


def users(data: Path) -> dict[str, int]:
    with open_folder(data) as connection:
        return dict(connection.sql("SELECT user_id, count(*) FROM events GROUP BY 1").fetchall())


def test_nothing_of_a_subject_is_on_disk_once_the_receipt_says_so(rooms: ErasingRooms) -> None:
    rooms.fill()
    assert holders(rooms.data) == EVERYWHERE
    assert users(rooms.data) == {MARK: 6, KEPT: 4}
    rule = rooms.erasure.begin(user())
    assert users(rooms.data) == {KEPT: 4}
    assert holders(rooms.data) >= EVERYWHERE - {"wal"} | {"mallard.db-wal"}
    rooms.finish(rule)
    assert holders(rooms.data) == set()
    assert users(rooms.data) == {KEPT: 4}
    assert verify(rooms.data, rooms.files).problems == []


@pytest.mark.parametrize("column", ["url", "props"])
def test_what_a_condition_is_about_is_found_however_a_part_keeps_it(
    column: str, rooms: ErasingRooms
) -> None:
    rooms.fill()
    receipt = rooms.finish(rooms.erasure.begin(said([MARK], column, "contains")))
    assert receipt["events"] == 6
    assert holders(rooms.data) == set()
    assert users(rooms.data) == {KEPT: 4}


def test_a_receipt_tells_what_was_done_and_nothing_of_whom(rooms: ErasingRooms) -> None:
    rooms.fill()
    before = {part.location: part.digest for part in rooms.store.snapshot().parts}
    rule = rooms.erasure.begin(user())
    receipt = rooms.finish(rule)
    assert MARK not in json.dumps(receipt)
    assert receipt["about"] == "user_id is"
    assert receipt["sha256"] == sha256(f"{receipt['salt']}:{MARK}".encode()).hexdigest()
    assert receipt["counts"] == [
        {"site_id": "example.com", "date": "2024-05-01", "events": 2},
        {"site_id": "example.com", "date": "2024-05-02", "events": 2},
        {"site_id": "example.com", "date": "2024-05-03", "events": 2},
    ]
    assert receipt["events"] == 6
    after = {part.location: part.digest for part in rooms.store.snapshot().parts}
    assert before.items() <= receipt["files_before"].items()
    assert receipt["files_after"] == after
    assert receipt["requested_at"] <= receipt["applied_at"] <= receipt["completed_at"]
    assert any("backups" in line for line in receipt["not_reached"])


def test_a_preview_counts_and_changes_nothing(rooms: ErasingRooms) -> None:
    rooms.fill()
    counts = rooms.erasure.preview(user()).counts
    assert counts == {("example.com", f"2024-05-0{day}"): 2 for day in (1, 2, 3)}
    assert rooms.erasure.preview(user()).kept == []  # though compaction's files are still there
    assert users(rooms.data) == {MARK: 6, KEPT: 4}
    assert rooms.erasure.status() == []


def test_a_rule_can_be_cancelled_until_its_grace_is_over(rooms: ErasingRooms) -> None:
    rooms.fill()
    rule = rooms.erasure.begin(user(), grace_seconds=3_600.0)
    rooms.erasure.run()
    assert users(rooms.data) == {KEPT: 4}
    rooms.erasure.cancel(rule)
    assert users(rooms.data) == {MARK: 6, KEPT: 4}
    with pytest.raises(NotFound):
        rooms.erasure.cancel(rule)
    rooms.erasure.run()
    assert rooms.erasure.receipts() == []
    assert holders(rooms.data) == EVERYWHERE - {"wal"}  # and no longer in the database


def test_a_rule_whose_files_are_being_rewritten_cannot_be_cancelled(rooms: ErasingRooms) -> None:
    rooms.fill()
    rule = rooms.erasure.begin(user())
    with rooms.store.reading():  # the old files cannot go meanwhile
        rooms.erasure.run()
        assert "still being read" in rooms.erasure.status()[0]["waits_for"]
        with pytest.raises(InvalidInput, match="cannot be cancelled"):
            rooms.erasure.cancel(rule)
    rooms.finish(rule)


def test_events_that_come_in_after_a_rule_began_are_not_meant(rooms: ErasingRooms) -> None:
    rooms.append(of_subject())
    rule = rooms.erasure.begin(user())
    rooms.append(of_subject(), of_subject(1))
    assert users(rooms.data) == {MARK: 2}
    rooms.flusher.flush()
    rooms.finish(rule)
    assert users(rooms.data) == {MARK: 2}
    second = rooms.erasure.begin(user())
    rooms.finish(second)
    assert users(rooms.data) == {}
    assert holders(rooms.data) == set()


def test_compaction_under_an_active_rule_keeps_what_can_be_cancelled(rooms: ErasingRooms) -> None:
    rooms.fill()
    rule = rooms.erasure.begin(user(), grace_seconds=3_600.0)
    rooms.flusher.flush()
    rooms.settle()
    assert users(rooms.data) == {KEPT: 4}
    with open_folder(rooms.data) as connection:
        ((visitors,),) = connection.sql(
            "SELECT count(DISTINCT visitor_id) FROM sessions"
        ).fetchall()
    assert visitors == 1
    rooms.erasure.cancel(rule)
    assert users(rooms.data) == {MARK: 6, KEPT: 4}


def test_several_rules_are_made_physical_together(rooms: ErasingRooms) -> None:
    rooms.append(*(make_event(user_id=name, session_id=name) for name in "abcd"))
    rooms.flusher.flush()
    rooms.settle()
    rooms.append(*(make_event(user_id=name) for name in "abcd"))
    rules = [
        rooms.erasure.begin(user("a")),
        rooms.erasure.begin(said(["b"], "session_id")),
        rooms.erasure.begin(user("c")),
    ]
    assert users(rooms.data) == {"b": 1, "d": 2}
    for rule in rules:
        rooms.finish(rule)
    assert users(rooms.data) == {"b": 1, "d": 2}
    written = [each for each in rooms.store.history() if each.reason == "erasure"]
    assert [len(each.detail["rules"]) for each in written] == [3, 3]


def test_a_rule_that_waits_for_an_older_one_is_made_physical_after_it(rooms: ErasingRooms) -> None:
    rename = Definition(
        keys=("referrer_source",), columns=("referrer_source",), mapping={("X",): ("Twitter",)}
    )
    rooms.append(make_event(referrer_source="X"), make_event(referrer_source="Bing"))
    first = rooms.erasure.begin(rename, grace_seconds=3_600.0)
    rooms.erasure.begin(said(["Twitter"], "referrer_source"))
    third = rooms.erasure.begin(said(["nobody"]))
    rooms.finish(third)
    assert rooms.erasure.status()[0]["rule"] == first
    assert len(rooms.erasure.status()) == 2
    with open_folder(rooms.data) as connection:
        rows = connection.sql("SELECT referrer_source FROM events").fetchall()
    assert rows == [("Bing",)]


def test_a_rule_that_changes_values_loses_no_row(rooms: ErasingRooms) -> None:
    rename = Definition(
        keys=("referrer_source",), columns=("referrer_source",), mapping={("X",): ("Twitter",)}
    )
    rooms.append(make_event(referrer_source="X"), make_event(referrer_source=None))
    rooms.flusher.flush()
    rooms.settle()
    rooms.append(make_event(referrer_source="X"))
    sql = "SELECT referrer_source, count(*) FROM events GROUP BY 1 ORDER BY 1 NULLS LAST"
    rule = rooms.erasure.begin(rename)
    receipt = rooms.finish(rule)
    assert receipt["action"] == "replace"
    sources = [rooms.store.source(part) for part in rooms.store.snapshot().parts]
    with open_folder(rooms.data) as connection:
        assert connection.sql(sql).fetchall() == [("Twitter", 2), (None, 1)]
        raw = f"SELECT count(*) FROM read_parquet({sources}) WHERE referrer_source = 'X'"
        assert connection.sql(raw).fetchall() == [(0,)]


def test_what_retention_keeps_for_its_grace_goes_too(rooms: ErasingRooms) -> None:
    rooms.append(of_subject(), of_other())
    rooms.append(of_other(1))
    rooms.flusher.flush()
    rooms.settle()
    snapshot = rooms.store.snapshot()
    for date in ("2024-05-01", "2024-05-02"):
        parts = snapshot.days["example.com", date].parts
        rooms.store.swap(
            Change(
                "expiry",
                removed=parts,
                lost_rows=sum(part.rows for part in parts),
                lost_position_sum=sum(part.position_sum for part in parts),
                keep_seconds=86_400.0,
            )
        )
    assert holders(rooms.data) >= {"events", "sessions"}
    preview = rooms.erasure.preview(user())
    assert (preview.counts, preview.kept) == ({}, [("example.com", "2024-05-01")])
    again = rooms.erasure.preview(user(KEPT))
    assert again.kept == [("example.com", "2024-05-01"), ("example.com", "2024-05-02")]
    rooms.finish(rooms.erasure.begin(user()))
    assert holders(rooms.data) == set()
    # The other date holds nothing of the subject, and can come back.
    kept = [each.file for each in rooms.store.retired() if each.reason == "expiry"]
    assert [file.date for file in kept if isinstance(file, Part)] == ["2024-05-02"]


def test_a_damaged_file_keeps_a_rule_active_until_it_is_back(
    tmp_path: Path, rooms: ErasingRooms
) -> None:
    rooms.append(of_subject(), of_other())
    rooms.flusher.flush()
    rooms.settle()
    (part,) = rooms.store.snapshot().parts
    path = rooms.data / part.location
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes(9))
    rule = rooms.erasure.begin(user())
    rooms.erasure.run()
    assert "damaged" in rooms.erasure.status()[0]["waits_for"]
    rooms.close()

    path.write_bytes(whole)
    again = ErasingRooms(rooms.data)
    assert users(again.data) == {KEPT: 1}
    with open_folder(again.data) as connection:
        assert connection.sql("SELECT user_id FROM sessions").fetchall() == [(KEPT,)]
    receipt = again.finish(rule)
    assert users(again.data) == {KEPT: 1}
    assert receipt["not_searched"] == []  # what was damaged went with what had taken its place
    assert holders(again.data) == set()
    again.close()


def test_a_damaged_file_can_be_given_up_and_the_receipt_says_so(rooms: ErasingRooms) -> None:
    rooms.append(of_subject(), of_other())
    rooms.flusher.flush()
    rooms.settle()
    (part,) = rooms.store.snapshot().parts
    path = rooms.data / part.location
    path.write_bytes(path.read_bytes()[:-9] + bytes(9))
    rule = rooms.erasure.begin(user())
    rooms.erasure.run()
    assert f"mallard erasures discard {rule}" in rooms.erasure.status()[0]["waits_for"]
    assert rooms.erasure.discard(rule) == 2
    with pytest.raises(InvalidInput, match="no damaged file"):
        rooms.erasure.discard(rule)
    receipt = rooms.finish(rule)
    assert receipt["discarded"] == {part.location: 2}
    assert receipt["files_before"] == {part.location: part.digest}
    assert holders(rooms.data) == set()
    assert not (rooms.data / "quarantine").exists()
    assert verify(rooms.data, rooms.files).problems == []


def test_the_log_goes_on_while_what_it_held_goes(rooms: ErasingRooms) -> None:
    rooms.append(of_subject())
    rule = rooms.erasure.begin(user())
    for number in range(5):
        rooms.append(of_other(event_name=f"e{number}"))
        rooms.erasure.run()
    rooms.finish(rule)
    assert holders(rooms.data) == set()
    assert users(rooms.data) == {KEPT: 5}


def test_what_came_in_while_the_subject_was_flushed_does_not_keep_the_log(
    rooms: ErasingRooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms.append(of_subject())
    publish = rooms.store.publish

    def publish_meanwhile(events: pa.Table, watermark: int) -> None:
        rooms.append(of_other())  # to the same segment of the log
        publish(events, watermark)

    with monkeypatch.context() as patch:
        patch.setattr(rooms.store, "publish", publish_meanwhile)
        rule = rooms.erasure.begin(user())
    assert "wal" in holders(rooms.data)
    rooms.finish(rule)
    assert holders(rooms.data) == set()
    assert users(rooms.data) == {KEPT: 1}


def test_a_rule_waits_for_what_queries_spilled_before_and_not_for_what_others_spill_since(
    rooms: ErasingRooms,
) -> None:
    rooms.append(of_subject(), of_other())
    rooms.flusher.flush()
    spilled = rooms.data / "tmp" / "query" / "before"
    spilled.parent.mkdir(parents=True, exist_ok=True)
    spilled.write_text(MARK)
    rule = rooms.erasure.begin(user())
    for _ in range(PROMPT_TRIES - 1):
        rooms.erasure.run()
    (active,) = rooms.erasure.status()
    assert (active["rule"], active["waits_for"]) == (rule, "queries that were under way")
    (spilled.parent / "since").write_text(KEPT)
    spilled.unlink()
    rooms.finish(rule)
    assert holders(rooms.data) == set()


def test_a_job_that_is_interrupted_goes_on_at_the_next_start(
    rooms: ErasingRooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms.fill()
    rule = rooms.erasure.begin(user())
    swap, done = rooms.store.swap, []

    def interrupting(change: Change) -> None:
        swap(change)
        done.append(change.reason)
        rooms.erasure.interrupt()

    monkeypatch.setattr(rooms.store, "swap", interrupting)
    rooms.erasure.run()
    assert done == ["erasure"]
    rooms.close()
    again = ErasingRooms(rooms.data)
    assert users(again.data) == {KEPT: 4}
    again.finish(rule)
    assert holders(again.data) == set()
    assert users(again.data) == {KEPT: 4}
    again.close()


def test_what_waits_for_long_is_a_problem_to_be_told(rooms: ErasingRooms) -> None:
    rooms.fill()
    rule = rooms.erasure.begin(user())
    assert rooms.erasure.problems == []
    with rooms.store.reading():
        for _ in range(PROMPT_TRIES + 3):
            rooms.erasure.run()
        (problem,) = rooms.erasure.problems
    assert problem.startswith(f"the erasure {rule} waits for ")
    assert MARK not in problem
    rooms.finish(rule)
    assert rooms.erasure.problems == []


def test_only_so_many_rules_are_active_at_once(rooms: ErasingRooms) -> None:
    for number in range(RULES_MAX):
        rooms.store.swap(_rule_change(rooms, f"r{number}"))
    with pytest.raises(InvalidInput, match="are active"):
        rooms.erasure.begin(user())


def _rule_change(rooms: ErasingRooms, rule_id: str) -> Change:
    text = rule_text(user(), Terms("", 0, 2**60, ()))
    return Change("rule", rules_added=(Rule(rule_id, 0, 0, text, frozenset()),))


@settings(deadline=None, max_examples=4)
@given(
    st.lists(st.lists(VISITED_EVENTS, min_size=1, max_size=8), min_size=1, max_size=3),
    st.sampled_from(["ada", "bob"]),
    st.sampled_from([None, "2024-05-02"]),
)
def test_visits_of_what_is_left_are_those_of_plain_python(
    tmp_path_factory: pytest.TempPathFactory,
    flushes: list[list[Event]],
    name: str,
    date: str | None,
) -> None:
    rooms = ErasingRooms(tmp_path_factory.mktemp("data"))
    try:
        for number, events in enumerate(flushes):
            rooms.append(*events)
            rooms.flusher.flush()
            if number != len(flushes) - 1:
                rooms.settle()
        stored = oracle.store([event for events in flushes for event in events])
        definition = Definition(first_date=date, conditions=user(name).conditions)
        rule = rooms.erasure.begin(definition)
        left = [
            one
            for one in stored
            if one.event.user_id != name or oracle.day_of(one.event).isoformat() < (date or "")
        ]
        _assert_answers(rooms.data, left)
        rooms.finish(rule)
        _assert_answers(rooms.data, left)
        rooms.settle()
        _assert_answers(rooms.data, left)
        assert all(rooms.store.snapshot().is_settled(*day) for day in rooms.store.snapshot().days)
    finally:
        rooms.close()


def _assert_answers(data: Path, left: list[oracle.Stored]) -> None:
    columns = ", ".join(SESSION_SCHEMA.names)
    with open_folder(data) as connection:
        rows = connection.sql(f"SELECT {columns} FROM sessions").fetchall()
        positions = Counter(connection.sql("SELECT position FROM events").fetchall())
    found = [dict(zip(SESSION_SCHEMA.names, row, strict=True)) for row in rows]
    assert positions == Counter((one.position,) for one in left)

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return (row["site_id"], row["date"], row["visitor_id"], row["visit"])

    wanted = [visit.row() for visit in oracle.visits(left)]
    assert sorted(found, key=key) == sorted(wanted, key=key)
