"""The room's door: memory, freshness, and the thread that owns the database."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from mallard.accounts import accounts as room
from mallard.accounts.access import EVERYBODY, Scope
from mallard.accounts.accounts import Accounts
from mallard.accounts.control import Control
from mallard.accounts.migrations import VERSION_TABLE
from mallard.errors import Conflict, MallardError, Overloaded, StorageError, Unauthenticated
from mallard.site import Goal, Site
from tests.accounts.conftest import StandingClock

KEY = {"name": "reports", "scopes": ["stats:read"], "sites": "*"}


def test_what_nobody_has_said_anything_of_has_the_defaults(accounts: Accounts) -> None:
    directory = accounts.directory_now()
    assert directory.site("new.example") == Site("new.example")
    assert (directory.site("new.example").timezone, directory.site("x").currency) == ("UTC", None)
    assert (directory.goals_of("new.example"), directory.segments_of("new.example")) == ((), ())
    assert not directory.has_keys


async def test_a_change_is_in_the_next_directory(accounts: Accounts) -> None:
    before = await accounts.directory()
    await accounts.change(lambda control: control.sites.add("a.example", {"currency": "EUR"}))
    after = await accounts.directory()
    assert (before.site("a.example").currency, after.site("a.example").currency) == (None, "EUR")


def test_a_change_that_raises_changes_nothing(accounts: Accounts) -> None:
    def half(control: Control) -> None:
        control.sites.add("a.example", {})
        control.sites.add("a.example", {})

    with pytest.raises(Conflict):
        accounts.change_now(half)
    assert accounts.read_now(lambda control: control.sites.all()) == []
    assert accounts.directory_now().sites == {}


def test_a_revoked_key_is_refused_at_once(accounts: Accounts) -> None:
    key, token = accounts.change_now(lambda control: control.keys.create(KEY))
    assert accounts.directory_now().authenticate(token).key_id == key.key_id
    accounts.change_now(lambda control: control.keys.revoke(key.key_id))
    with pytest.raises(Unauthenticated):
        accounts.directory_now().authenticate(token)


def test_what_another_process_changes_is_seen_half_a_second_later(
    path: Path, accounts: Accounts, clock: StandingClock
) -> None:
    key, token = accounts.change_now(lambda control: control.keys.create(KEY))
    other = Accounts(path, clock)
    other.change_now(lambda control: control.keys.revoke(key.key_id))
    other.close()
    assert accounts.directory_now().authenticate(token)  # what it knew a moment ago
    clock.pass_by(room.FRESH_SECONDS)
    with pytest.raises(Unauthenticated):
        accounts.directory_now().authenticate(token)


def test_a_look_at_what_did_not_change_keeps_the_directory(
    accounts: Accounts, clock: StandingClock
) -> None:
    accounts.change_now(lambda control: control.sites.add("a.example", {}))
    first = accounts.directory_now()
    clock.pass_by(60)
    assert accounts.directory_now() is first


async def test_all_who_ask_at_once_share_an_answer_and_one_may_give_up(
    accounts: Accounts, clock: StandingClock
) -> None:
    clock.pass_by(60)
    asked = [asyncio.ensure_future(accounts.directory()) for _ in range(room.WAITING_MAX * 2)]
    await asyncio.sleep(0)
    asked[0].cancel()
    answers = await asyncio.gather(*asked[1:])
    assert len({id(directory) for directory in answers}) == 1
    assert asked[0].cancelled()


def test_more_changes_than_can_wait_are_refused(
    accounts: Accounts,
) -> None:
    go_on = threading.Event()
    waiting = [accounts._submit(go_on.wait) for _ in range(room.WAITING_MAX)]
    with pytest.raises(Overloaded):
        accounts.change_now(lambda control: control.sites.add("a.example", {}))
    go_on.set()
    assert all(future.result() for future in waiting)
    accounts.change_now(lambda control: control.sites.add("a.example", {}))


def test_the_use_of_a_key_is_kept_by_day(accounts: Accounts, clock: StandingClock) -> None:
    _, token = accounts.change_now(lambda control: control.keys.create(KEY))

    def last_used() -> str:
        accounts.note_use(accounts.directory_now().authenticate(token))
        (key,) = accounts.read_now(lambda control: control.keys.all())
        return str(key.last_used_on)

    version = accounts.read_now(lambda control: control.version())
    assert [last_used(), last_used()] == ["2024-05-01"] * 2
    clock.pass_by(86_400)
    assert last_used() == "2024-05-02"
    assert accounts.read_now(lambda control: control.version()) == version  # nobody looks again


def test_a_use_that_cannot_be_noted_harms_nobody(
    accounts: Accounts, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mallard.accounts.database.BUSY_SECONDS", 0.0)
    _, token = accounts.change_now(lambda control: control.keys.create(KEY))
    principal = accounts.directory_now().authenticate(token)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Overloaded):  # a change says so
        accounts.change_now(lambda control: control.sites.add("a.example", {}))
    accounts.note_use(principal)
    accounts.read_now(lambda control: control.version())  # which waits for the one before
    holder.execute("ROLLBACK")
    holder.close()
    accounts.note_use(principal)
    (key,) = accounts.read_now(lambda control: control.keys.all())
    assert str(key.last_used_on) == "2024-05-01"


def test_a_start_without_anything_to_do_loads_no_library(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from mallard.accounts.accounts import Accounts; from mallard.clock import Clock\n"
        f"accounts = Accounts(Path({str(path)!r}), Clock())\n"
        "accounts.start()\n"
        "early = {'sqlalchemy', 'alembic'} & {*sys.modules}\n"
        "accounts.directory_now(); accounts.close()\n"
        "sys.exit(repr((sorted(early), 'sqlalchemy' in sys.modules, 'alembic' in sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr.strip() == "([], True, False)"


def test_the_tables_of_a_newer_version_stop_the_start(
    path: Path, accounts: Accounts, clock: StandingClock
) -> None:
    accounts.directory_now()
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    database.close()
    newer = Accounts(path, clock)
    with pytest.raises(StorageError, match="newer Mallard"):
        newer.start()
    newer.close()


@pytest.mark.parametrize("content", [b"no database " * 1000, None])
def test_a_database_that_cannot_be_read_is_an_error_and_not_an_empty_one(
    path: Path, clock: StandingClock, content: bytes | None
) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    accounts = Accounts(path, clock)
    with pytest.raises(StorageError):
        accounts.start()
    with pytest.raises(StorageError):
        accounts.directory_now()
    accounts.close()
    assert path.exists() == (content is not None)


CHANGER = """
import sys
from pathlib import Path
from mallard.accounts.accounts import Accounts
from mallard.clock import Clock
path, name = Path(sys.argv[1]), sys.argv[2]
accounts = Accounts(path, Clock())
print("ready", flush=True)
sys.stdin.readline()
for number in range(15):
    accounts.change_now(
        lambda control: control.goals.add("a.example", {"event_name": f"{name} {number}"})
    )
    accounts.change_now(lambda control: control.keys.create(
        {"name": name, "scopes": ["sql"], "sites": ["a.example"]}
    ))
