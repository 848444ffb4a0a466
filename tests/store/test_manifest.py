from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from mallard.errors import StorageError
from mallard.files import Files
from mallard.store.manifest import Manifest
from mallard.store.part import Part
from mallard.store.snapshot import Change
from tests.faults import FailingCommits


def make_part(name: str, position_sum: int = 3, last_loaded_at: int = 9) -> Part:
    return Part(
        location=f"recent/{name}.parquet",
        level=0,
        date="2024-05-01",
        sites=("a.example",),
        rows=2,
        size_bytes=100,
        first_position=1,
        last_position=2,
        position_sum=position_sum,
        first_timestamp=5,
        last_timestamp=6,
        last_loaded_at=last_loaded_at,
        schema_version=1,
        digest="00",
    )


def test_a_version_is_parts_in_parts_out_and_the_watermark_and_survives_reopening(
    tmp_path: Path,
) -> None:
    manifest = Manifest(tmp_path / "mallard.db", Files())
    old, new = make_part("old"), make_part("new", position_sum=2**70)
    assert manifest.snapshot().recent == ()
    assert manifest.snapshot().watermark == 0
    manifest.commit(1, Change("flush", added=(old,)), 2, 9)
    manifest.commit(2, Change("compaction", added=(new,), removed=(old,)), 7, 9)
    node = manifest.node()
    manifest.close()
    reopened = Manifest(tmp_path / "mallard.db", Files())
    snapshot = reopened.snapshot()
    assert (snapshot.version, snapshot.watermark, snapshot.recent) == (2, 7, (new,))
    assert reopened.node() == node
    assert 0 <= node <= 0xFFF
    reopened.close()


def test_a_quarantined_part_is_not_live_until_it_is_taken_back(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "mallard.db", Files())
    good, bad = make_part("good"), make_part("bad", last_loaded_at=50)
    manifest.commit(
        1,
        Change(
            "flush",
            added=(
                good,
                bad,
            ),
        ),
        2,
        9,
    )
    manifest.commit(2, Change("check"), 2, 50, quarantined=[(bad, "is missing")])
    assert manifest.snapshot().recent == (good,)
    assert manifest.snapshot().quarantined == ((bad, "is missing"),)
    assert manifest.snapshot().last_loaded_at == 50  # it may come back, and time must not go back
    manifest.commit(3, Change("check"), 2, 50, quarantined=[(bad, None)])
    assert set(manifest.snapshot().recent) == {good, bad}
    manifest.close()


@pytest.mark.parametrize(("when", "watermark"), [("before", 0), ("after", 2)])
def test_a_commit_that_fails_raises_and_the_next_one_works(
    when: str, watermark: int, tmp_path: Path
) -> None:
    files = FailingCommits()
    manifest = Manifest(tmp_path / "mallard.db", files)
    files.fail = when
    with pytest.raises(StorageError, match="could not be written"):
        manifest.commit(1, Change("flush", added=(make_part("a"),)), 2, 9)
    assert manifest.snapshot().watermark == watermark
    files.fail = ""
    manifest.commit(1, Change("flush", added=(make_part("b"),)), 3, 9)
    assert manifest.snapshot().watermark == 3
    manifest.close()


def test_the_same_part_twice_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "mallard.db", Files())
    manifest.commit(1, Change("flush", added=(make_part("a"),)), 2, 9)
    with pytest.raises(StorageError):
        manifest.commit(
            1,
            Change(
                "flush",
                added=(
                    make_part("b"),
                    make_part("a"),
                ),
            ),
            9,
            9,
        )
    assert manifest.snapshot().watermark == 2
    assert manifest.snapshot().recent == (make_part("a"),)
    manifest.close()


def test_a_database_of_a_newer_format_or_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mallard.db"
    Manifest(path, Files()).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE manifest_format SET version = 3")
    database.close()
    with pytest.raises(StorageError, match="newer Mallard"):
        Manifest(path, Files())
    path.write_bytes(b"this is no database" * 1_000)
    with pytest.raises(StorageError, match="cannot be opened"):
        Manifest(path, Files())


def test_a_reader_sees_commits_as_they_come_and_can_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mallard.db"
    manifest = Manifest(path, Files())
    reader = Manifest(path, Files(), read_only=True)
    manifest.commit(1, Change("flush", added=(make_part("a"),)), 2, 9)
    assert reader.snapshot().watermark == 2
    with pytest.raises(StorageError):
        reader.commit(1, Change("flush"), 3, 9)
    manifest.close()
    assert reader.snapshot().watermark == 2
    reader.close()
    closed = Manifest(path, Files(), read_only=True)  # nobody has it open
    assert closed.snapshot().watermark == 2
    closed.close()


def test_a_snapshot_that_cannot_be_read_is_a_storage_error(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "mallard.db", Files())
    with sqlite3.connect(tmp_path / "mallard.db") as database:
        database.execute("DROP TABLE manifest_part")
    database.close()
    with pytest.raises(StorageError, match="cannot be read"):
        manifest.snapshot()
    manifest.close()


def test_the_database_is_its_owners_alone(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "mallard.db", Files())
    manifest.commit(1, Change("flush"), 2, 9)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    manifest.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE manifest_version SET detail = '{'",
        "UPDATE manifest_part SET sites = 'nonsense'",
        "UPDATE manifest_part SET sites = '7'",
        "INSERT INTO manifest_receipt VALUES ('rule', 1, '{')",
        "INSERT INTO manifest_rule VALUES ('rule', 1, 1, '', '[1]')",
    ],
)
def test_a_manifest_that_says_nonsense_is_refused_in_words(statement: str, tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "mallard.db", Files())
    manifest.commit(1, Change("flush", added=(make_part("one"),)), 2, 9)
    manifest._database.execute(statement)
    with pytest.raises(StorageError, match="Restore it from a backup"):
        for read in (manifest.snapshot, manifest.history, manifest.receipts):
            read()
    manifest.close()


def test_a_database_whose_names_are_no_text_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "mallard.db"
    manifest = Manifest(path, Files())
    manifest.compact()
    manifest.close()
    path.write_bytes(
        path.read_bytes().replace(b"CREATE TABLE manifest_", b"CREATE TABLE \xff\xd4nifest_")
    )
    for read_only in (True, False):
        with pytest.raises(StorageError, match="Restore it from a"):
            Manifest(path, Files(), read_only=read_only)


def test_a_database_that_is_damaged_anywhere_is_known_to_be(tmp_path: Path) -> None:
    path = tmp_path / "mallard.db"
    manifest = Manifest(path, Files())
    assert manifest.damage() is None
    manifest._database.execute("CREATE TABLE others (name TEXT UNIQUE)")
    manifest._database.execute("INSERT INTO others VALUES ('found me')")
    manifest.compact()
    manifest.close()
    content = path.read_bytes()
    at = content.rindex(b"found me")  # in the index, or in the table, but not in both
    path.write_bytes(content[:at] + b"lost" + content[at + 4 :])
    manifest = Manifest(path, Files(), read_only=True)
    assert "others" in str(manifest.damage())
    manifest.close()
