"""Where visits come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.ingest.campaign import read_campaign
from mallard.ingest.page import URL_LENGTH_MAX
from mallard.ingest.referrer import DIRECT, Referrers, attribute, is_own
from tests.ingest.texts import any_url, is_storable

REFERRERS = Referrers(blocked=["Spam.example", "www.worse.example"])


@pytest.mark.parametrize(
    ("referrer", "url", "source"),
    [
        ("https://www.google.com/search?q=secret", "https://www.google.com/search", "Google"),
        ("https://blog.example.org/post#c", "https://blog.example.org/post", "blog.example.org"),
        ("https://www.example.org", "https://www.example.org/", "example.org"),
        ("http://u:p@Example.org:81/x", "http://example.org/x", "example.org"),
        (
            "android-app://com.google.android.gm/",
            "android-app://com.google.android.gm/",
            "Gmail",
        ),
        ("android-app://com.example.app", "android-app://com.example.app/", "com.example.app"),
        ("//example.org/x", "https://example.org/x", "example.org"),
    ],
)
def test_a_referrer_is_stored_without_query_and_named(referrer: str, url: str, source: str) -> None:
    referral = REFERRERS.read(referrer)
    assert (referral.url, referral.source) == (url, source)


@pytest.mark.parametrize(
    "referrer",
    [
        None,
        "",
        "https://localhost:3000/x",
        "http://app.localhost/",
        "http://127.0.0.1:8000/",
        "http://[::1]/",
        "about:client",
        "mailto:me@example.com",
        "data:text/html,x",
        "file:///home/me/x.html",
        "chrome-extension://abc/x",
        "/pricing",
        "https://",
    ],
)
def test_what_is_no_page_elsewhere_is_no_referrer(referrer: str | None) -> None:
    assert REFERRERS.read(referrer) == DIRECT


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("blog.example.com", True),
        ("shop.example.com", True),
        ("example.com", True),
        ("notexample.com", False),
        ("example.com.org", False),
        (None, False),
    ],
)
def test_a_site_and_its_parts_do_not_refer_to_themselves(host: str | None, own: bool) -> None:
    assert is_own(host, "shop.example.com", "example.com") is own


def test_a_site_named_by_one_word_owns_no_hosts_that_end_in_it() -> None:
    assert not is_own("example.com", "example.org", "com")


@pytest.mark.parametrize(
    "host", ["semalt.com", "36.semalt.com", "spam.example", "a.b.spam.example", "worse.example"]
)
def test_a_spam_host_and_what_lies_below_it_are_spam(host: str) -> None:
    assert REFERRERS.is_spam(host)
    assert REFERRERS.is_spam_referrer(f"https://www.{host}/x?y")


@pytest.mark.parametrize("host", ["notsemalt.com", "semalt.com.example", "example", "", None])
def test_a_host_that_only_resembles_spam_is_not(host: str | None) -> None:
    assert not REFERRERS.is_spam(host)


@pytest.mark.parametrize(
    ("referrer", "query", "expected"),
    [
        (None, "", "Direct"),
        (None, "utm_campaign=Cross-Network-1&utm_medium=cpc", "Cross-network"),
        ("https://www.amazon.de/", "utm_medium=cpc", "Paid Shopping"),
        (None, "utm_source=x1&utm_campaign=summer-shop&utm_medium=ppc", "Paid Shopping"),
        ("https://www.google.com/", "utm_medium=cpc", "Paid Search"),
        ("https://www.google.com/", "gclid=1", "Paid Search"),
        (None, "utm_source=google&gclid=1", "Paid Search"),
        ("https://www.bing.com/", "msclkid=1", "Paid Search"),
        ("https://www.bing.com/", "gclid=1", "Organic Search"),
        ("https://facebook.com/", "fbclid=1", "Organic Social"),
        (None, "utm_source=fb&utm_medium=paidsocial", "Paid Social"),
        (None, "utm_source=youtube&utm_medium=cpv_cpm", "Paid Video"),
        (None, "utm_source=adnetwork&utm_medium=cpm", "Display"),
        (None, "utm_source=adnetwork&utm_medium=banner", "Display"),
        (None, "utm_source=adnetwork&utm_medium=retargeting", "Paid Other"),
        ("https://www.etsy.com/", "", "Organic Shopping"),
        (None, "utm_source=a&utm_campaign=online-shop", "Organic Shopping"),
        (None, "utm_source=a&utm_campaign=bishop", "Referral"),
        ("https://t.co/abc", "", "Organic Social"),
        (None, "utm_source=a&utm_medium=social-network", "Organic Social"),
        ("https://m.youtube.com/", "", "Organic Video"),
        (None, "utm_source=a&utm_medium=video", "Organic Video"),
        ("https://duckduckgo.com/", "", "Organic Search"),
        (None, "utm_source=a&utm_medium=organic", "Organic Search"),
        ("https://chatgpt.com/", "", "AI Assistants"),
        (None, "utm_source=chatgpt.com", "AI Assistants"),
        ("https://mail.google.com/", "", "Email"),
        (None, "utm_source=newsletter", "Email"),
        (None, "utm_source=a&utm_medium=e-mail", "Email"),
        (None, "utm_source=a&utm_medium=affiliate", "Affiliates"),
        (None, "utm_medium=referral", "Referral"),
        ("https://blog.example.org/", "", "Referral"),
        (None, "ref=producthunt", "Organic Social"),
        (None, "ref=somewhere", "Referral"),
        (None, "utm_source=a&utm_medium=audio", "Audio"),
        (None, "utm_source=sms", "SMS"),
        (None, "utm_source=a&utm_medium=web-push", "Mobile Push"),
        (None, "utm_medium=nothing-we-know", "Direct"),
    ],
)
def test_channels(referrer: str | None, query: str, expected: str) -> None:
    assert attribute(REFERRERS.read(referrer), read_campaign(query))[1] == expected


def test_a_campaign_outranks_the_referrer() -> None:
    source, channel = attribute(
        REFERRERS.read("https://t.co/x"), read_campaign("utm_source=google&utm_medium=cpc")
    )
    assert (source, channel) == ("Google", "Paid Search")


@given(st.none() | any_url, any_url)
def test_whatever_is_sent_something_storable_comes_out(referrer: str | None, query: str) -> None:
    referral = REFERRERS.read(referrer)
    source, channel = attribute(referral, read_campaign(f"utm_source={query}&{query}"))
    for text in (*referral, source, channel):
        assert is_storable(text)
        assert text is None or 0 < len(text) <= URL_LENGTH_MAX
    assert referral.url is None or "?" not in referral.url
    REFERRERS.is_spam_referrer(referrer)
