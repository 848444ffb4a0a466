"""The visitor's address, from the socket and, if a trusted proxy says so, from a header.

Invariants: without a trusted proxy no header is looked at, whatever it says. Of a chain of hops,
the rightmost that is not trusted counts: what stands left of it, the visitor may have written. A
visitor's address is not kept here; what is remembered between requests is proxies alone.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from mallard.config import ProxyConfig
from mallard.errors import ConfigError

Headers = Collection[tuple[bytes, bytes]]  # as in ASGI: names in lower case, values as sent
Network = IPv4Network | IPv6Network

DEFAULT_HEADER = "x-forwarded-for"
KNOWN_PROXIES_MAX = 1024
HOPS_MAX = 32  # no honest chain is longer
HEADER_LENGTH_MAX = 4096


@dataclass(frozen=True, slots=True)
class Preset:
    """What a well-known proxy writes the visitor's address into, and where it connects from.

    ranges: empty where the provider's addresses are the customer's own or change too often to
    be built in; then the settings name them beside the preset.
    """

    header: str
    ranges: tuple[str, ...] = ()


# Published ranges change by announcement, about once in some years; others can be named beside
# the preset. Sources: cloudflare.com/ips and developers.cloudflare.com on CF-Connecting-IP;
# api.fastly.com/public-ip-list; the vendors' pages on the headers of CloudFront, Akamai and Fly.
PRESETS = {
    "loopback": Preset(DEFAULT_HEADER, ("127.0.0.0/8", "::1/128")),
    "private": Preset(
        DEFAULT_HEADER,
        (
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "169.254.0.0/16",
            "fc00::/7",
            "fe80::/10",
        ),
    ),
    "nginx": Preset(DEFAULT_HEADER, ("127.0.0.0/8", "::1/128")),
    "caddy": Preset(DEFAULT_HEADER, ("127.0.0.0/8", "::1/128")),
    "cloudflare": Preset(
        "cf-connecting-ip",
        (
            *("173.245.48.0/20", "103.21.244.0/22", "103.22.200.0/22", "103.31.4.0/22"),
            *("141.101.64.0/18", "108.162.192.0/18", "190.93.240.0/20", "188.114.96.0/20"),
            *("197.234.240.0/22", "198.41.128.0/17", "162.158.0.0/15", "104.16.0.0/13"),
            *("104.24.0.0/14", "172.64.0.0/13", "131.0.72.0/22"),
            *("2400:cb00::/32", "2606:4700::/32", "2803:f800::/32", "2405:b500::/32"),
            *("2405:8100::/32", "2a06:98c0::/29", "2c0f:f248::/32"),
        ),
    ),
    "fastly": Preset(
        "fastly-client-ip",
        (
            *("23.235.32.0/20", "43.249.72.0/22", "103.244.50.0/24", "103.245.222.0/23"),
            *("103.245.224.0/24", "104.156.80.0/20", "140.248.64.0/18", "140.248.128.0/17"),
            *("146.75.0.0/17", "151.101.0.0/16", "157.52.64.0/18", "167.82.0.0/17"),
            *("167.82.128.0/20", "167.82.160.0/20", "167.82.224.0/20", "172.111.64.0/18"),
            *("185.31.16.0/22", "199.27.72.0/21", "199.232.0.0/16"),
            *("2a04:4e40::/32", "2a04:4e42::/32"),
        ),
    ),
    "cloudfront": Preset("cloudfront-viewer-address"),
    "akamai": Preset("true-client-ip"),
    "fly": Preset("fly-client-ip"),
}
_AF_INET = int(socket.AF_INET)  # an enumeration's member is looked up and converted each time
_HEADER_NAME = re.compile(r"[A-Za-z0-9\-]{1,64}")
_FORWARDED_FOR = re.compile(r"(?:^|;)\s*for\s*=\s*(\"[^\"]*\"|[^;\s]*)", re.IGNORECASE)
_IPV4_PORT = re.compile(r"([0-9.]{7,15}):[0-9]{1,5}")


class AddressReader:
    """Tells whose request it is."""

    def __init__(self, config: ProxyConfig) -> None:
        """Raise ConfigError for a name that is no preset and no range, or a preset without one."""
        self._networks, self._default_header = _trusted(config)
        self._override = config.header.lower()
        if self._override and not _HEADER_NAME.fullmatch(self._override):
            raise ConfigError(
                f"proxy.header is no header's name: {config.header!r}.",
                field="proxy.header",
                rule="a name such as x-forwarded-for",
            )
        self._proxies: dict[str, bytes] = {}
        # (first address, mask) of each network of IPv4, as numbers
        self._ranges_v4 = [
            (int(network.network_address), int(network.netmask))
            for network, _ in self._networks
            if isinstance(network, IPv4Network)
        ]

    def read(
        self, peer: str | None, headers: Headers, by_name: Mapping[bytes, bytes] | None = None
    ) -> str | None:
        """Return the visitor's address, or None where the socket has none, as a Unix one.

        peer: the address at the other end of the socket. by_name: the same headers, one of each
        name, from whoever has them so; it saves going through the others. The result is in its
        shortest form, without port, brackets or zone; an IPv4 address mapped into IPv6 is an
        IPv4 one.
        """
        if not self._networks:
            return _peer_address(peer)
        header = self._proxies.get(peer or "") or self._header_of(peer)
        if header is None or (by_name is not None and header not in by_name):
            return _peer_address(peer)
        if by_name is not None and len(by_name) == len(headers):
            value = by_name[header]
        else:
            # A header that is there more than once is one list (RFC 9110, section 5.3).
            value = b",".join([value for name, value in headers if name == header])
        text = value[-HEADER_LENGTH_MAX:].decode("latin-1")
        return self._visitor(_hops(header, text)) or _peer_address(peer)

    def _header_of(self, peer: str | None) -> bytes | None:
        """Return which header of a peer is believed, or None."""
        name = self._find_header(_peer_address(peer))
        if name is None:
            return None
        header = name.encode()
        if len(self._proxies) < KNOWN_PROXIES_MAX:
            self._proxies[peer or ""] = header
        return header

    def _find_header(self, peer: str | None) -> str | None:
        if peer is None:  # a Unix socket: only a proxy on this machine has its file
            peer = "127.0.0.1"
        address = ip_address(peer)
        for network, header in self._networks:
            if address in network:
                return self._override or header or self._default_header
        return None

    def _visitor(self, hops: Sequence[str]) -> str | None:
        """Return the rightmost hop that is not trusted; if all are, the leftmost."""
        if len(hops) == 1:  # trusted or not
            return _normal(hops[0])
        last = None
        for hop in reversed(hops[-HOPS_MAX:]):
            last = _normal(hop)
            if last is None:
                return None
            if not self._is_trusted(last):
                return last
        return last

    def _is_trusted(self, address: str) -> bool:
        """Tell whether an address in its shortest form is a trusted proxy's."""
        if ":" not in address:  # without the objects of ipaddress, which cost several times this
            number = int.from_bytes(socket.inet_pton(socket.AF_INET, address))
            return any(number & mask == first for first, mask in self._ranges_v4)
        parsed = ip_address(address)
        return any(parsed in network for network, _ in self._networks)


