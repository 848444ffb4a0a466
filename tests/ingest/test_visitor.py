"""Pseudonyms of a day, and the salts they are made with."""

from __future__ import annotations

import errno
import hmac
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.clock import MICROSECONDS_PER_DAY
from mallard.config import PrivacyConfig
from mallard.errors import CorruptData, Overloaded, StorageError
from mallard.files import Files
from mallard.ingest.visitor import AHEAD_US, GRACE_US, DayKey, Visitors
from tests.factories import ADDRESS, CHROME, NOON_US
from tests.faults import Crash, Fault, FaultyFiles
from tests.ingest.texts import any_text

DERIVED = PrivacyConfig(visitor_salt="derived", secret="a secret that servers share")
RANDOM = PrivacyConfig(visitor_salt="random", secret="a secret that servers share")
SITE = "example.com"
DAY = MICROSECONDS_PER_DAY
MIDNIGHT_US = NOON_US + DAY // 2
# Computed apart from the code, by RFC 2104 over hashlib: a change here doubles a day's visitors.
DERIVED_ID = 5365273436224021893
CLIENT_ID = 4115742467267143841
TODAY, TOMORROW = "2024-05-01", "2024-05-02"


def visitors(folder: Path, config: PrivacyConfig = RANDOM, files: Files | None = None) -> Visitors:
    return Visitors(config, folder, files or Files())


def salts(folder: Path) -> list[str]:
    return Files().names(folder / "salts")


def someone(keeper: Visitors, at_us: int = NOON_US) -> int | None:
    return keeper.visitor_id(SITE, ADDRESS, CHROME, at_us)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_one_person_is_one_visitor_all_day(tmp_path: Path) -> None:
    keeper = visitors(tmp_path)
    assert someone(keeper) == someone(keeper, NOON_US + 3_600_000_000)
    assert someone(keeper) is not None


def test_another_address_agent_site_or_day_is_another_visitor(tmp_path: Path) -> None:
    keeper = visitors(tmp_path)
    ids = {
        someone(keeper),
        keeper.visitor_id(SITE, "203.0.113.8", CHROME, NOON_US),
        keeper.visitor_id(SITE, ADDRESS, "curl/8.5.0", NOON_US),
        keeper.visitor_id("example.org", ADDRESS, CHROME, NOON_US),
        someone(keeper, MIDNIGHT_US),
    }
    assert len(ids) == 5


@pytest.mark.parametrize("config", [RANDOM, DERIVED])
def test_the_day_turns_at_midnight_utc_and_not_a_microsecond_before(
    tmp_path: Path, config: PrivacyConfig
) -> None:
    keeper = visitors(tmp_path, config)
    assert someone(keeper, MIDNIGHT_US - 1) == someone(keeper, NOON_US)
    assert someone(keeper, MIDNIGHT_US) == someone(keeper, MIDNIGHT_US + DAY - 1)
    assert someone(keeper, MIDNIGHT_US - 1) != someone(keeper, MIDNIGHT_US)


def test_an_id_is_known_to_be_made_so(tmp_path: Path) -> None:
    keeper = visitors(tmp_path, DERIVED)
    assert someone(keeper) == DERIVED_ID
    assert keeper.client_visitor_id(SITE, "user-1", NOON_US) == CLIENT_ID


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=3_000))
def test_a_day_key_hashes_as_the_hmac_of_the_standard_library_does(key: bytes, text: bytes) -> None:
    assert DayKey(key).digest(text) == hmac.digest(key, text, "sha256")


def test_an_id_fits_a_signed_64_bit_column(tmp_path: Path) -> None:
    keeper = visitors(tmp_path, DERIVED)
    ids = [keeper.visitor_id(SITE, f"203.0.113.{i}", CHROME, NOON_US) or 0 for i in range(256)]
    assert all(-(2**63) <= value < 2**63 for value in ids)
    assert min(ids) < 0 < max(ids)


def test_servers_that_share_the_secret_agree_where_the_salt_is_derived(tmp_path: Path) -> None:
    one, other = visitors(tmp_path / "a", DERIVED), visitors(tmp_path / "b", DERIVED)
    assert someone(one) == someone(other)
    assert not (tmp_path / "a").exists()


def test_random_salts_of_two_servers_share_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert someone(visitors(tmp_path / "a")) != someone(visitors(tmp_path / "b"))


def test_a_restart_within_the_day_keeps_its_visitors(tmp_path: Path) -> None:
    before = someone(visitors(tmp_path))
    keeper = visitors(tmp_path)
    keeper.prepare(NOON_US)
    keeper.destroy_expired(NOON_US)
    assert someone(keeper) == before


