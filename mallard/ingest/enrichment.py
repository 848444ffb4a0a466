"""A raw event and its sender become an Event: what is stored, and nothing that was only passed by.

Invariants: the address and the User-Agent go in and do not come out. Nothing here waits for
the disk, but for the first visitor of a day whose salt `Visitors.prepare` has not made yet.
Caches hold pages, referrers and agents, never addresses, and are bounded in entries and in the
length of what they hold.

A row is put together by position, from runs of columns that stand beside each other in
`event.Event`: as an Event it takes twice as long, by its 50 names ten times. Tests hold the runs to
the names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from mallard.event import Row
from mallard.ingest.campaign import NO_CAMPAIGN, Campaign, read_campaign
from mallard.ingest.geo import NOWHERE, Places
from mallard.ingest.page import Page, split_page
from mallard.ingest.payload import RawEvent
from mallard.ingest.referrer import DIRECT, Referrers, attribute, is_own
from mallard.ingest.sender import Sender
from mallard.ingest.user_agent import UserAgents
from mallard.ingest.visitor import Visitors

CACHED_PAGES_MAX = 4096
CACHED_VISITS_MAX = 4096  # of an URL, a referrer and a site; under 32 MiB when all are hostile
CACHED_LENGTH_MAX = 512  # longer URLs are taken apart anew each time: some 10 µs

_EVENT_TYPES = {"pageview": "page", "engagement": "engagement"}
# Place and agent, as they stand beside each other in Event.
_Who = tuple[
    str | None,
    str | None,
    str | None,
    str | None,
    str | None,
    str | None,
    str | None,
    str | None,
]


class Visit(NamedTuple):
    """What a page and its referrer say: a run of Event's columns, under their names."""

    url: str
    hostname: str
    pathname: str
    referrer: str | None
    referrer_source: str | None
    channel: str
    utm_source: str | None
    utm_medium: str | None
    utm_campaign: str | None
    utm_content: str | None
    utm_term: str | None
    click_id_kind: str | None


_make_visit = Visit._make


class Enricher:
    """Turns raw events into events, from caches where it has seen their parts before."""

    def __init__(
        self, agents: UserAgents, visitors: Visitors, places: Places, referrers: Referrers
    ) -> None:
        self._agents = agents
        self._visitors = visitors
        self._places = places
        self._referrers = referrers
        self._signals_count = visitors.privacy_signals != "ignore"
        self._page = lru_cache(CACHED_PAGES_MAX)(_read_page)
        self._seen_visit = lru_cache(CACHED_VISITS_MAX)(self._read_visit)

    def for_sender(
        self, sender: Sender, at_us: int, source: str, ingest_api: str
    ) -> Callable[[RawEvent, str], Row]:
        """Return what makes the row of a site (its id) out of a sender's raw event.

        at_us: when the events were received, in microseconds; it becomes their timestamp. source
        and ingest_api: which kind of client and which door, as `event.Event` has them. What is
        the same for all events of a request is found out once; so keep the function no longer
        than the request. The visitor is None where the address is unknown or a mail service's,
        and where a privacy signal asks for it.
        The function raises Overloaded if a visitor id needs a salt that the disk does not take.
        """
        user_agent, hints, language = sender.user_agent, sender.client_hints, sender.language
        describe, visitor_of = self._agents.describe, self._visitors.visitor_id
        agent = describe(user_agent, hints)
        place, visitor_address = NOWHERE, None
        if sender.address is not None and not agent.is_proxy:
            place = self._places.place(sender.address)
            if not (sender.privacy_signal and self._signals_count):
                visitor_address = sender.address
        usual_who: _Who = place + agent[:5]
        is_silent = agent.device_type is None
        visitors: dict[str, int | None] = {}
        who_by_width: dict[int | None, _Who] = {}  # of an agent that does not say what it runs on

        def enrich(raw: RawEvent, site_id: str) -> Row:
            # In two steps: name by name it takes twice as long.
            name, url, referrer, width, props, amount, currency = raw[1:8]
            interactive, hash_mode, depth, engaged_ms = raw[8:12]
            event_type = _EVENT_TYPES.get(name, "track")
            # An engagement report is the page's doing; it must not undo a bounce.
            interactive = interactive and event_type != "engagement"
            visitor_id = None
            if visitor_address is not None:
                if site_id not in visitors:
                    visitors[site_id] = visitor_of(site_id, visitor_address, user_agent, at_us)
                visitor_id = visitors[site_id]
            visit = self._visit(url, hash_mode, referrer, site_id)
            who = usual_who
            if is_silent:
                if width not in who_by_width:
                    who_by_width[width] = place + describe(user_agent, hints, width)[:5]
                who = who_by_width[width]
            # Runs of Event's columns, in its order. What these doors do not know is None.
            what = (site_id, at_us, name, event_type, source, ingest_api, interactive)
            ids = (None, None, None, None, None, visitor_id, None, None, None, None)
            texts = (width, language, props, None, None, amount, currency, None)
            read = (engaged_ms, depth, False, False)
            return what + ids + visit + who + texts + read

        return enrich

    def _visit(self, url: str, hash_mode: bool, referrer: str | None, site_id: str) -> Visit:
        length = len(url) if referrer is None else len(url) + len(referrer)
        read = self._seen_visit if length <= CACHED_LENGTH_MAX else self._read_visit
        return read(url, hash_mode, referrer, site_id)

    def _read_visit(self, url: str, hash_mode: bool, referrer: str | None, site_id: str) -> Visit:
        read_page = self._page if len(url) <= CACHED_LENGTH_MAX else _read_page
        page, campaign = read_page(url, hash_mode)
        referral = self._referrers.read(referrer)
        if is_own(referral.host, page.hostname, site_id):
            referral = DIRECT
        source, channel = referral.source, referral.channel
        if campaign is not NO_CAMPAIGN:
            source, channel = attribute(referral, campaign)
        # By position: by its names it takes eight times as long, and pages are many.
        return _make_visit((*page[:3], referral.url, source, channel, *campaign[1:]))


def _read_page(url: str, hash_mode: bool) -> tuple[Page, Campaign]:
    page = split_page(url, hash_mode)
    # Without its query, which the cache need not keep.
    return page._replace(query=""), read_campaign(page.query)
