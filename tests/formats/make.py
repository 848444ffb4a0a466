"""Writes a small data folder as this version does, for later versions to open.

`python -m tests.formats.make DIR` wrote `tests/formats/v1/`; it is not run again for that version.
What the folder holds is printed in `test_formats.py`.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from decimal import Decimal
from pathlib import Path

from mallard.buffer.buffer import Buffer
from mallard.clock import MICROSECONDS_PER_DAY as DAY_US
from mallard.config import BufferConfig, RetentionConfig
from mallard.event import Event, Frame, to_table
from mallard.files import Files
from mallard.jobs.expiry import Expiry
from mallard.jobs.receipt import Terms, rule_text
from mallard.query.rules import Condition, Definition
from mallard.store.manifest import settle
from mallard.store.snapshot import Change, Rule
from mallard.telemetry import Telemetry
from tests.factories import NOON_US, make_event
from tests.stored import Stored, date

SHOP, BLOG = "shop.example", "blög.example:8443"
MINUTE_US = 60_000_000
# A visit to the shop; of three pages, one of them looked at, a purchase, and one half an hour on.
VISIT = (
    (0, "pageview", {"pathname": "/", "url": "https://shop.example/", "utm_source": "news"}),
    (1, "pageview", {"scroll_depth": None}),
    (2, "engagement", {"event_type": "engagement", "engaged_ms": 41_500, "scroll_depth": 80}),
    (3, "purchase", {"event_type": "track", "props": '{"plan":"prö"}', "quantity": 2}),
    (40, "pageview", {"pathname": "/thanks", "url": "https://shop.example/thanks?a=1#b"}),
)


def shop_day(day: int, visitors: int) -> list[Event]:
    """Return a day of the shop: as many visits as visitors twice over, and an API's event."""
    events = []
    for visitor in range(1, visitors + 1):
        start = NOON_US + day * DAY_US + visitor * MINUTE_US
        for minute, name, more in VISIT:
            values = {
                "site_id": SHOP,
                "hostname": SHOP,
                "visitor_id": visitor - 2,
                "user_id": f"user_{visitor}" if visitor == 3 else None,
                "timestamp": start + minute * MINUTE_US + visitor,
                "event_name": name,
                **more,
            }
            if name == "purchase":
                values["revenue_amount"] = Decimal("19.99") * visitor
                values["revenue_currency"] = "EUR" if visitor % 2 else "USD"
            events.append(make_event(**values))
    events.append(
        make_event(
            site_id=SHOP,
            timestamp=NOON_US + day * DAY_US,
            event_name="refund",
            event_type="track",
            source="API",
            ingest_api="batch",
            visitor_id=None,
            stream_id="orders",
            sequence_number=day + 1,
            idempotency_key=f"refund-{day}",
            sent_at=NOON_US + day * DAY_US - 1,
            company_id="company_1",
            data='{"total": -5}',
        )
    )
    return events


def blog_day(day: int, readers: int) -> list[Event]:
    """Return a day of the blog: a pageview a reader, without a visitor for the last."""
    return [
        make_event(
            site_id=BLOG,
            hostname="blög.example",
            pathname=f"/post/{reader % 2}",
            url=f"https://blög.example:8443/post/{reader % 2}",
            referrer="https://search.example/",
            referrer_source="Search",
            country_code="FR",
            timestamp=NOON_US + day * DAY_US + reader,
            visitor_id=reader if reader < readers else None,
        )
        for reader in range(1, readers + 1)
    ]


def flush(stored: Stored, events: list[Event]) -> None:
    """Put events into parts."""
    first = stored.store.snapshot().watermark + 1
    loaded_at = max(stored.clock.us, stored.store.snapshot().last_loaded_at)
    table = to_table([Frame(first, loaded_at, stored.store.node, events)])
    stored.store.publish(table, first + len(events) - 1)


def append(data: Path, stored: Stored, events: list[Event]) -> None:
    """Put events into the log."""
    buffer = Buffer(
        BufferConfig(free_bytes_min=0),
        data,
        Files(),
        stored.clock,
        Telemetry(),
        stored.store.node,
    )
    snapshot = stored.store.snapshot()
    buffer.start(snapshot.watermark, snapshot.last_loaded_at, lambda: None)
    asyncio.run(buffer.append(events))
    buffer.close()


def make(data: Path) -> None:
    """Write a folder with all there is: parts of both levels, one of them with late events beside
    it, visits, sums, a retired day whose grace is not over, a rule under way, and a log.
    """
    stored = Stored(data, day=3)
    flush(stored, [*shop_day(-30, 1), *blog_day(-30, 2)])
    for day in (0, 1):
        flush(stored, [*shop_day(day, 4 - day), *blog_day(day, 3)])
    stored.settle()
    stored.sum_up(SHOP, 0, 1)
    stored.sum_up(BLOG, 0, 1)
    begin_rule(stored)
    stored.clock.pass_by(1)
    Expiry(RetentionConfig(days=20), stored.store, stored.clock).run()
    flush(stored, blog_day(1, 2))
    flush(stored, shop_day(3, 2))
    stored.clock.pass_by(60)
    stored.store.sweep()
    append(data, stored, blog_day(3, 4))
    stored.close()
    settle(data / "mallard.db")
    (data / "lock").unlink(missing_ok=True)
    shutil.rmtree(data / "tmp", ignore_errors=True)


def begin_rule(stored: Stored) -> None:
    """Leave user_3 out of everything until now."""
    snapshot = stored.store.snapshot()
    now = stored.clock.us
    definition = Definition(conditions=(Condition("user_id", "is", ("user_3",)),))
    counts = tuple((SHOP, date(day), 5) for day in (0, 1))
    text = rule_text(definition, Terms("00" * 16, now, now + DAY_US, counts))
    days = frozenset((SHOP, date(day)) for day in (0, 1))
    rule = Rule("0123456789ab", now, snapshot.watermark, text, days)
    stored.store.swap(Change("rule", rules_added=(rule,), detail={"rule": rule.rule_id}))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
