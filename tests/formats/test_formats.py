"""Folders of old releases are read for ever, and say exactly what they said."""

from __future__ import annotations

import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.config import RetentionConfig
from mallard.files import Files
from mallard.jobs.backup import backup, restore
from mallard.jobs.expiry import Expiry
from mallard.jobs.verify import verify
from mallard.query.events import open_folder
from tests.factories import NOON_US, make_event
from tests.formats.make import BLOG, SHOP, make
from tests.rooms import Rooms
from tests.stored import Stored

V1 = Path(__file__).parent / "v1"

# By site and date: events, visitors, revenue. A rule leaves user_3 out.
EVENTS = [
    (BLOG, "2024-05-01", 3, 2, None),
    (BLOG, "2024-05-02", 5, 2, None),
    (BLOG, "2024-05-04", 4, 3, None),
    (SHOP, "2024-05-01", 16, 3, Decimal("139.93")),
    (SHOP, "2024-05-02", 11, 2, Decimal("59.97")),
    (SHOP, "2024-05-04", 11, 2, Decimal("59.97")),
]
# By site and date: visits, pageviews, events, bounces, milliseconds, of them looked at.
VISITS = [
    (BLOG, "2024-05-01", 2, 2, 2, 2, 0, None),
    (BLOG, "2024-05-02", 2, 3, 3, 1, 0, None),
    (BLOG, "2024-05-04", 3, 3, 3, 3, 0, None),
    (SHOP, "2024-05-01", 6, 9, 12, 3, 540_000, 124_500),
    (SHOP, "2024-05-02", 4, 6, 8, 2, 360_000, 83_000),
    (SHOP, "2024-05-04", 4, 6, 8, 2, 360_000, 83_000),
]


def ask(data: Path, query: str) -> list[tuple[Any, ...]]:
    with open_folder(data) as connection:
        rows: list[tuple[Any, ...]] = connection.sql(query).fetchall()
        return rows


def events(data: Path) -> list[tuple[Any, ...]]:
    return ask(
        data,
        "SELECT site_id, timestamp::DATE::VARCHAR, count(*), count(DISTINCT visitor_id), "
        "sum(revenue_amount) FROM events GROUP BY ALL ORDER BY ALL",
    )


def visits(data: Path) -> list[tuple[Any, ...]]:
    return ask(
        data,
        "SELECT site_id, date::VARCHAR, count(*), sum(pageviews), sum(events), sum(bounce::INT), "
        "sum(duration_ms), sum(engaged_ms) FROM sessions GROUP BY ALL ORDER BY ALL",
    )


@pytest.fixture(params=["kept", "made now"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the folder as version 1 wrote it, and the same as this version writes it."""
    if request.param == "kept":
        shutil.copytree(V1, tmp_path / "data")
    else:
        make(tmp_path / "data")
    return tmp_path / "data"


def test_it_verifies_and_everything_is_counted(data: Path) -> None:
    findings = verify(data, Files(), days=None)
    assert (findings.problems, findings.notes) == ([], [])
    assert (findings.part_rows, findings.log_events) == (56, 4)
    assert (findings.parts, findings.derived, findings.days) == (6, 6, 4)


def test_events_and_visits_are_those_it_was_written_with(data: Path) -> None:
    assert events(data) == EVENTS
    assert visits(data) == VISITS


def test_an_event_has_every_value_it_was_written_with(data: Path) -> None:
    rows = ask(
        data,
        "SELECT position, left(event_id::VARCHAR, 13), pathname, url, props, revenue_amount, "
        "revenue_currency, quantity, epoch_us(timestamp), epoch_us(received_at), visitor_id "
        f"FROM events WHERE event_name = 'purchase' AND site_id = '{SHOP}' ORDER BY ALL LIMIT 1",
    )
    at = NOON_US + 4 * 60_000_000 + 1
    assert rows == [
        (
            *(12, "018f340a-4780", "/pricing", "https://example.com/pricing", '{"plan":"prö"}'),
            *(Decimal("19.99"), "EUR", 2, at, at, -1),
        )
    ]
    assert ask(
        data,
        "SELECT DISTINCT ON (pathname) url, pathname, hostname FROM events "
        "WHERE site_id <> 'shop.example' OR pathname = '/thanks' ORDER BY pathname",
    ) == [
        ("https://blög.example:8443/post/0", "/post/0", "blög.example"),
        ("https://blög.example:8443/post/1", "/post/1", "blög.example"),
        ("https://shop.example/thanks?a=1#b", "/thanks", SHOP),
    ]


def test_a_server_goes_on_with_it(data: Path) -> None:
    stored = Stored(data, day=3)
    (rule,) = stored.store.snapshot().rules
    assert (rule.rule_id, len(rule.affected)) == ("0123456789ab", 2)
    assert [each.reason for each in stored.store.history()] == [
        *("flush", "flush", "flush", "compaction", "compaction", "compaction"),
        *("rollup", "rollup", "rule", "expiry", "flush", "flush"),
    ]
    Expiry(RetentionConfig(), stored.store, stored.clock).run()  # the day that left comes back
    stored.close()
    assert events(data) == [
        (BLOG, "2024-04-01", 2, 1, None),
        *EVENTS[:3],
        (SHOP, "2024-04-01", 6, 1, Decimal("19.99")),
        *EVENTS[3:],
    ]
    rooms = Rooms(data)
    rooms.append(make_event(site_id=SHOP, timestamp=NOON_US + 3 * DAY_US))
    rooms.close(flush=True)
    stored = Stored(data, day=5)
    stored.clock.us += 10**15  # the events of just now have a later time of storing
    stored.settle()
    stored.close()
    assert [row[2] for row in events(data)] == [2, 3, 5, 4, 6, 16, 11, 12]
    assert verify(data, Files(), days=None).problems == []


def test_it_can_be_backed_up_and_restored(data: Path, tmp_path: Path) -> None:
    assert backup(data, tmp_path / "backup", Files()).problems == []
    assert restore(tmp_path / "backup", tmp_path / "restored", Files()).problems == []
    assert verify(tmp_path / "restored", Files(), days=None).problems == []
    assert events(tmp_path / "restored") == EVENTS
    assert visits(tmp_path / "restored") == VISITS


def test_it_stays_small() -> None:
    sizes = [path.stat().st_size for path in V1.rglob("*") if path.is_file()]
    assert 15 < len(sizes) < 30
    assert sum(sizes) < 300_000
