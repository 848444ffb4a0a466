from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mallard.ingest.bots import Bots
from mallard.ingest.hindsight import ATTRIBUTED_BY, Hindsight
from mallard.ingest.referrer import Referrers
from mallard.jobs import reclassify
from mallard.jobs.reclassify import Limits, Reclassification
from mallard.query.events import open_folder
from tests.erasing import WORK, ErasingRooms
from tests.factories import NOON_US, make_event

DAY_US = 86_400_000_000


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[ErasingRooms]:
    rooms = ErasingRooms(tmp_path / "data")
    yield rooms
    rooms.close()


def reclassification(rooms: ErasingRooms, *blocked: str) -> Reclassification:
    judge = Hindsight(Bots(), Referrers(blocked))
    return Reclassification(
        WORK, rooms.data, rooms.store, rooms.flusher, judge, judge.attribute, ATTRIBUTED_BY
    )


def sources(data: Path) -> list[tuple[str | None, str | None]]:
    with open_folder(data) as connection:
        return connection.sql(
            "SELECT referrer_source, channel FROM events ORDER BY position"
        ).fetchall()


def test_history_gets_the_sources_and_channels_of_todays_map(rooms: ErasingRooms) -> None:
    google = "https://www.google.com/"
    rooms.append(
        # As an older map had it, that knew neither; then as it is today; then by a tag.
        make_event(referrer=google, referrer_source="google.com", channel="Referral"),
        make_event(referrer=google, referrer_source="Google", channel="Organic Search"),
        make_event(referrer=google, referrer_source="google.com", channel="Referral"),
        make_event(utm_source="newsletter", referrer_source="newsletter", channel="Referral"),
        make_event(channel=None),
    )
    rooms.flusher.flush()
    rooms.settle()
    proposal = reclassification(rooms).sources()
    assert proposal.changes == [
        ("google.com (Referral) becomes Google (Organic Search)", 2),
        ("newsletter (Referral) becomes newsletter (Email)", 1),
    ]
    assert proposal.definition is not None
    rule = rooms.erasure.begin(proposal.definition)
    expected = [
        *[("Google", "Organic Search")] * 3,
        ("newsletter", "Email"),
        (None, None),
    ]
    assert sources(rooms.data) == expected
    rooms.finish(rule)
    assert sources(rooms.data) == expected
    assert reclassification(rooms).sources().definition is None


def test_a_source_that_a_link_named_in_a_tag_is_kept(rooms: ErasingRooms) -> None:
    rooms.append(
        make_event(
            referrer="https://x.example/", referrer_source="Product Hunt", channel="Organic Social"
        )
    )
    assert reclassification(rooms).sources().definition is None


def test_referrers_that_are_blocked_now_are_proposed_with_all_that_is_below_them(
    rooms: ErasingRooms,
) -> None:
    spam, fine = "https://deep.spam.example/x", "https://notspam.example/"
    rooms.append(*(make_event(referrer=each) for each in (spam, fine, None, spam)))
    proposal = reclassification(rooms, "spam.example").spam()
    assert proposal.changes == [(spam, 2)]
    assert proposal.definition is not None
    rooms.finish(rooms.erasure.begin(proposal.definition))
    with open_folder(rooms.data) as connection:
        assert connection.sql("SELECT referrer FROM events").fetchall() == [(fine,), (None,)]


def test_bots_that_go_by_a_name_of_their_own_are_found(rooms: ErasingRooms) -> None:
    names = ("Googlebot", "HeadlessChrome", "Chrome", "Cubot", None)
    rooms.append(*(make_event(browser=name) for name in names))
    found = reclassification(rooms).bots()
    assert dict(found.changes) == {"Googlebot": 1, "HeadlessChrome": 1}


def test_a_proposal_stays_within_its_site_and_dates(rooms: ErasingRooms) -> None:
    spam = "https://spam.example/"
    for site in ("a.example", "b.example"):
        rooms.append(
            *(
                make_event(site_id=site, referrer=spam, timestamp=NOON_US + day * DAY_US)
                for day in range(3)
            )
        )
    spams = reclassification(rooms, "spam.example")
    assert spams.spam().changes == [(spam, 6)]
    proposal = spams.spam(Limits("a.example", "2024-05-02", "2024-05-02"))
    assert proposal.changes == [(spam, 1)]
    assert proposal.definition is not None
    assert rooms.erasure.preview(proposal.definition).counts == {("a.example", "2024-05-02"): 1}


def test_what_is_too_much_for_one_rule_is_left_to_another(
    rooms: ErasingRooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclassify, "MAPPED_MAX", 2)
    monkeypatch.setattr(reclassify, "VALUES_MAX", 2)
    hosts = ["a.example", *["b.example"] * 2, *["c.example"] * 3]
    rooms.append(
        *(make_event(referrer=f"https://{host}/", referrer_source="", channel="") for host in hosts)
    )
    first = reclassification(rooms).sources()
    # "" is a source that no list explains, and is kept; its channel is not.
    assert (sum(events for _, events in first.changes), first.left) == (5, 1)
    assert first.definition is not None
    rooms.erasure.begin(first.definition)
    second = reclassification(rooms).sources()
    assert (sum(events for _, events in second.changes), second.left) == (1, 0)
    spam = reclassification(rooms, "example").spam()
    assert (spam.changes, spam.left) == (
        [("https://c.example/", 3), ("https://b.example/", 2)],
        1,
    )


def test_an_empty_store_proposes_nothing(rooms: ErasingRooms) -> None:
    assert reclassification(rooms).bots().definition is None
