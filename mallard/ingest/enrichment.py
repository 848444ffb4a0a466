"""A raw event and its sender become an Event: what is stored, and nothing that was only passed by.

Invariants: the address and the User-Agent go in and do not come out. Nothing here waits for
the disk, but for the first visitor of a day whose salt `Visitors.prepare` has not made yet.
Caches hold pages, referrers and agents, never addresses, and are bounded in entries and in the
length of what they hold.
"""

from __future__ import annotations

from functools import lru_cache

from mallard.event import Event
from mallard.ingest.campaign import NO_CAMPAIGN, Campaign, read_campaign
from mallard.ingest.geo import NOWHERE, Places
from mallard.ingest.page import Page, split_page
from mallard.ingest.payload import RawEvent
from mallard.ingest.referrer import DIRECT, Referrers, attribute, is_own
from mallard.ingest.sender import Sender
from mallard.ingest.user_agent import UserAgents
from mallard.ingest.visitor import Visitors

CACHED_PAGES_MAX = 4096
CACHED_LENGTH_MAX = 512  # longer URLs are taken apart anew each time: some 10 µs

_EVENT_TYPES = {"pageview": "page", "engagement": "engagement"}


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

    def enrich(
        self, raw: RawEvent, site_id: str, sender: Sender, at_us: int, source: str, ingest_api: str
    ) -> Event:
        """Return the event of one site.

        at_us: when it was received, in microseconds; it becomes the timestamp. source and
        ingest_api: which kind of client and which door, as `event.Event` has them. The visitor is
        None where the address is unknown or a mail service's, and where a privacy signal asks for
        it.
        Raises Overloaded if a visitor id needs a salt that the disk does not take.
        """
        read_page = self._page if len(raw.url) <= CACHED_LENGTH_MAX else _read_page
        page, campaign = read_page(raw.url, raw.hash_mode)
        referral = self._referrers.read(raw.referrer)
        if is_own(referral.host, page.hostname, site_id):
            referral = DIRECT
        if campaign is NO_CAMPAIGN:
            referrer_source, channel = referral.source, referral.channel
        else:
            referrer_source, channel = attribute(referral, campaign)
        agent = self._agents.describe(sender.user_agent, sender.client_hints, raw.screen_width)
        visitor_id, place = None, NOWHERE
        if sender.address is not None and not agent.is_proxy:
            place = self._places.place(sender.address)
            if not (sender.privacy_signal and self._signals_count):
                visitor_id = self._visitors.visitor_id(
                    site_id, sender.address, sender.user_agent, at_us
                )
        event_type = _EVENT_TYPES.get(raw.name, "track")
        return Event(
            site_id=site_id,
            timestamp=at_us,
            event_name=raw.name,
            event_type=event_type,
            source=source,
            ingest_api=ingest_api,
            # An engagement report is the page's doing; it must not undo a bounce.
            interactive=raw.interactive and event_type != "engagement",
            visitor_id=visitor_id,
            url=page.url,
            hostname=page.hostname,
            pathname=page.pathname,
            referrer=referral.url,
            referrer_source=referrer_source,
            channel=channel,
            utm_source=campaign.source,
            utm_medium=campaign.medium,
            utm_campaign=campaign.campaign,
            utm_content=campaign.content,
            utm_term=campaign.term,
            click_id_kind=campaign.click_id_kind,
            country_code=place.country_code,
            region=place.region,
            city=place.city,
            browser=agent.browser,
            browser_version=agent.browser_version,
            os=agent.os,
            os_version=agent.os_version,
            device_type=agent.device_type,
            screen_width=raw.screen_width,
            language=sender.language,
            props=raw.props,
            revenue_amount=raw.revenue_amount,
            revenue_currency=raw.revenue_currency,
            engaged_ms=raw.engaged_ms,
            scroll_depth=raw.scroll_depth,
        )


def _read_page(url: str, hash_mode: bool) -> tuple[Page, Campaign]:
    page = split_page(url, hash_mode)
    # Without its query, which the cache need not keep.
    return page._replace(query=""), read_campaign(page.query)
