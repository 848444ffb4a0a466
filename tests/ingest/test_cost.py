"""What hostile text may cost: bounded time for each event, bounded memory for all of them."""

from __future__ import annotations

from time import perf_counter

import pytest

from mallard.ingest.bots import Bots
from mallard.ingest.campaign import read_campaign
from mallard.ingest.page import URL_LENGTH_MAX, split_page
from mallard.ingest.referrer import Referrers
from mallard.ingest.user_agent import UserAgents

# Hundreds of times what each takes; an expression that backtracks takes minutes.
SECONDS_MAX = 1.0

BOTS, AGENTS, REFERRERS = Bots(), UserAgents(), Referrers()


@pytest.mark.parametrize(
    "piece",
    ["a", " ", "1.", "Mozilla/5.0 (", "Macintosh ", "Version/1 ", "bo", "-http://", "\x00", "é;"],
)
def test_no_agent_however_long_keeps_the_server_busy(piece: str) -> None:
    started = perf_counter()
    BOTS.reason(piece * 60_000)
    AGENTS.describe(piece * 60_000)
    assert perf_counter() - started < SECONDS_MAX


@pytest.mark.parametrize(
    "piece", ["%ff", "%00", "\x00", "&", "utm_source=a&", "a.", "//", "@", "[", "?#", "%E2%82"]
)
def test_no_url_however_long_keeps_the_server_busy(piece: str) -> None:
    url = f"https://example.com/?{piece * 60_000}"
    started = perf_counter()
    for text in (url, url.replace("?", ""), piece * 60_000):
        page = split_page(text, hash_mode=True)
        read_campaign(page.query)
        REFERRERS.is_spam_referrer(text)
    assert perf_counter() - started < SECONDS_MAX
    assert len(page.query) <= 2 * URL_LENGTH_MAX


def test_a_flood_of_agents_and_referrers_leaves_no_more_than_the_caches_hold() -> None:
    agents, referrers = UserAgents(), Referrers()
    for i in range(5000):
        agents.describe(f"agent-{i}")
        referrers.read(f"https://{i}.example/")
        referrers.is_spam_referrer(f"https://{i}.example/")
    assert agents._describe.cache_info().currsize <= 4096
    assert referrers._cached.cache_info().currsize <= 4096
    assert referrers._cached_spam.cache_info().currsize <= 4096


def test_a_long_referrer_is_not_kept() -> None:
    referrers = Referrers()
    referrers.read("https://example.org/" + "x" * 1000)
    assert referrers.is_spam_referrer("https://semalt.com/" + "x" * 1000)
    assert referrers._cached.cache_info().currsize == 0
    assert referrers._cached_spam.cache_info().currsize == 0
