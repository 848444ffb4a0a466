"""Who sent a request, by its headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.config import ProxyConfig
from mallard.ingest.address import AddressReader
from mallard.ingest.sender import ClientHints, Sender
from mallard.web.senders import SenderReader, language

READER = SenderReader(AddressReader(ProxyConfig()))


def read(**headers: str) -> Sender:
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return READER.read({"client": ("203.0.113.7", 1), "headers": sent}, dict(sent))


def test_a_request_without_headers_has_an_address_alone() -> None:
    assert read() == Sender(address="203.0.113.7", user_agent="")


def test_a_socket_without_an_address_is_nobody() -> None:
    assert READER.read({"client": None, "headers": []}, {}).address is None
    assert READER.read({"headers": []}, {}).address is None


def test_agent_origin_and_hints_are_read() -> None:
    sender = read(
        user_agent="Mozilla/5.0 Ü",
        origin="https://example.com",
        sec_ch_ua='"Chromium";v="124"',
        sec_ch_ua_mobile="?0",
        sec_ch_ua_platform='"Windows"',
    )
    assert sender.origin == "https://example.com"
    assert sender.client_hints == ClientHints('"Chromium";v="124"', "?0", '"Windows"', None)


@pytest.mark.parametrize("name", ["user-agent", "accept-language", "sec-ch-ua-platform"])
def test_browsers_that_differ_in_one_header_are_not_confused(name: str) -> None:
    common = {"user_agent": "a", "accept_language": "de", "sec_ch_ua": "b"}
    usual = read(**common)
    other = read(**common | {name.replace("-", "_"): "fr"})
    assert usual != other
    assert read(**common) == usual


def test_every_value_lands_under_its_own_name() -> None:
    sender = read(
        user_agent="a", origin="o", sec_ch_ua="b", accept_language="de", dnt="1", purpose="prefetch"
    )
    assert sender == Sender(
        address="203.0.113.7",
        user_agent="a",
        origin="o",
        client_hints=ClientHints(brands="b"),
        language="de",
        privacy_signal=True,
        prefetch=True,
    )
    assert not read(user_agent="a", dnt="1").prefetch
    assert not read(user_agent="a", purpose="prefetch").privacy_signal
    assert type(sender) is Sender


def test_hints_without_brands_are_none_and_empty_brands_are_hints() -> None:
    assert read(sec_ch_ua_mobile="?1").client_hints is None
    assert read(sec_ch_ua="", sec_ch_ua_mobile="?1").client_hints == ClientHints(mobile="?1")


def test_two_visitors_with_one_browser_keep_their_own_addresses() -> None:
    trusting = SenderReader(AddressReader(ProxyConfig(trusted=("loopback",))))
    headers = {b"user-agent": b"unique", b"x-forwarded-for": b"203.0.113.99"}
    scope = {"client": ("127.0.0.1", 1), "headers": list(headers.items())}
    assert trusting.read(scope, headers).address == "203.0.113.99"
    headers = {b"user-agent": b"unique", b"x-forwarded-for": b"203.0.113.98"}
    scope = {"client": ("127.0.0.1", 1), "headers": list(headers.items())}
    assert trusting.read(scope, headers).address == "203.0.113.98"


def test_what_is_long_is_cut() -> None:
    sender = read(user_agent="x" * 9000, sec_ch_ua="y" * 9000, origin="z" * 9000)
    assert len(sender.user_agent) <= 1024
    assert len((sender.client_hints or ClientHints()).brands or "") <= 1024
    assert len(sender.origin or "") <= 300


@pytest.mark.parametrize(
    ("accepted", "first"),
    [
        (b"en-US,en;q=0.9", "en-us"),
        (b"de", "de"),
        (b" fr-CH ; q=1, fr", "fr-ch"),
        (b"zh-Hant-TW", "zh-hant-tw"),
        (b"*", None),
        (b"", None),
        (b"x" * 60, None),
        (b"en_US", None),
        (b"\xff", None),
    ],
)
def test_the_first_language_counts(accepted: bytes, first: str | None) -> None:
    assert language(accepted) == first


@pytest.mark.parametrize(
    ("headers", "signal"),
    [
        ({"sec_gpc": "1"}, True),
        ({"dnt": "1"}, True),
        ({"dnt": "0"}, False),
        ({"sec_gpc": "0", "dnt": "null"}, False),
        ({"sec_gpc": "0", "dnt": "1"}, True),
    ],
)
def test_a_wish_for_privacy_is_a_one(headers: dict[str, str], signal: bool) -> None:
    assert read(**headers).privacy_signal is signal


@pytest.mark.parametrize(
    ("headers", "prefetch"),
    [
        ({"sec_purpose": "prefetch"}, True),
        ({"sec_purpose": "prefetch;prerender"}, True),
        ({"purpose": "Prefetch"}, True),
        ({"x_moz": "prefetch"}, True),
        ({"x_purpose": "preview"}, True),
        ({"purpose": "click"}, False),
    ],
)
def test_a_page_that_nobody_looks_at_is_prefetched(headers: dict[str, str], prefetch: bool) -> None:
    assert read(**headers).prefetch is prefetch


@given(st.dictionaries(st.sampled_from([b"user-agent", b"origin", b"sec-ch-ua"]), st.binary()))
def test_any_bytes_can_be_stored_as_text(headers: dict[bytes, bytes]) -> None:
    sender = READER.read({"client": None, "headers": list(headers.items())}, headers)
    sender.user_agent.encode()
    (sender.origin or "").encode()
