"""Whose request it is."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.config import ProxyConfig
from mallard.errors import ConfigError
from mallard.ingest.address import AddressReader

CLOUDFLARE = "173.245.48.1"


def read(peer: str | None, *trusted: str, header: str = "", **headers: str) -> str | None:
    reader = AddressReader(ProxyConfig(trusted=trusted, header=header))
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    first = reader.read(peer, sent)
    assert reader.read(peer, sent) == first
    assert reader.read(peer, sent, dict(sent)) == first
    return first


def test_without_a_trusted_proxy_no_header_is_believed() -> None:
    lies = {"x_forwarded_for": "9.9.9.9", "forwarded": "for=9.9.9.9", "cf_connecting_ip": "9.9.9.9"}
    assert read("203.0.113.7", **lies) == "203.0.113.7"
    assert read("203.0.113.7", "loopback", "cloudflare", **lies) == "203.0.113.7"


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        (None, None),
        ("", None),
        ("testclient", None),
    ],
)
def test_a_peer_is_its_address(peer: str | None, address: str | None) -> None:
    assert read(peer) == address


@pytest.mark.parametrize(
    ("chain", "visitor"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7, 10.1.2.3, 127.0.0.1", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("10.0.0.9, 10.0.0.8", "10.0.0.9"),
        ("unknown", "127.0.0.1"),
        ("203.0.113.7, unknown", "127.0.0.1"),
        ("203.0.113.7,", "127.0.0.1"),
        ("203.0.113.999", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("1" * 9000, "127.0.0.1"),
    ],
)
def test_the_rightmost_hop_that_is_not_trusted_counts(chain: str, visitor: str) -> None:
    assert read("127.0.0.1", "loopback", "10.0.0.0/8", x_forwarded_for=chain) == visitor


def test_a_header_that_is_there_twice_is_one_list() -> None:
    reader = AddressReader(ProxyConfig(trusted=("loopback",)))
    headers = [(b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-for", b"203.0.113.7")]
    assert reader.read("127.0.0.1", headers) == "203.0.113.7"
    headers.append((b"x-forwarded-for", b"127.0.0.1"))
    assert reader.read("127.0.0.1", headers, dict(headers)) == "203.0.113.7"


@pytest.mark.parametrize(
    ("trusted", "peer", "name", "value"),
    [
        (("cloudflare",), CLOUDFLARE, "cf_connecting_ip", "203.0.113.7"),
        (("cloudflare",), "2606:4700::1", "cf_connecting_ip", "203.0.113.7"),
        (("fastly",), "151.101.1.1", "fastly_client_ip", "203.0.113.7"),
        (("fly", "172.16.0.0/12"), "172.16.0.1", "fly_client_ip", "203.0.113.7"),
        (("private", "fly"), "fdaa::1", "fly_client_ip", "203.0.113.7"),
        (("akamai", "198.51.100.0/24"), "198.51.100.9", "true_client_ip", "203.0.113.7"),
        (("cloudfront", "private"), "10.0.0.1", "cloudfront_viewer_address", "203.0.113.7:4711"),
        (("nginx",), "127.0.0.1", "x_forwarded_for", "203.0.113.7"),
        (("Caddy",), "::1", "x_forwarded_for", "203.0.113.7"),
        (("private",), "192.168.1.1", "x_forwarded_for", "203.0.113.7"),
        (("loopback",), None, "x_forwarded_for", "203.0.113.7"),
        (("10.1.2.3",), "10.1.2.3", "x_forwarded_for", "203.0.113.7"),
    ],
)
def test_a_preset_knows_its_ranges_and_its_header(
    trusted: tuple[str, ...], peer: str | None, name: str, value: str
) -> None:
    assert read(peer, *trusted, **{name: value}) == "203.0.113.7"
    assert read("198.18.0.1", *trusted, **{name: value}) == "198.18.0.1"


def test_cloudfront_writes_ipv6_without_brackets() -> None:
    trusted = ("cloudfront", "private")
    assert read("10.0.0.1", *trusted, cloudfront_viewer_address="2001:db8::1:4711") == "2001:db8::1"


def test_each_proxy_of_a_chain_has_its_own_header() -> None:
    trusted = ("cloudflare", "loopback")
    assert read(CLOUDFLARE, *trusted, cf_connecting_ip="203.0.113.7") == "203.0.113.7"
    assert read(CLOUDFLARE, *trusted, x_forwarded_for="203.0.113.7") == CLOUDFLARE
    chain = f"203.0.113.7, {CLOUDFLARE}"
    assert read("127.0.0.1", *trusted, x_forwarded_for=chain) == "203.0.113.7"


def test_a_header_can_be_named_in_the_settings() -> None:
    trusted = ("loopback",)
    assert read("127.0.0.1", *trusted, header="X-Real-IP", x_real_ip="203.0.113.7") == "203.0.113.7"
    other = {"x_forwarded_for": "203.0.113.7"}
    assert read("127.0.0.1", *trusted, header="X-Real-IP", **other) == "127.0.0.1"


@pytest.mark.parametrize(
    ("value", "visitor"),
    [
        ("for=203.0.113.7", "203.0.113.7"),
        ('For="[2001:db8::1]:4711";proto=https;by=203.0.113.43', "2001:db8::1"),
        ("for=6.6.6.6, proto=http;for=203.0.113.7, for=127.0.0.1", "203.0.113.7"),
        ("for=_hidden", "127.0.0.1"),
        ("proto=https", "127.0.0.1"),
    ],
)
def test_the_standard_header_is_read(value: str, visitor: str) -> None:
    assert read("127.0.0.1", "loopback", header="forwarded", forwarded=value) == visitor


@pytest.mark.parametrize(
    ("trusted", "header"),
    [(("10.0.0.0/33",), ""), (("cloudflair",), ""), (("fly",), ""), ((), "x forwarded")],
)
def test_a_setting_that_means_nothing_stops_the_start(
    trusted: tuple[str, ...], header: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        AddressReader(ProxyConfig(trusted=trusted, header=header))
    assert caught.value.rule


def test_addresses_of_visitors_are_not_kept() -> None:
    reader = AddressReader(ProxyConfig(trusted=("loopback",)))
    reader.read("203.0.113.7", [])
    reader.read("127.0.0.1", [(b"x-forwarded-for", b"203.0.113.8")])
    assert "203.0.113" not in repr(vars(reader))


@given(st.binary(max_size=80), st.sampled_from(["", "forwarded", "cloudfront-viewer-address"]))
def test_any_header_gives_an_address(value: bytes, header: str) -> None:
    reader = AddressReader(ProxyConfig(trusted=("loopback",), header=header))
    name = (header or "x-forwarded-for").encode()
    address = reader.read("127.0.0.1", [(name, value)])
    assert address is not None
    assert str(ip_address(address)) == address
