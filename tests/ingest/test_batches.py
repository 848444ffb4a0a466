"""A batch's events are what each of them would be alone, seen before or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.clock import Clock
from mallard.config import IngestConfig, PrivacyConfig
from mallard.errors import Forbidden, InvalidInput, MallardError, RateLimited
from mallard.event import Line
from mallard.files import Files
from mallard.ingest.admission import Admission, Reason
from mallard.ingest.batch import Sent, document_of, read_sent
from mallard.ingest.bots import Bots
from mallard.ingest.enrichment import Enricher
from mallard.ingest.geo import Places
from mallard.ingest.payload import LONG_NAMES, batch_from_json, read_event
from mallard.ingest.pipeline import Outcome, Pipeline
from mallard.ingest.rate_limit import RateLimit
from mallard.ingest.referrer import Referrers
from mallard.ingest.sender import Sender
from mallard.ingest.user_agent import UserAgents
from mallard.ingest.visitor import Visitors
from mallard.telemetry import Telemetry
from tests.factories import NOON_US, make_sender

BOTS, AGENTS = Bots(), UserAgents()
SPAM = "https://www.spam.example/x"
EVENT = {"d": "example.com", "n": "pageview", "u": "https://example.com/a"}


class Noon(Clock):
    """A clock that stands still."""

    def now_ms(self) -> int:
        return NOON_US // 1000


class Buffer:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def submit(
        self, lines: Sequence[Line], received_at: int, settle: Callable[[Any], None]
    ) -> None:
        assert received_at == NOON_US
        self.lines += lines
        settle(None)

    async def await_room(self, count: int, *, again: bool = False) -> None:
        pass


class Door:
    """A pipeline with its ends in hand."""

    def __init__(self, **ingest: Any) -> None:
        self.buffer = Buffer()
        self.telemetry = Telemetry()
        config, privacy = IngestConfig(**ingest), PrivacyConfig(visitor_salt="derived", secret="s")
        referrers, clock = Referrers(("spam.example",)), Noon()
        admission = Admission(config, privacy, BOTS, referrers, RateLimit(config, clock))
        visitors = Visitors(privacy, Path("unused"), Files())
        enricher = Enricher(AGENTS, visitors, Places(None), referrers)
        self.pipeline = Pipeline(admission, enricher, self.buffer, clock, self.telemetry)
        self.enricher = enricher

    async def together(self, documents: Sequence[Any], sender: Sender) -> Any:
        return await self.body(orjson.dumps(documents), sender)

    async def body(self, body: bytes, sender: Sender) -> Any:
        return await self._told(self.pipeline.accept_batch(body, sender))

    async def one_by_one(self, body: bytes, sender: Sender) -> Any:
        try:
            raws = batch_from_json(body)
        except MallardError as error:
            return _shown(error)
        return await self._told(self.pipeline.accept(raws, sender, "batch"))

    async def _told(self, outcome: Any) -> Any:
        self.buffer.lines = []
        try:
            return await outcome, self.buffer.lines, self.telemetry.dropped
        except MallardError as error:
            assert self.buffer.lines == []
            return _shown(error)


def _shown(error: MallardError) -> tuple[object, ...]:
    return type(error), error.detail, getattr(error, "field", None), getattr(error, "rule", None)


_ODD: list[Any] = [True, 0, 1, 1.0, -1, "", " ", "x", "a\0", [], {}, [1], None]
_FIELDS: dict[str, list[Any]] = {
    "d": ["example.com", "b.org", "www.example.com", "example.com, b.org", "bad site"],
    "n": ["pageview", "signup", " signup ", "engagement"],
    "u": [EVENT["u"], "https://b.org/?utm_source=x", "/a#/b", " /a ", "javascript:x", "/" * 600],
    "r": ["https://b.org/", "https://example.com/", " https://c.org/ ", SPAM],
    "w": [360, 360.0, 1920, 2**40],
    "p": [{"a": 1}, '{"a":1}', {}, "{"],
    "ra": [5, "1.50", "x"],
    "rc": ["EUR", "eur", "EURO"],
    "$": [{"amount": 1, "currency": "EUR"}, "x"],
    "i": [True, False],
    "h": [True, False],
    "sd": [50, 50.4, 200],
    "e": [1000, 10**12],
    "v": [1, "2"],
    "name": ["signup"],
    "screen_width": [360],
    "extra": ["y"],
}
_MUST = {"d", "n", "u"}


def documents_of(fields: dict[str, list[Any]], odd: list[Any]) -> st.SearchStrategy[Any]:
    values = {name: st.sampled_from(some + odd) for name, some in fields.items()}
    must = {name: value for name, value in values.items() if name in _MUST}
    may = {name: value for name, value in values.items() if name not in _MUST}
    return st.fixed_dictionaries(must, optional=may)


# Of mistakes alone no batch would be stored, so most batches hold none.
SOUND = documents_of({name: some[:2] for name, some in _FIELDS.items()}, [])
ANY: st.SearchStrategy[Any] = documents_of(_FIELDS, _ODD) | st.sampled_from(
    [None, [], 1, {}, {"d": "example.com"}]
)
SENDERS = st.sampled_from(
    [
        make_sender(),
        make_sender(user_agent=""),
        make_sender(address=None),
        make_sender(privacy_signal=True),
        make_sender(user_agent="Googlebot/2.1"),
        make_sender(origin="https://nobody.example"),
    ]
)
SETTINGS = st.sampled_from(
    [{}, {}, {"site_ids": ("example.com", "b.org")}, {"rate_limit_per_site": 3}]
)


_LONG = {short: long for long, short in reversed(LONG_NAMES.items())}
NAMES = st.sampled_from([{}, _LONG])
FORMS = st.sampled_from([orjson.dumps, lambda value: json.dumps(value).encode()])


@given(
    st.lists(SOUND, min_size=1, max_size=6),
    st.lists(ANY, max_size=1),
    SENDERS,
    SETTINGS,
    NAMES,
    FORMS,
)
async def test_a_batch_is_what_its_events_are_one_by_one(
    sound: list[Any],
    other: list[Any],
    sender: Sender,
    settings: dict[str, Any],
    names: dict[str, str],
    write: Callable[[Any], bytes],
) -> None:
    known = Door(**settings)
    await known.together(sound * 2, sender)  # what is new there has been seen in the second half
    known.telemetry.dropped.clear()
    known.pipeline._admission._rate_limit._full_at.clear()
    body = write([_renamed(document, names) for document in sound + other])
    assert await known.body(body, sender) == await Door(**settings).one_by_one(body, sender)


def _renamed(document: Any, names: dict[str, str]) -> Any:
    if type(document) is not dict:
        return document
    return {names.get(name, name): value for name, value in document.items()}


NUMBERS = [None, -1, 0, 1, 100, 101, 86_400_000, 86_400_001, 10**30, 1.5, "absent"]


@pytest.mark.parametrize("engaged_ms", NUMBERS)
@pytest.mark.parametrize("depth", NUMBERS)
async def test_how_long_and_how_far_is_what_it_is_one_by_one(engaged_ms: Any, depth: Any) -> None:
    known = Door()
    await known.together([{**EVENT, "n": "engagement"}], make_sender())
    said = {"e": engaged_ms, "sd": depth, "w": 7}
    event = {**EVENT, "n": "engagement", **{k: v for k, v in said.items() if v != "absent"}}
    body = json.dumps([event] * 2).encode()
    assert await known.body(body, make_sender()) == await Door().one_by_one(body, make_sender())


async def test_of_what_was_seen_before_nothing_is_read_again() -> None:
    door = Door()
    document = {**EVENT, "r": "https://b.org/", "w": 360, "p": {"a": 1}}
    read: list[Any] = []

    def lines(documents: Sequence[Any]) -> Any:
        def noted(sent: Sent) -> Any:
            read.append(document_of(sent))
            return read_event(document_of(sent))

        events = read_sent(orjson.dumps(documents))
        assert events is not None
        return door.enricher.lines_of_batch(events, noted, make_sender(), NOON_US, "API", "batch")

    assert len(set(lines([document] * 3))) == 1
    assert len(read) == 1
    other_page = {**document, "u": "https://example.com/b"}
    assert len(lines([document, other_page, document, other_page])) == 4
    assert read[1:] == [document, other_page]  # a request's own visitor is made once for each


async def test_a_batch_drops_the_spam_in_it_even_if_all_else_was_seen_before() -> None:
    door = Door()
    assert (await door.together([EVENT], make_sender()))[0] == Outcome(1)
    outcome, lines, dropped = await door.together([EVENT, {**EVENT, "r": SPAM}], make_sender())
    assert outcome == Outcome(1, (Reason.SPAM_REFERRER,))
    assert len(lines) == 1
    assert dropped == {("example.com", "spam_referrer"): 1}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"site_ids": ("example.com",)}, Forbidden), ({"rate_limit_per_site": 1}, RateLimited)],
)
async def test_what_a_site_may_not_have_is_refused(
    settings: dict[str, Any], expected: type[MallardError]
) -> None:
    door = Door(**settings)
    assert (await door.together([EVENT], make_sender()))[0] == Outcome(1)
    documents = [EVENT, {**EVENT, "d": "b.org"}]
    assert (await door.together(documents, make_sender()))[0] is expected


async def test_events_for_several_sites_count_for_each() -> None:
    door = Door()
    documents = [EVENT] * 999 + [{**EVENT, "d": "example.com,b.org"}]
    assert (await door.together(documents, make_sender()))[0] is InvalidInput
    assert (await door.together(documents[1:], make_sender()))[0] == Outcome(1000)