def test_client_ids_of_a_past_day_meet_their_visitor_again(tmp_path: Path) -> None:
    keeper = visitors(tmp_path)
    then = keeper.client_visitor_id(SITE, "user-1", NOON_US)
    keeper.prepare(NOON_US + 90 * DAY)
    keeper.destroy_expired(NOON_US + 90 * DAY)
    assert keeper.client_visitor_id(SITE, "user-1", NOON_US) == then
    assert keeper.client_visitor_id(SITE, "user-1", NOON_US + DAY) != then


def test_secret_and_salts_are_for_their_owner_alone(tmp_path: Path) -> None:
    keeper = visitors(tmp_path, PrivacyConfig())
    keeper.prepare(NOON_US)
    assert permissions(tmp_path / "secret") == 0o600
    assert permissions(tmp_path / "salts") == 0o700
    assert permissions(tmp_path / "salts" / TODAY) == 0o600
    assert len(bytes.fromhex((tmp_path / "secret").read_text())) == 32


def test_a_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    first = visitors(tmp_path, PrivacyConfig()).client_visitor_id(SITE, "user-1", NOON_US)
    assert visitors(tmp_path, PrivacyConfig()).client_visitor_id(SITE, "user-1", NOON_US) == first


def test_a_secret_in_the_settings_is_not_written_down(tmp_path: Path) -> None:
    visitors(tmp_path).prepare(NOON_US)
    assert Files().names(tmp_path) == ["salts"]


def test_an_empty_secret_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    with pytest.raises(CorruptData, match="empty"):
        visitors(tmp_path, PrivacyConfig())


def test_a_secret_that_cannot_be_kept_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="secret"):
        visitors(tmp_path / "missing", PrivacyConfig())


def test_tomorrows_salt_is_ready_before_midnight(tmp_path: Path) -> None:
    keeper = visitors(tmp_path)
    keeper.prepare(MIDNIGHT_US - AHEAD_US - 1)
    assert salts(tmp_path) == [TODAY]
    keeper.prepare(MIDNIGHT_US - AHEAD_US)
    keeper.destroy_expired(MIDNIGHT_US - AHEAD_US)
    assert salts(tmp_path) == [TODAY, TOMORROW]


def test_within_the_grace_yesterday_keeps_its_visitors(tmp_path: Path) -> None:
    keeper = visitors(tmp_path)
    before = someone(keeper)
    keeper.prepare(MIDNIGHT_US + GRACE_US - 1)
    keeper.destroy_expired(MIDNIGHT_US + GRACE_US - 1)
    assert someone(keeper) == before


def test_after_the_grace_yesterday_is_nobody_and_nothing_on_disk(tmp_path: Path) -> None:
    keeper = visitors(tmp_path)
    someone(keeper)
    keeper.prepare(MIDNIGHT_US + GRACE_US)
    keeper.destroy_expired(MIDNIGHT_US + GRACE_US)
    assert salts(tmp_path) == [TOMORROW]
    assert someone(keeper) is None
    assert salts(tmp_path) == [TOMORROW]


def test_a_derived_day_can_always_be_made_again(tmp_path: Path) -> None:
    keeper = visitors(tmp_path, DERIVED)
    before = someone(keeper)
    keeper.prepare(MIDNIGHT_US + DAY)
    keeper.destroy_expired(MIDNIGHT_US + DAY)
    assert someone(keeper) == before


def test_a_salt_is_overwritten_before_it_is_removed(tmp_path: Path) -> None:
    class Witness(Files):
        content = b""

        def remove(self, path: Path) -> None:
            self.content = path.read_bytes()
            super().remove(path)

    files = Witness()
    keeper = visitors(tmp_path, files=files)
    keeper.prepare(NOON_US)
    keeper.destroy_expired(MIDNIGHT_US + GRACE_US)
    assert files.content == bytes(64)


def test_salts_found_at_the_start_of_a_later_day_are_destroyed(tmp_path: Path) -> None:
    visitors(tmp_path).prepare(NOON_US)
    (tmp_path / "salts" / f"{TODAY}.tmp").write_text("half a salt")
    (tmp_path / "salts" / "20240502").write_text("another spelling of a date")
    keeper = visitors(tmp_path)
    keeper.prepare(NOON_US + 3 * DAY)
    keeper.destroy_expired(NOON_US + 3 * DAY)
    assert salts(tmp_path) == ["2024-05-04"]


def test_a_clock_set_back_to_a_destroyed_day_makes_a_new_salt(tmp_path: Path) -> None:
    keeper = visitors(tmp_path)
    before = someone(keeper)
    keeper.prepare(NOON_US + 3 * DAY)
    keeper.destroy_expired(NOON_US + 3 * DAY)
    keeper.prepare(NOON_US)
    keeper.destroy_expired(NOON_US)
    assert someone(keeper) not in {None, before}
    assert salts(tmp_path) == [TODAY]


