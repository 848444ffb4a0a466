"""An URL taken apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.errors import InvalidInput
from mallard.ingest.page import (
    URL_LENGTH_MAX,
    clean,
    decode,
    refuse_scheme,
    split_page,
)
from tests.ingest.texts import any_url, is_storable


@pytest.mark.parametrize(
    ("url", "stored", "hostname", "pathname"),
    [
        ("https://example.com/a/b", "https://example.com/a/b", "example.com", "/a/b"),
        ("https://www.Example.com/A", "https://www.example.com/A", "example.com", "/A"),
        ("HTTPS://example.com:8443/x", "https://example.com/x", "example.com", "/x"),
        ("https://example.com", "https://example.com/", "example.com", "/"),
        ("https://example.com?a=/x", "https://example.com/", "example.com", "/"),
        ("https://example.com/x#top", "https://example.com/x", "example.com", "/x"),
        ("https://me:pw@example.com/x", "https://example.com/x", "example.com", "/x"),
        ("https://example.com./x", "https://example.com/x", "example.com", "/x"),
        ("https://example.com/x ", "https://example.com/x", "example.com", "/x"),
        ("https://example.com/x%20", "https://example.com/x%20", "example.com", "/x"),
        ("https://example.com/a%C3%A9", "https://example.com/a%C3%A9", "example.com", "/aé"),
        ("https://münchen.de/ü", "https://münchen.de/ü", "münchen.de", "/ü"),
        ("https://xn--mnchen-3ya.de/", "https://xn--mnchen-3ya.de/", "xn--mnchen-3ya.de", "/"),
        ("https://[2001:db8::1]:80/x", "https://[2001:db8::1]/x", "[2001:db8::1]", "/x"),
        ("https://[broken/x", "https://[broken/x", "[broken", "/x"),
        ("https://www./x", "https://www/x", "www", "/x"),
        ("app://localhost/view", "app://localhost/view", "localhost", "/view"),
        ("android-app://com.example/x", "android-app://com.example/x", "com.example", "/x"),
        ("//example.com/x", "//example.com/x", "example.com", "/x"),
        ("/pricing?x=1", "/pricing", "(none)", "/pricing"),
        ("pricing", "/pricing", "(none)", "/pricing"),
        ("file:///home/me/x.html", "/home/me/x.html", "(none)", "/home/me/x.html"),
        ("mailto:me@example.com", "/", "(none)", "/"),
        ("", "/", "(none)", "/"),
        ("https://", "/", "(none)", "/"),
    ],
)
def test_an_url_becomes_what_is_stored_of_it(
    url: str, stored: str, hostname: str, pathname: str
) -> None:
    page = split_page(url)
    assert (page.url, page.hostname, page.pathname) == (stored, hostname, pathname)


def test_a_query_string_is_handed_on_and_not_stored() -> None:
    page = split_page("https://example.com/reset?token=abc&mail=a@b.c#key=secret")
    assert page.query == "token=abc&mail=a@b.c"
    assert page.url == "https://example.com/reset"


def test_hash_mode_keeps_the_route_and_reads_its_query() -> None:
    page = split_page("https://example.com/app?a=1#/cart?utm_source=x", hash_mode=True)
    assert page.pathname == "/app#/cart"
    assert page.url == "https://example.com/app#/cart"
    assert page.query == "a=1&utm_source=x"


def test_hash_mode_without_a_fragment_is_an_ordinary_page() -> None:
    assert split_page("https://example.com/app", hash_mode=True).pathname == "/app"


@pytest.mark.parametrize(
    ("encoded", "decoded"),
    [
        ("/caf%C3%A9", "/café"),
        ("/%F0%9F%A6%86", "/\N{DUCK}"),
        ("/100%", "/100%"),
        ("/%zz%4", "/%zz%4"),
        ("/%ff%41", "/%FFA"),
        ("/%C3%28", "/%C3("),
        ("/%E2%82", "/%E2%82"),
        ("/%ED%A0%80", "/%ED%A0%80"),
        ("/a%00b%0Ac", "/a%00b%0Ac"),
        ("/%2541", "/%41"),
    ],
)
def test_only_valid_utf8_without_control_characters_is_decoded(encoded: str, decoded: str) -> None:
    assert decode(encoded) == decoded


def test_control_characters_sent_bare_are_encoded_and_surrogates_replaced() -> None:
    assert clean("a\x00b\x85c\ud800d\u2028") == "a%00b%C2%85c\ufffdd%E2%80%A8"


@pytest.mark.parametrize(
    "url", ["data:text/html,x", "JavaScript:alert(1)", " blob:https://e.com/1", "vbscript:x"]
)
def test_an_url_that_carries_a_program_is_refused_by_name(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        refuse_scheme(url, "u")
    assert caught.value.field == "u"


@pytest.mark.parametrize("url", ["https://e.com/data:x", "/data:x", "app://x", "", "datafile"])
def test_an_url_that_names_a_page_is_not_refused(url: str) -> None:
    refuse_scheme(url, "u")


@given(any_url, st.booleans())
def test_whatever_is_sent_something_storable_comes_out(url: str, hash_mode: bool) -> None:
    page = split_page(url, hash_mode)
    for text in (page.url, page.hostname, page.pathname):
        assert is_storable(text)
        assert 0 < len(text) <= URL_LENGTH_MAX
    assert page.pathname.startswith("/")
    assert "?" not in page.url


@given(any_url.map(lambda text: text * 100))
def test_long_text_is_cut(url: str) -> None:
    page = split_page(url, hash_mode=True)
    assert max(map(len, (page.url, page.hostname, page.pathname))) <= URL_LENGTH_MAX


@given(st.text("abc/é%20", max_size=30))
def test_a_stored_url_splits_into_itself(path: str) -> None:
    page = split_page(f"https://example.com/{path}")
    again = split_page(page.url)
    assert (again.url, again.hostname, again.pathname) == (page.url, page.hostname, page.pathname)