def _trusted(config: ProxyConfig) -> tuple[list[tuple[Network, str]], str]:
    """Return the trusted networks, each with its header ("" for the default), and the default."""
    networks: list[tuple[Network, str]] = []
    default = DEFAULT_HEADER
    needs_range = ""
    plain = 0
    for name in config.trusted:
        preset = PRESETS.get(name.lower())
        if preset is None:
            networks.append((_network(name), ""))
            plain += 1
        elif preset.ranges:
            header = "" if preset.header == DEFAULT_HEADER else preset.header
            networks.extend((ip_network(text), header) for text in preset.ranges)
            plain += not header
        else:
            default, needs_range = preset.header, name
    if needs_range and not plain:
        raise ConfigError(
            f"proxy.trusted names {needs_range}, whose addresses are not built in.",
            field="proxy.trusted",
            rule=f'the ranges that it connects from, as in ["{needs_range}", "10.0.0.0/8"]',
        )
    return networks, default


def _network(text: str) -> Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(
            f"proxy.trusted holds {text!r}, which is neither a range nor a preset.",
            field="proxy.trusted",
            rule=f"an address, a range such as 10.0.0.0/8, or one of {', '.join(PRESETS)}",
        ) from None


def _peer_address(peer: str | None) -> str | None:
    """Return the socket's address; the system writes IPv4 and IPv6 in their shortest form."""
    if not peer:
        return None
    if ":" in peer:
        return _normal(peer)
    return peer if _is_ipv4(peer) else None


def _is_ipv4(text: str) -> bool:
    try:
        socket.inet_pton(_AF_INET, text)
    except (OSError, ValueError):
        return False
    return True


def _hops(header: bytes, text: str) -> list[str]:
    """Return the addresses that a header lists, the nearest to the server last, as written."""
    if header == b"forwarded":
        return [_forwarded_for(element) for element in text.split(",")]
    hops = [hop.strip() for hop in text.split(",")] if "," in text else [text.strip()]
    if header == b"cloudfront-viewer-address":  # always with a port, and IPv6 without brackets
        return [hop.rpartition(":")[0] for hop in hops]
    return hops


def _forwarded_for(element: str) -> str:
    """Return the `for` of one element of RFC 7239's Forwarded, or "" where it has none."""
    match = _FORWARDED_FOR.search(element)
    return match[1].strip('"') if match else ""


def _normal(text: str) -> str | None:
    """Return an address in its shortest form; None if the text is none."""
    if _is_ipv4(text):
        return text
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif match := _IPV4_PORT.fullmatch(text):
        text = match[1]
    if len(text) > 64:
        return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)