def test_a_file_that_holds_no_salt_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "salts").mkdir()
    (tmp_path / "salts" / TODAY).write_text("not hex")
    visitors(tmp_path).prepare(NOON_US)
    assert len(bytes.fromhex((tmp_path / "salts" / TODAY).read_text())) == 32


def test_threads_around_midnight_agree_on_two_visitors(tmp_path: Path) -> None:
    keeper = visitors(tmp_path)

    def work(i: int) -> tuple[bool, int | None]:
        at_us = MIDNIGHT_US - 100 + i
        if i % 20 == 0:
            keeper.prepare(at_us)
            keeper.destroy_expired(at_us)
        return at_us < MIDNIGHT_US, someone(keeper, at_us)

    with ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(work, range(200)))
    assert len(seen) == 2
    assert len({visitor for _, visitor in seen}) == 2


def test_a_disk_that_takes_no_salt_refuses_the_event_for_now(tmp_path: Path) -> None:
    class FullDisk(Files):
        full = True

        def write(self, descriptor: int, data: bytes, at: int | None = None) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write(descriptor, data, at)

    files = FullDisk()
    keeper = visitors(tmp_path, files=files)
    with pytest.raises(Overloaded):
        someone(keeper)
    with pytest.raises(StorageError):
        keeper.prepare(NOON_US)
    files.full = False
    assert someone(keeper) is not None


def test_after_a_crash_at_any_step_the_day_has_the_visitors_it_had(tmp_path: Path) -> None:
    now = MIDNIGHT_US + GRACE_US

    def turn(folder: Path, files: Files, made: list[int | None]) -> None:
        keeper = visitors(folder, files=files)
        keeper.prepare(NOON_US)
        someone(keeper)
        keeper.prepare(now)
        made.append(someone(keeper, now))
        keeper.destroy_expired(now)

    counting = FaultyFiles(0, Fault.EIO)
    (tmp_path / "0").mkdir()
    turn(tmp_path / "0", counting, [])
    crashes = 0
    for step in range(1, counting.steps + 1):
        for fault in (Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.POWER_LOSS):
            folder = tmp_path / f"{step}-{fault.name}"
            folder.mkdir()
            made: list[int | None] = []
            files = FaultyFiles(step, fault)
            with suppress(Crash):
                turn(folder, files, made)
            crashes += files.crashed
            keeper = visitors(folder)
            keeper.prepare(now)
            keeper.destroy_expired(now)
            assert salts(folder) == [TOMORROW]
            assert made in ([], [someone(keeper, now)])
    # The step that looks for a salt and finds no file raises before a crash after it.
    assert crashes >= 3 * counting.steps - 4 > 40


def test_an_error_at_any_step_is_told_and_the_next_try_succeeds(tmp_path: Path) -> None:
    for step in range(1, 40):
        folder = tmp_path / str(step)
        folder.mkdir()
        visitors(folder).prepare(NOON_US)
        files = FaultyFiles(step, Fault.EIO)
        keeper = visitors(folder, files=files)
        now = MIDNIGHT_US + GRACE_US
        try:
            keeper.prepare(now)
            keeper.destroy_expired(now)
        except StorageError:
            keeper.prepare(now)
            keeper.destroy_expired(now)
        else:
            assert files.steps < step
            break
        assert salts(folder) == [TOMORROW]
    else:
        pytest.fail("the turn of a day takes more steps than this test knows of")


texts = any_text
addresses = st.ip_addresses().map(str) | any_text
instants = st.integers(0, 4_102_444_800_000_000)  # to the year 2100


@given(st.lists(st.tuples(texts, addresses, texts, instants), min_size=2, max_size=6))
def test_ids_are_a_function_of_what_they_are_made_of(
    identities: list[tuple[str, str, str, int]],
) -> None:
    with TemporaryDirectory() as folder:
        one, other = visitors(Path(folder), DERIVED), visitors(Path(folder), DERIVED)
        ids = [one.visitor_id(*identity) for identity in identities]
        assert [other.visitor_id(*identity) for identity in reversed(identities)] == ids[::-1]
    different = {(site, address, agent, at // DAY) for site, address, agent, at in identities}
    assert len(set(ids)) == len(different)


@given(texts, texts, addresses, texts, instants)
def test_sites_modes_and_kinds_of_identity_share_no_visitor(
    site: str, other_site: str, address: str, agent: str, at_us: int
) -> None:
    with TemporaryDirectory() as folder:
        random, derived = visitors(Path(folder)), visitors(Path(folder), DERIVED)
        ids = [
            keeper.visitor_id(name, address, agent, at_us)
            for keeper in (random, derived)
            for name in {site, other_site}
        ]
        ids += [
            derived.client_visitor_id(name, client, at_us)
            for name in {site, other_site}
            for client in {agent, address, address + agent}
        ]
    assert len(set(ids)) == len(ids)
