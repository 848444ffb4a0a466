"""What strangers send: bodies, heads and query strings that no honest client makes."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import orjson

from tests.end_to_end.wire import message

MIB = 1024 * 1024

# Values of a wrong type, beyond every limit, or that only some parsers take; raw JSON.
_VALUES = [
    *(b"null", b"true", b"0", b"-0", b"-1", b"1.5", b"1e308", b"1e999", b"-1e999", b"1e-400"),
    *(b"12345678901234567890", b"9" * 400, b"0." + b"3" * 400, b"NaN", b"Infinity", b"01", b"+1"),
    *(b'""', b'" "', b'"x"', b'"' + b"x" * 5000 + b'"', b'"' + b"x" * 70_000 + b'"'),
    *(b"[]", b"{}", b"[[[[]]]]", b'{"a": {"b": [null]}}', b"[" * 2000 + b"]" * 2000),
    *(b'"\\u0000"', b'"a\\u0000b"', b'"\\ud800"', b'"\\udfff\\ud800"', b'"\\u202e\\ufeff"'),
    *(
        b'"\x00"',
        b'"\x01\x7f"',
        b'"\xff\xfe"',
        b'"\xed\xa0\x80"',
        b'"\xf4\x90\x80\x80"',
        b'"\xc0\x80"',
    ),
    *(
        b'"\\n\\r\\t"',
        b'"\'; DROP TABLE events; --"',
        b'"{\\"a\\": 1}"',
        b'"{\\"a\\": \\"\\\\u0000\\"}"',
    ),
    *('"𝓓ß\u0301🦆"'.encode(), b'"%00%ff%ed%a0%80"', b'"\\\\\\\\server\\\\share"', b'"=1+1"'),
]
_FIELDS = ("d", "n", "u", "r", "w", "p", "ra", "rc", "$", "i", "h", "sd", "e", "v", "domain", "m")
_SITES = [
    *("..", ".", "...", "../x", "a/../../b", "/etc/passwd", "a\\b", "%2e%2e", "a..b", ".hidden"),
    *("-", "_", ":", "a:b", "a" * 256, "a" * 257, "site_id=x", "date=2026-01-01", "*", "?", "~"),
    *(
        ",",
        ",,,",
        "a," * 1000,
        "a,a,a",
        " a , b ",
        "é.example",
        "a b",
        "a\nb",
        "a'b",
        'a"b',
        "www.",
    ),
    *("con", "nul", "CON.", "www.www.www.a", "recent", "mallard.db", "__HIVE_DEFAULT_PARTITION__"),
]
_URLS = [
    *("javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "http://", "://", "//", "/"),
    *("https://[::1", "https://[::1]:99999/", "https://a:b@c:d@e/", "https://x/%", "https://x/%zz"),
    *("https://x/%00%ff%c0%af", "https://x/?" + "&" * 2000, "https://x/?" + "utm_source=a&" * 150),
    *("https://x/#" + "#" * 2000, "https://" + "a." * 1000, "https://xn--/", "a" * 2048, "\u202e"),
    *("https://x/" + "../" * 600, "https://x/?utm_source=%ed%a0%80&utm_term=%00", "HTTPS://X\\@y/"),
]


def json_bodies() -> Iterator[bytes]:
    """Yield bodies for the POST; some are accepted, most are not."""
    yield from (
        b"",
        b" ",
        b"null",
        b"true",
        b"1",
        b'"x"',
        b"[]",
        b"{}",
        b"{",
        b"}",
        b"\xef\xbb\xbf{}",
    )
    yield from (b"\x00" * 1000, b"\xff" * 1000, b"[" * 60_000, b'{"a":' * 10_000, b'"' * 60_000)
    for field in _FIELDS:
        for value in _VALUES:
            yield _event(**{field: value})
    for site in _SITES:
        yield _event(d=orjson.dumps(site))
    for url in _URLS:
        yield _event(u=orjson.dumps(url))
        yield _event(r=orjson.dumps(url))
    many = {f"k{number}": number for number in range(10_000)}
    yield _event()[:-1] + b"," + orjson.dumps(many)[1:]
    yield _event(p=orjson.dumps(many))
    yield _event(p=orjson.dumps({"k" * 4000: 1}))
    yield _event(
        p=orjson.dumps({"": "", " ": None, "$": [], "a.b": {"c": [1, [2, [3]]]}, "🦆": -0.0})
    )
    for depth in (10, 14, 15, 16, 17, 500):
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        yield _event(p=nested)
        yield _event(p=orjson.dumps(nested.decode()))
    yield b'{"d":"a","d":"b","n":"x","u":"/"}'
    yield b'{"d":"a.example","\\u0064":"b.example","n":"x","u":"/"}'


def batch_bodies() -> Iterator[bytes]:
    """Yield bodies for the batch door."""
    yield from (b"[]", b"[null]", b"[[]]", b"{}", b"[" + b"{}," * 1000 + b"{}]")
    yield b"[" + b",".join([_event()] * 1001) + b"]"
    yield b"[" + _event() + b"," + _event(d=b'".."') + b"]"
    yield b"[" + b",".join([_event(d=b'"a,b,c"')] * 999) + b"]"
    yield b"[" + b",".join([_event(p=orjson.dumps({"k": "x" * 4000}))] * 200) + b"]"
    yield b"[" * MIB


def whole_requests() -> Iterator[bytes]:
    """Yield requests whose head or framing is what is wrong."""
    body = _event()
    bomb = gzip.compress(b" " * 50 * MIB + body)
    for encoding, packed in (
        ("gzip", bomb),
        ("gzip", gzip.compress(bomb, mtime=0)),
        ("gzip", bomb[:1000]),
        ("gzip", b"\x1f\x8b" + b"\xff" * 60_000),
        ("gzip", gzip.compress(body, mtime=0) + b"more"),
        ("gzip", gzip.compress(body, mtime=0) * 2),
        ("deflate", zlib.compress(b"\0" * 50 * MIB)),
        ("deflate", b""),
        ("br", body),
        ("gzip, gzip", gzip.compress(gzip.compress(body, mtime=0))),
        ("\x80", body),
    ):
        yield _post(packed, {"Content-Encoding": encoding})
    for headers in _header_sets():
        yield _post(body, headers)
        yield message("GET", "/api/event?d=example.com&u=/", headers=headers)
    for query in _query_strings():
        yield message("GET", "/api/event?" + query)
    for path in ("/../../etc/passwd", "//api/event", "/api/event/", "/api/event/../event", "/%00"):
        yield message("GET", path)
    for path in (
        "http://elsewhere.example/api/event",
        "*",
        "/js/../../../etc/passwd",
        "/js/%2e%2e/x",
    ):
        yield message("GET", path)
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "HEAD", "PROPFIND", "BREW"):
        yield message(method, "/api/event", body)
    yield from _broken_framing(body)


def _header_sets() -> Iterator[dict[str, str]]:
    for value in (
        "203.0.113.1, " * 4000,
        "::ffff:::1",
        "[",
        "999.999.999.999",
        "1.2.3.4:99999999",
        "fe80::1%" + "e" * 1000,
        "\xff\xfe",
        "unknown, -, null, '\"",
        ",,,,",
        "0x7f.1",
    ):
        yield {"X-Forwarded-For": value}
    for name in ("User-Agent", "Accept-Language", "Origin", "Sec-CH-UA", "Referer", "Cookie"):
        for value in ("", "\xff" * 100, "(" * 30_000, "Mozilla/5.0 " + "a/1 " * 7000, "null", "\t"):
            yield {name: value}
    yield {
        "Sec-CH-UA": '"' * 999,
        "Sec-CH-UA-Platform": '"',
        "Sec-CH-UA-Platform-Version": "9" * 999,
    }
    yield {f"X-{number}": "x" for number in range(3000)}
    yield {"Transfer-Encoding": "chunked"}
    yield {"Expect": "100-continue"}
    yield {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x"}
    yield {"X-Debug-Request": "true", "User-Agent": "Googlebot", "X-Forwarded-For": "\x80"}


def _query_strings() -> Iterator[str]:
    base = "d=example.com&u=https://example.com/"
    yield from ("", "&", "=", "&&&&=&=", "%", "%zz", "d", "d&u", "d=&u=", "?" * 1000, "\xff")
    for name in "dnurw":
        for value in (
            "%00",
            "%ff",
            "%ed%a0%80",
            "..",
            "%2e%2e%2f",
            "9e99",
            "9" * 5000,
            "[]",
            "%F0%9F%A6%86",
        ):
            yield f"{name}={value}&{base}"
    yield base + "&x=1" * 5000
    yield base + "&n=" + "x" * 30_000
    yield base.replace("&", ";")


def _broken_framing(body: bytes) -> Iterator[bytes]:
    head = b"POST /api/event HTTP/1.1\r\nHost: x\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    for length in (b"-1", b"+5", b"1e3", b"0x10", b"9" * 30, b"", b"5, 5", b"\xff"):
        yield head + b"Content-Length: " + length + b"\r\n\r\n" + body
    yield head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + body
    yield head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    yield head + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
    yield from (
        chunked + size + b"\r\n" for size in (b"z", b"-1", b"f" * 40, b"5;" + b"x" * 70_000)
    )
    yield chunked + b"5\r\nabcdefgh\r\n0\r\n\r\n"
    yield from (
        head + line + b"\r\n\r\n" for line in (b": x", b"x", b"X : y", b"X: \x00", b"\x80: y")
    )
    yield head + b"X: a\r\n folded\r\n\r\n"
    yield b"POST /api/event HTTP/9.9\r\n\r\n"
    yield b"GET /api/event\r\n\r\n"
    yield b"GET /\xff\xfe HTTP/1.1\r\n\r\n"
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield b"CONNECT elsewhere.example:443 HTTP/1.1\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 500
    yield b"\x00" * 1000
    yield b"GET / HTTP/1.1\n\n"


def _event(**raw: bytes) -> bytes:
    """Return an event as JSON, with these fields as these raw JSON texts."""
    fields = {"d": b'"example.com"', "n": b'"hostile"', "u": b'"https://example.com/x"', **raw}
    return (
        b"{" + b",".join(b'"%s":%s' % (name.encode(), text) for name, text in fields.items()) + b"}"
    )


def _post(body: bytes, headers: dict[str, str]) -> bytes:
    return message("POST", "/api/event", body, headers)
