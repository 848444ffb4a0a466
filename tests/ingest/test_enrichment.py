"""From what was sent to what is stored."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.config import PrivacyConfig
from mallard.event import Event, Frame, to_table
from mallard.files import Files
from mallard.ingest.enrichment import Enricher
from mallard.ingest.geo import Places
from mallard.ingest.payload import RawEvent
from mallard.ingest.referrer import Referrers
from mallard.ingest.sender import ClientHints, Sender
from mallard.ingest.user_agent import UserAgents
from mallard.ingest.visitor import Visitors
from tests.factories import ADDRESS, CHROME, NOON_US, make_raw, make_sender
from tests.ingest.texts import any_url, is_storable

AGENTS = UserAgents()


def make_enricher(folder: Path, signals: str = "anonymous") -> Enricher:
    config = PrivacyConfig(visitor_salt="derived", secret="s", privacy_signals=signals)
    return Enricher(AGENTS, Visitors(config, folder, Files()), Places(None), Referrers())


def enrich(raw: RawEvent, sender: Sender | None = None, signals: str = "anonymous") -> Event:
    enricher = make_enricher(Path("unused"), signals)
    return enricher.enrich(raw, "example.com", sender or make_sender(), NOON_US, "Snippet", "post")


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
    first, again = (
        enricher.enrich(raw, "example.com", make_sender(), NOON_US, "Snippet", "post")
        for _ in range(2)
    )
    assert first == again
    long_raw = make_raw(url="https://example.com/" + "x" * 2000)
    assert enrich(long_raw).pathname == "/" + "x" * 2000


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
