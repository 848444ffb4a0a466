"""Requests as a server of twenty sites gets them: made once, the same in every run.

Invariant: what is sent varies as real traffic does (pages, referrers, agents, props, money), so
that no cache holds more of it than it would in earnest; popular pages are asked for more often.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import TypeVar

import orjson

SEED = 7
SITES = 20
PAGES_PER_SITE = 200
SINGLE_REQUESTS = 4_000
BATCH_REQUESTS = 8
BATCH_EVENTS = 1_000

T = TypeVar("T")

EVENT_PATH = "/api/event"
BATCH_PATH = "/api/event/batch"

_CHROMIUM = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{0}.0.0.0"
# What browsers send, with their version left open; how often each is seen; whether it sends hints.
_AGENTS = [
    ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + _CHROMIUM + " Safari/537.36", 30, "Windows"),
    ("Mozilla/5.0 (Linux; Android 10; K) " + _CHROMIUM + " Mobile Safari/537.36", 25, "Android"),
    ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) " + _CHROMIUM + " Safari/537.36", 8, "macOS"),
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + _CHROMIUM + " Safari/537.36 Edg/{0}.0.0.0",
        6,
        "Windows",
    ),
    ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:{0}.0) Gecko/20100101 Firefox/{0}.0", 5, ""),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_{1} like Mac OS X) AppleWebKit/605.1.15 "
        "(KHTML, like Gecko) Version/17.{1} Mobile/15E148 Safari/604.1",
        20,
        "",
    ),
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 "
        "(KHTML, like Gecko) Version/17.{1} Safari/605.1.15",
        6,
        "",
    ),
]
_REFERRERS = [
    ("https://www.google.com/", 35),
    ("https://www.bing.com/", 6),
    ("https://duckduckgo.com/", 5),
    ("https://t.co/8Wq2mZ0xYb", 6),
    ("https://www.reddit.com/r/selfhosted/comments/1c0ffee/", 5),
    ("https://news.ycombinator.com/item?id=40000001", 5),
    ("https://github.com/", 5),
    ("https://l.facebook.com/", 6),
    ("https://blog.example.net/posts/{}", 12),
]
_LANGUAGES = ["en-US,en;q=0.9", "de-DE,de;q=0.9,en;q=0.8", "fr-FR,fr;q=0.9", "es-ES,es;q=0.9"]
_WORDS = ["pricing", "docs", "blog", "about", "guide", "release", "install", "privacy", "contact"]
_WIDTHS = [360, 390, 412, 768, 1280, 1366, 1440, 1536, 1920, 2560]


def single_requests(port: int) -> list[bytes]:
    """Return `SINGLE_REQUESTS` requests of browsers, an event each, as they go over the wire.

    Behind a trusted proxy, as most servers are: the visitor's address is in X-Forwarded-For.
    """
    generator = random.Random(SEED)  # noqa: S311 - the same traffic every time is the point
    return [_browser_request(generator, port) for _ in range(SINGLE_REQUESTS)]


def of_others(requests: list[bytes], times: int) -> Iterator[bytes]:
    """Yield browsers' requests so many times each, then those of other visitors, and so on."""
    for number in itertools.count():
        address = b"For: %d.%d." % (11 + number // 256 % 100, number % 256)
        for _ in range(times):
            for request in requests:
                yield request.replace(b"For: 198.18.", address, 1)


def batch_requests(port: int) -> list[bytes]:
    """Return `BATCH_REQUESTS` requests of a back end, `BATCH_EVENTS` events each."""
    generator = random.Random(SEED)  # noqa: S311
    return [
        back_end_request(
            port, BATCH_PATH, orjson.dumps([_event(generator)[0] for _ in range(BATCH_EVENTS)])
        )
        for _ in range(BATCH_REQUESTS)
    ]


def numbered_batch(port: int, first: int, count: int) -> bytes:
    """Return a batch whose events say in the prop `number` which one each is, from first on."""
    generator = random.Random(first)  # noqa: S311
    events = []
    for number in range(first, first + count):
        event, _ = _event(generator)
        event["p"] = {"number": number}
        events.append(event)
    return back_end_request(port, BATCH_PATH, orjson.dumps(events))


def site_events(sites: int, count: int) -> bytes:
    """Return a JSON array of count events, one site after the other in turn."""
    generator = random.Random(SEED)  # noqa: S311
    events = []
    for number in range(count):
        event, _ = _event(generator)
        event["d"] = f"site-{number % sites}.example"
        events.append(event)
    return orjson.dumps(events)


def back_end_request(port: int, path: str, body: bytes) -> bytes:
    """Return a POST of JSON as a back end sends it."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: Shop/4.2\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _browser_request(generator: random.Random, port: int) -> bytes:
    event, site = _event(generator)
    body = orjson.dumps(event)
    template, platform = _chosen(generator, [((text, hint), w) for text, w, hint in _AGENTS])
    version = generator.randint(118, 131)
    mobile = platform == "Android"
    hints = (
        f'sec-ch-ua: "Chromium";v="{version}", "Google Chrome";v="{version}", '
        f'"Not-A.Brand";v="99"\r\nsec-ch-ua-mobile: ?{int(mobile)}\r\n'
        f'sec-ch-ua-platform: "{platform}"\r\n'
    )
    head = (
        f"POST {EVENT_PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"X-Forwarded-For: 198.18.{generator.randrange(256)}.{generator.randrange(256)}\r\n"
        f"Content-Length: {len(body)}\r\n{hints if platform else ''}"
        f"User-Agent: {template.format(version, generator.randrange(6))}\r\n"
        f"Content-Type: text/plain\r\nAccept: */*\r\nOrigin: https://{site}\r\n"
        f"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n"
        f"Referer: https://{site}/\r\nAccept-Encoding: gzip, deflate, br\r\n"
        f"Accept-Language: {generator.choice(_LANGUAGES)}\r\n\r\n"
    )
    return head.encode() + body


def _event(generator: random.Random) -> tuple[dict[str, object], str]:
    """Return an event as 003 prints it, and its site."""
    site = f"site-{_popular(generator, SITES)}.example"
    page = _popular(generator, PAGES_PER_SITE)
    url = f"https://{site}/{_WORDS[page % len(_WORDS)]}/{page}"
    if generator.random() < 0.1:
        url += f"?utm_source=newsletter&utm_medium=email&utm_campaign=week-{page % 52}"
    event: dict[str, object] = {
        "n": "pageview",
        "u": url,
        "d": site,
        "w": generator.choice(_WIDTHS),
    }
    if generator.random() < 0.7:
        event["r"] = _chosen(generator, _REFERRERS).format(page)
    kind = generator.random()
    if kind < 0.12:
        event |= {"n": "engagement", "e": generator.randint(1_000, 90_000), "sd": page % 101}
    elif kind < 0.2:
        event |= {"n": "signup", "p": {"plan": generator.choice(["free", "pro"]), "from": page}}
    elif kind < 0.23:
        event |= {"n": "purchase", "ra": page + 0.99, "rc": generator.choice(["EUR", "USD"])}
    return event, site


def _popular(generator: random.Random, count: int) -> int:
    """Return a number below count, small ones more often: as pages are asked for."""
    return int((count + 1) ** generator.random()) - 1  # as 1/rank, which is Zipf's law


def _chosen(generator: random.Random, weighted: list[tuple[T, int]]) -> T:
    return generator.choices([v for v, _ in weighted], [w for _, w in weighted])[0]
