"""From what was sent to what is stored."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.config import PrivacyConfig
from mallard.event import LINE_COLUMNS, Event, Frame, to_table, unpack
from mallard.files import Files
from mallard.ingest.campaign import Campaign
from mallard.ingest.enrichment import CACHED_LENGTH_MAX, CACHED_MAX, Enricher
from mallard.ingest.geo import Place, Places
from mallard.ingest.page import Page
from mallard.ingest.payload import RawEvent
from mallard.ingest.referrer import Referrers
from mallard.ingest.sender import ClientHints, Sender
from mallard.ingest.user_agent import Agent, UserAgents
from mallard.ingest.visitor import Visitors
from tests.factories import ADDRESS, CHROME, NOON_US, make_raw, make_sender
from tests.ingest.texts import any_url, is_storable

AGENTS = UserAgents()


def make_enricher(folder: Path, signals: str = "anonymous") -> Enricher:
    config = PrivacyConfig(visitor_salt="derived", secret="s", privacy_signals=signals)
    return Enricher(AGENTS, Visitors(config, folder, Files()), Places(None), Referrers())


def enrich(raw: RawEvent, sender: Sender | None = None, signals: str = "anonymous") -> Event:
    enricher = make_enricher(Path("unused"), signals)
    return told(enricher, raw, sender)[0]


def told(enricher: Enricher, raw: RawEvent, sender: Sender | None = None) -> tuple[Event, ...]:
    lines = enricher.lines((raw,), sender or make_sender(), NOON_US, "Snippet", "post")
    return unpack(b"\n".join(lines))


def test_a_pageview_becomes_a_whole_row() -> None:
    event = enrich(
        make_raw(
            url="https://www.example.com/caf%C3%A9?utm_source=fb&utm_medium=paid&fbclid=SECRET",
            referrer="https://l.facebook.com/l.php?u=SECRET",
            screen_width=1920,
            props='{"plan":"pro"}',
            revenue_amount=Decimal("99.00"),
            revenue_currency="USD",
        )
    )
    visitor_id = event.visitor_id
    assert isinstance(visitor_id, int)
    assert event == Event(
        site_id="example.com",
        timestamp=NOON_US,
        event_name="pageview",
        event_type="page",
        source="Snippet",
        ingest_api="post",
        visitor_id=visitor_id,
        url="https://www.example.com/caf%C3%A9",
        hostname="example.com",
        pathname="/café",
        referrer="https://l.facebook.com/l.php",
        referrer_source="Facebook",
        channel="Paid Social",
        utm_source="fb",
        utm_medium="paid",
        click_id_kind="fbclid",
        browser="Chrome",
        browser_version="124",
        os="Windows",
        os_version="10",
        device_type="Desktop",
        screen_width=1920,
        language="en-us",
        props='{"plan":"pro"}',
        revenue_amount=Decimal("99.00"),
        revenue_currency="USD",
    )


def test_neither_address_nor_agent_nor_query_string_comes_out() -> None:
    event = enrich(
        make_raw(url="https://example.com/?email=me@example.org", referrer="https://a.org/?q=me")
    )
    text = repr(event)
    assert ADDRESS not in text
    assert CHROME not in text
    assert "me@" not in text
    assert "q=me" not in text


@pytest.mark.parametrize(
    ("name", "event_type", "interactive"),
    [("pageview", "page", True), ("engagement", "engagement", False), ("signup", "track", True)],
)
def test_an_events_name_decides_its_class(name: str, event_type: str, interactive: bool) -> None:
    event = enrich(make_raw(name=name, engaged_ms=3000, scroll_depth=80))
    assert (event.event_type, event.interactive) == (event_type, interactive)
    assert (event.engaged_ms, event.scroll_depth) == (3000, 80)


def test_an_event_that_is_not_interactive_stays_so() -> None:
    assert enrich(make_raw(name="autoplay", interactive=False)).interactive is False


@pytest.mark.parametrize(
    "referrer",
    ["https://example.com/", "https://www.example.com/x", "https://blog.example.com/", None],
)
def test_a_visit_from_the_site_itself_is_direct(referrer: str | None) -> None:
    event = enrich(make_raw(referrer=referrer))
    assert (event.referrer, event.referrer_source, event.channel) == (None, None, "Direct")


def test_a_campaign_counts_even_when_the_referrer_is_the_site_itself() -> None:
    event = enrich(
        make_raw(referrer="https://example.com/", url="https://example.com/?ref=producthunt")
    )
    assert (event.referrer_source, event.channel) == ("Product Hunt", "Organic Social")


@pytest.mark.parametrize(("signals", "known"), [("anonymous", False), ("ignore", True)])
def test_a_privacy_signal_leaves_the_visitor_out_unless_it_is_ignored(
    signals: str, known: bool
) -> None:
    event = enrich(make_raw(), make_sender(privacy_signal=True), signals)
    assert (event.visitor_id is not None) is known
    assert event.pathname == "/pricing"


def test_without_an_address_there_is_no_visitor() -> None:
    assert enrich(make_raw(), make_sender(address=None)).visitor_id is None


def test_an_opened_mail_has_no_visitor_for_the_address_is_the_mail_services() -> None:
    event = enrich(make_raw(), make_sender(user_agent="x (via ggpht.com GoogleImageProxy)"))
    assert event.browser == "Gmail image proxy"
    assert event.visitor_id is None
    assert (event.country_code, event.os, event.device_type) == (None, None, None)


def test_client_hints_and_width_help_where_the_agent_is_silent() -> None:
    hints = ClientHints(brands='"Brave";v="124"')
    assert enrich(make_raw(), make_sender(client_hints=hints)).browser == "Brave"
    assert enrich(make_raw(screen_width=390), make_sender(user_agent="")).device_type == "Mobile"


def test_hash_mode_reaches_the_path(tmp_path: Path) -> None:
    event = enrich(make_raw(url="https://example.com/#/cart", hash_mode=True))
    assert event.pathname == "/#/cart"


def test_what_was_seen_before_gives_the_same_again(tmp_path: Path) -> None:
    enricher = make_enricher(tmp_path)
    raw = make_raw(url="https://example.com/?utm_source=a", referrer="https://b.org/")
    assert told(enricher, raw) == told(enricher, raw)
    long_raw = make_raw(url="https://example.com/" + "x" * 2000)
    assert enrich(long_raw).pathname == "/" + "x" * 2000


class Berlin(Places):
    """Where everybody is."""

    def __init__(self) -> None:
        super().__init__(None)
        self.asked = 0

    def place(self, address: str | None) -> Place:
        self.asked += 1
        return Place("DE", "DE-BE", "Berlin")


def test_runs_of_columns_stand_in_an_event_as_they_do_in_what_they_come_from() -> None:
    agent = Agent._fields[:5]
    assert RawEvent._fields[:8] == (
        *("sites", "name", "url", "referrer", "screen_width"),
        *("props", "revenue_amount", "revenue_currency"),
    )
    assert RawEvent._fields[8:12] == ("interactive", "hash_mode", "scroll_depth", "engaged_ms")
    tags = tuple(f"utm_{name}" for name in Campaign._fields[1:-1])
    came = ("referrer", "referrer_source", "channel")
    page = (*Page._fields[:3], *came, *tags, Campaign._fields[-1])
    site = ("site_id", "timestamp", "visitor_id")
    name = ("event_name", "event_type", "interactive", "source", "ingest_api")
    rest = ("props", "revenue_amount", "revenue_currency", "engaged_ms", "scroll_depth", "rare")
    who = (*Place._fields, *agent, "screen_width", "language")
    assert (*site, *name, *page, *who, *rest) == LINE_COLUMNS


def test_every_value_lands_under_its_own_name(tmp_path: Path) -> None:
    config = PrivacyConfig(visitor_salt="derived", secret="s")
    visitors = Visitors(config, tmp_path, Files())
    enricher = Enricher(AGENTS, visitors, Berlin(), Referrers())
    tags = "utm_source=a&utm_medium=b&utm_campaign=c&utm_content=d&utm_term=e&gclid=f"
    raw = make_raw(
        name="signup",
        url=f"https://example.com/x?{tags}",
        referrer="https://b.org/",
        screen_width=800,
        props='{"p":1}',
        revenue_amount=Decimal("1.00"),
        revenue_currency="EUR",
        interactive=False,
        scroll_depth=70,
        engaged_ms=900,
        script_version="3",
    )
    (event,) = told(enricher, raw)
    assert event == Event(
        site_id="example.com",
        timestamp=NOON_US,
        event_name="signup",
        event_type="track",
        source="Snippet",
        ingest_api="post",
        interactive=False,
        visitor_id=visitors.visitor_id("example.com", ADDRESS, CHROME, NOON_US),
        url="https://example.com/x",
        hostname="example.com",
        pathname="/x",
        referrer="https://b.org/",
        referrer_source="a",
        channel="Referral",
        utm_source="a",
        utm_medium="b",
        utm_campaign="c",
        utm_content="d",
        utm_term="e",
        click_id_kind="gclid",
        country_code="DE",
        region="DE-BE",
        city="Berlin",
        browser="Chrome",
        browser_version="124",
        os="Windows",
        os_version="10",
        device_type="Desktop",
        screen_width=800,
        language="en-us",
        props='{"p":1}',
        revenue_amount=Decimal("1.00"),
        revenue_currency="EUR",
        engaged_ms=900,
        scroll_depth=70,
    )


@pytest.mark.parametrize(
    "sender",
    [
        {},
        {"address": None},
        {"user_agent": ""},
        {"privacy_signal": True},
        {"user_agent": "x (via ggpht.com GoogleImageProxy)"},
    ],
)
def test_many_events_of_a_sender_are_what_each_would_be_alone(
    tmp_path: Path, sender: dict[str, Any]
) -> None:
    raws = [
        make_raw(sites=sites, screen_width=width, **values)
        for sites in (("example.com",), ("b.org", "example.com"))
        for width in (390, 1920)
        for values in (
            {},
            {"name": "x"},
            {"props": '{"a":1}'},
            {"engaged_ms": 5},
            {"scroll_depth": 0},
            {"revenue_amount": Decimal("0.00")},
            {"referrer": "https://c.org/"},
            {"interactive": False},
            {"url": "/#/a", "hash_mode": True},
        )
    ]
    who = make_sender(**sender)
    together = make_enricher(tmp_path).lines(raws, who, NOON_US, "Snippet", "post")
    alone = [told(make_enricher(tmp_path), raw, who) for raw in raws]
    assert unpack(b"\n".join(together)) == tuple(event for events in alone for event in events)
    assert len(set(together)) == len(together) - len(raws) // 2  # one site is in all of them


def test_where_a_sender_is_gets_looked_up_once(tmp_path: Path) -> None:
    places = Berlin()
    visitors = Visitors(PrivacyConfig(visitor_salt="derived", secret="s"), tmp_path, Files())
    enricher = Enricher(AGENTS, visitors, places, Referrers())
    rows = told(enricher, make_raw(sites=("a.org", "b.org")))
    assert {row.city for row in rows} == {"Berlin"}
    assert places.asked == 1


def test_a_referrer_means_something_else_on_another_site_or_page(tmp_path: Path) -> None:
    enricher = make_enricher(tmp_path)
    raw = make_raw(referrer="https://b.org/")
    here = raw._replace(url="https://b.org/")
    asked = [(raw, "example.com"), (raw, "b.org"), (here, "example.com"), (raw, "example.com")]
    referrers = [told(enricher, raw._replace(sites=(site,)))[0].referrer for raw, site in asked]
    assert referrers == ["https://b.org/", None, None, "https://b.org/"]


def test_long_urls_and_referrers_are_not_kept(tmp_path: Path) -> None:
    enricher = make_enricher(tmp_path)
    half = "x" * (CACHED_LENGTH_MAX // 2)
    raw = make_raw(url=f"https://example.com/{half}", referrer=f"https://b.org/{half}")
    told(enricher, raw)
    told(enricher, raw._replace(hash_mode=True))
    told(enricher, raw._replace(url=raw.url + "?ref=x"))
    assert (enricher._pages, enricher._routes, enricher._cames) == ({}, {}, {})
    assert enricher._attributed.cache_info().currsize == 0


def test_what_is_kept_of_pages_is_forgotten_before_there_are_too_many(tmp_path: Path) -> None:
    enricher = make_enricher(tmp_path)
    raws = [make_raw(url=f"https://example.com/{number}") for number in range(CACHED_MAX + 1)]
    for raw in (*raws[:CACHED_MAX], raws[0]):
        told(enricher, raw)
    assert len(enricher._pages) == CACHED_MAX
    assert told(enricher, raws[CACHED_MAX])[0].pathname == f"/{CACHED_MAX}"
    assert len(enricher._pages) == 1


def test_a_page_in_hash_mode_is_another_than_the_same_url_without(tmp_path: Path) -> None:
    enricher = make_enricher(tmp_path)
    raw = make_raw(url="https://example.com/a#/b")
    paths = [told(enricher, raw._replace(hash_mode=mode))[0].pathname for mode in (False, True) * 2]
    assert paths == ["/a", "/a#/b"] * 2


@given(
    url=any_url,
    referrer=st.none() | any_url,
    user_agent=any_url,
    width=st.none() | st.integers(0, 2**31 - 1),
    hash_mode=st.booleans(),
)
def test_whatever_is_sent_a_row_comes_out_that_parquet_takes(
    url: str, referrer: str | None, user_agent: str, width: int | None, hash_mode: bool
) -> None:
    event = enrich(
        make_raw(url=url, referrer=referrer, screen_width=width, hash_mode=hash_mode),
        make_sender(user_agent=user_agent),
    )
    for value in event:
        assert not isinstance(value, str) or is_storable(value)
    assert to_table([Frame(1, NOON_US, 0, (event,))]).num_rows == 1
