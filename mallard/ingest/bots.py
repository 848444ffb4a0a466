"""Which User-Agents are automated visitors, by a kept list and a few rules of our own.

Invariants: programs that send events on purpose are not bots. A back end calls the event
endpoint through an HTTP library (003's own example is curl), and nobody loads a page with a
tracker in it through one; so the libraries of `SERVER_CLIENTS` pass, unless they say that
they crawl. A person who reads a page inside an app is not that app's link preview, and one who
opens a mail is not the proxy that fetches its images.

Source of the list: the package crawler-user-agents (MIT), patterns with tags.
"""

from __future__ import annotations

import re
from functools import lru_cache

from crawleruseragents import CRAWLER_USER_AGENTS_DATA

from mallard.ingest.user_agent import AGENT_LENGTH_MAX

CACHED_AGENTS_MAX = 4096  # at most 4 bytes a character: 8 MiB when each is hostile

# Patterns of the list that name an HTTP library or tool and nothing else. What the list has
# under the same tag and is left in there crawls or copies sites: Scrapy, HTTrack, colly, ...
# Libraries that the list does not know (Java, Guzzle, Faraday, reqwest, ...) pass by themselves.
SERVER_CLIENTS = frozenset(
    {
        "^curl",
        "[wW]get",
        "^HTTPie\\/",
        "python-requests",
        "Python-urllib",
        "aiohttp",
        "httpx",
        "Go-http-client",
        "okhttp",
        "axios",
        "node-fetch",
        "sindresorhus\\/got",
        "^Apache-HttpClient",
        "AHC\\/",
        "HttpUrlConnection",
        "Jetty",
        "^PHP-Curl-Class",
        "libwww-perl",
        "AnyEvent",
        "Salesforce\\.com",
    }
)

# Apps that fetch a preview under their own name, and show pages in a browser view that
# appends the same name to a browser's. Only the former is a bot.
PREVIEW_APPS = frozenset({"WhatsApp", "Viber"})

# Mail services that fetch the images of a mail when somebody opens it: the pixel's main use. The
# list counts them among previews; dropping them would drop every opening in Gmail.
MAIL_PROXIES = frozenset({"GoogleImageProxy", "YahooMailProxy"})

AUTOMATION = "automation"  # a browser that a program drives
BOT = "bot"

_AUTOMATION_TAG = "browser-automation"
_PREVIEW = re.compile(r"\s*(?:WhatsApp|Viber)\b")
_DRIVEN = re.compile(
    r"headless|phantomjs|nightmare/|cypress/|puppeteer|playwright|selenium|webdriver", re.I
)
# For the many that no list knows yet. "Cubot" makes phones.
_SAYS_SO = re.compile(
    r"(?<!cu)bots?\b|crawl(?:er|ing)|\bspider|scrap(?:er|y|ing)|link.?(?:check|chk)"
    r"|lighthouse|projectdiscovery",
    re.I,
)
_CHUNK = 25  # patterns joined in one expression; the package found this size the fastest


class Bots:
    """Tells automated visitors by their User-Agent; a seen agent costs one dictionary lookup."""

    def __init__(self) -> None:
        """Compile the list: some 20 ms, once."""
        passing = SERVER_CLIENTS | PREVIEW_APPS | MAIL_PROXIES
        driven: list[str] = []
        others: list[str] = []
        for entry in CRAWLER_USER_AGENTS_DATA:
            pattern = entry["pattern"]
            if pattern not in passing:
                tagged = _AUTOMATION_TAG in entry.get("tags", ())
                (driven if tagged else others).append(pattern)
        self._driven = [_DRIVEN, *_joined(driven)]
        self._others = [_SAYS_SO, *_joined(others)]
        self._reason = lru_cache(CACHED_AGENTS_MAX)(self._judge)

    def reason(self, user_agent: str) -> str | None:
        """Return why an agent is a bot, "automation" or "bot"; None if it is not.

        An empty agent is not: back ends send none. Only the first `AGENT_LENGTH_MAX` characters
        are looked at.
        """
        return self._reason(user_agent[:AGENT_LENGTH_MAX])

    def _judge(self, agent: str) -> str | None:
        if any(pattern.search(agent) for pattern in self._driven):
            return AUTOMATION
        if _PREVIEW.match(agent) or any(pattern.search(agent) for pattern in self._others):
            return BOT
        return None


def _joined(patterns: list[str]) -> list[re.Pattern[str]]:
    return [
        re.compile("|".join(patterns[start : start + _CHUNK]))
        for start in range(0, len(patterns), _CHUNK)
    ]
