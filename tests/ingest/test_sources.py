"""Sources that have a name."""

from __future__ import annotations

from collections import Counter

import pytest

from mallard.ingest import sources
from mallard.ingest.sources import Kind, kind_of, source_of_host, source_of_tag


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("google.com", "Google"),
        ("www.google.de", "Google"),
        ("google.co.uk", "Google"),
        ("google.com.br", "Google"),
        ("news.google.com", "Google News"),
        ("mail.google.com", "Gmail"),
        ("gemini.google.com", "Gemini"),
        ("search.yahoo.com", "Yahoo!"),
        ("search.yahoo.co.jp", "Yahoo!"),
        ("mail.yahoo.com", "Yahoo! Mail"),
        ("yandex.ru", "Yandex"),
        ("amazon.com.au", "Amazon"),
        ("t.co", "Twitter"),
        ("old.reddit.com", "Reddit"),
        ("l.facebook.com", "Facebook"),
        ("lm.facebook.com", "Facebook"),
        ("m.youtube.com", "YouTube"),
        ("chatgpt.com", "ChatGPT"),
        ("en.wikipedia.org", "Wikipedia"),
        ("news.ycombinator.com", "Hacker News"),
    ],
)
def test_known_hosts_have_a_name(host: str, source: str) -> None:
    assert source_of_host(host) == source


@pytest.mark.parametrize(
    "host",
    [
        "notgoogle.com",
        "google.example.com",
        "google.com.evil.example",
        "climbing.com",
        "reddit.com.example",
        "xt.co",
        "google",
        "com",
        "",
        "...",
    ],
)
def test_a_name_inside_another_host_is_not_it(host: str) -> None:
    assert source_of_host(host) is None


@pytest.mark.parametrize(
    ("tag", "source"),
    [
        ("google", "Google"),
        ("GOOGLE", "Google"),
        ("adwords", "Google"),
        ("fb", "Facebook"),
        ("facebook-ads", "Facebook"),
        ("ig", "Instagram"),
        ("twitter", "Twitter"),
        ("chatgpt.com", "ChatGPT"),
        ("www.google.de", "Google"),
        ("Our Newsletter", "Our Newsletter"),
    ],
)
def test_spellings_of_a_source_are_one_source(tag: str, source: str) -> None:
    assert source_of_tag(tag) == source


def test_no_host_and_no_name_stands_twice_in_the_table() -> None:
    rows = [row for table in sources.TABLE.values() for row in table]
    hosts = Counter(host for _, hosts, _ in rows for host in hosts.split())
    names = Counter(name for name, _, _ in rows)
    assert max(hosts.values()) == max(names.values()) == 1


def test_every_host_of_the_table_leads_to_its_own_source() -> None:
    for table in sources.TABLE.values():
        for name, hosts, _ in table:
            for host in hosts.split():
                assert source_of_host(host.replace("*", "com")) == name


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("Google", Kind.SEARCH),
        ("newsletter", Kind.EMAIL),
        ("E-Mail", Kind.EMAIL),
        ("example.org", None),
        (None, None),
    ],
)
def test_a_named_source_has_a_kind(source: str | None, kind: Kind | None) -> None:
    assert kind_of(source) is kind
