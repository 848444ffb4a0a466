"""The one path: admit, enrich, commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given

from mallard.clock import Clock
from mallard.config import IngestConfig, PrivacyConfig
from mallard.errors import Forbidden, Overloaded, RateLimited
from mallard.event import Event, Line, line_of, unpack
from mallard.ingest.admission import Admission, Reason
from mallard.ingest.batch import Sent
from mallard.ingest.bots import Bots
from mallard.ingest.payload import RawEvent
from mallard.ingest.pipeline import Outcome, Pipeline, readable
from mallard.ingest.rate_limit import RateLimit
from mallard.ingest.referrer import Referrers
from mallard.ingest.sender import Sender
from mallard.telemetry import Telemetry
from tests.factories import make_raw, make_sender
from tests.strategies import EVENTS

BOTS = Bots()
BOT = "Googlebot/2.1"


class Enricher:
    """Keeps what a test asks for."""

    def lines(
        self, raws: Iterable[RawEvent], sender: Sender, at_us: int, source: str, ingest_api: str
    ) -> list[Line]:
        return [
            line_of(Event(site_id, at_us, raw.name, source=source, ingest_api=ingest_api))
            for raw in raws
            for site_id in raw.sites
        ]

    def lines_of_batch(
        self,
        events: Iterable[Sent],
        read: Callable[[Sent], RawEvent | None],
        sender: Sender,
        at_us: int,
        source: str,
        ingest_api: str,
    ) -> list[Line] | None:
        return None


class Buffer:
    """Takes events until it is full."""

    def __init__(self) -> None:
        self.commits: list[tuple[Event, ...]] = []
        self.full = False

    def submit(
        self, lines: Sequence[Line], received_at: int, settle: Callable[[Any], None]
    ) -> None:
        if self.full:
            raise Overloaded("Full.")
        self.commits.append(unpack(b"\n".join(lines)))
        assert {event.timestamp for event in self.commits[-1]} == {received_at}
        settle(None)

    async def await_room(self, count: int, *, again: bool = False) -> None:
        assert not self.full


class Path:
    """A pipeline with its ends in hand."""

    def __init__(self, **ingest: Any) -> None:
        self.buffer = Buffer()
        self.telemetry = Telemetry()
        config = IngestConfig(**ingest)
        limit = RateLimit(config, Clock())
        admission = Admission(config, PrivacyConfig(), BOTS, Referrers(("spam.example",)), limit)
        self.pipeline = Pipeline(admission, Enricher(), self.buffer, Clock(), self.telemetry)


async def test_all_admitted_events_of_a_call_are_one_commit() -> None:
    path = Path()
    raws = [make_raw(sites=("a", "b")), make_raw(sites=("c",), name="x")]
    assert await path.pipeline.accept(raws, make_sender(), "batch") == Outcome(3)
    (commit,) = path.buffer.commits
    assert [(event.site_id, event.event_name) for event in commit] == [
        ("a", "pageview"),
        ("b", "pageview"),
        ("c", "x"),
    ]
    assert len({event.timestamp for event in commit}) == 1
    assert path.telemetry.accepted == {"batch": 3}


async def test_nothing_admitted_is_no_commit() -> None:
    path = Path()
    sender = make_sender(user_agent=BOT)
    outcome = await path.pipeline.accept([make_raw(sites=("a", "b"))], sender, "post")
    assert outcome == Outcome(0, (Reason.BOT,))
    assert path.buffer.commits == []
    assert path.telemetry.dropped == {("a", "bot"): 1, ("b", "bot"): 1}
    assert not path.telemetry.accepted


async def test_a_batch_keeps_what_is_admitted() -> None:
    path = Path()
    spam = make_raw(referrer="https://www.spam.example/x")
    outcome = await path.pipeline.accept([spam, make_raw(), spam], make_sender(), "batch")
    assert outcome == Outcome(1, (Reason.SPAM_REFERRER,))
    assert path.telemetry.dropped == {("example.com", "spam_referrer"): 2}


async def test_one_site_that_is_not_ours_refuses_all() -> None:
    path = Path(site_ids=("example.com",))
    with pytest.raises(Forbidden):
        await path.pipeline.accept([make_raw(), make_raw(sites=("b",))], make_sender(), "batch")
    assert path.buffer.commits == []
    assert not path.telemetry.dropped


async def test_sites_are_charged_together_or_not_at_all() -> None:
    path = Path(rate_limit_per_site=1)
    await path.pipeline.accept([make_raw(sites=("a",))], make_sender(), "post")
    with pytest.raises(RateLimited):
        await path.pipeline.accept([make_raw(sites=("b", "a"))], make_sender(), "post")
    await path.pipeline.accept([make_raw(sites=("b",))], make_sender(), "post")
    assert [commit[0].site_id for commit in path.buffer.commits] == ["a", "b"]


async def test_what_the_buffer_refuses_is_not_counted_as_accepted() -> None:
    path = Path()
    path.buffer.full = True
    with pytest.raises(Overloaded):
        await path.pipeline.accept([make_raw()], make_sender(), "post")
    assert not path.telemetry.accepted


async def test_the_source_tells_browsers_back_ends_and_pixels_apart() -> None:
    path = Path()
    await path.pipeline.accept([make_raw()], make_sender(), "post")
    await path.pipeline.accept([make_raw()], make_sender(origin=None), "post")
    await path.pipeline.accept([make_raw()], make_sender(origin=None), "pixel")
    sources = [commit[0].source for commit in path.buffer.commits]
    assert sources == ["Snippet", "API", "Pixel"]


def test_explaining_stores_and_counts_nothing() -> None:
    path = Path(site_ids=("example.com",))
    told = path.pipeline.explain(make_raw(), make_sender(), "post")
    assert (told["verdict"], told["events"][0]["site_id"]) == ("accepted", "example.com")
    told = path.pipeline.explain(make_raw(), make_sender(prefetch=True), "post")
    assert (told["verdict"], told["reason"], told["events"]) == ("dropped", "prefetch", [])
    told = path.pipeline.explain(make_raw(sites=("x",)), make_sender(), "post")
    assert (told["verdict"], told["reason"]) == ("refused", "forbidden")
    assert path.buffer.commits == []
    assert not path.telemetry.accepted + path.telemetry.refused
    assert not path.telemetry.dropped


@given(EVENTS)
def test_any_event_can_be_shown_as_json(event: Event) -> None:
    shown = orjson.loads(orjson.dumps(readable(event)))
    assert shown["site_id"] == event.site_id
    assert None not in shown.values()
    if event.revenue_amount is not None:
        assert Decimal(shown["revenue_amount"]) == event.revenue_amount
    if event.visitor_id is not None:
        assert int(shown["visitor_id"], 16) == event.visitor_id % 2**64