accounts.close()
"""


def test_two_processes_change_at_once_and_nothing_is_lost(path: Path, accounts: Accounts) -> None:
    """From the very first table on, which both want to make."""
    changers = [
        subprocess.Popen(
            [sys.executable, "-c", CHANGER, str(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name in ("one", "two")
    ]
    for changer in changers:
        assert changer.stdout is not None
        assert changer.stdout.readline() == b"ready\n"
    for changer in changers:
        assert changer.stdin is not None
        changer.stdin.write(b"go\n")
        changer.stdin.flush()
    said = [changer.communicate(timeout=60)[1] for changer in changers]
    assert said == [b"", b""]
    directory = accounts.directory_now()
    assert {goal.display_name for goal in directory.goals_of("a.example")} == {
        f"{name} {number}" for name in ("one", "two") for number in range(15)
    }
    assert (len(directory.keys), directory.version) == (30, 60)


def test_a_full_disk_refuses_the_change_and_the_rest_goes_on(accounts: Accounts) -> None:
    _, token = accounts.change_now(lambda control: control.keys.create(KEY))

    def fill(control: Control) -> None:
        # What a full disk says too, here of a file that may not grow.
        control._connection.exec_driver_sql("PRAGMA max_page_count = 1")
        for number in range(100):
            control.goals.add("a.example", {"event_name": f"{number} " + "x" * 200})

    with pytest.raises(StorageError, match="full"):
        accounts.change_now(fill)
    assert accounts.directory_now().authenticate(token)
    assert accounts.read_now(lambda control: control.goals.all()) == []


def test_no_token_is_on_disk(path: Path, accounts: Accounts) -> None:
    _, token = accounts.change_now(lambda control: control.keys.create(KEY))
    accounts.directory_now().authenticate(token)
    written = [file.read_bytes() for file in path.parent.iterdir()]
    secret = token.removeprefix("mal_")
    assert any(b"reports" in content for content in written)  # the search finds what is there
    for form in (secret.encode(), secret[:16].encode(), bytes.fromhex(secret)):
        assert not any(form in content for content in written)


def test_the_files_are_their_owners_alone(path: Path, accounts: Accounts) -> None:
    accounts.change_now(lambda control: control.sites.add("a.example", {}))
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(["mallard.db", "mallard.db-wal", "mallard.db-shm"], 0o600)


def test_what_is_removed_leaves_no_bytes(path: Path, clock: StandingClock) -> None:
    accounts = Accounts(path, clock)
    accounts.change_now(lambda control: control.sites.add("zqxmark.example", {}))
    accounts.change_now(lambda control: control.sites.remove("zqxmark.example"))
    accounts.close()  # the last one to close writes the log back
    assert not any(b"zqxmark" in file.read_bytes() for file in path.parent.iterdir())


def test_filters_that_the_engine_refuses_are_refused(path: Path, clock: StandingClock) -> None:
    def refuse(filters: list[object], goals: Sequence[Goal]) -> None:
        raise MallardError(f"no sense in {len(filters)} filters, {len(goals)} goals")

    accounts = Accounts(path, clock, refuse)
    with pytest.raises(MallardError, match="no sense in 1 filters, 0 goals"):
        accounts.change_now(
            lambda control: control.segments.add("a", {"name": "x", "filters": [["is"]]})
        )
    accounts.close()


def test_everybody_reads_and_changes_nothing() -> None:
    assert all(EVERYBODY.may(scope, "a") for scope in Scope if scope is not Scope.ADMIN)
    assert not EVERYBODY.may(Scope.ADMIN, "a")
