"""A raw event and its sender become an Event: what is stored, and nothing that was only passed by.

Invariants: the address and the User-Agent go in and do not come out. Nothing here waits for
the disk, but for the first visitor of a day whose salt `Visitors.prepare` has not made yet.
Caches hold pages, referrers and agents, never addresses, and are bounded in entries and in the
length of what they hold.

A line is put together from pieces of it that are texts already, where the same was there before:
made whole for each event, of 36 values, it takes three times as long. Tests hold the pieces to the
names of `event.LINE_COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import lru_cache, partial
from typing import TypeVar

import orjson
from msgspec import UNSET

from mallard.event import Line
from mallard.ingest.batch import Sent, more_of
from mallard.ingest.campaign import NO_CAMPAIGN, Campaign, read_campaign
from mallard.ingest.geo import Places
from mallard.ingest.page import split_page
from mallard.ingest.payload import RawEvent
from mallard.ingest.referrer import DIRECT, Referral, Referrers, attribute, is_own
from mallard.ingest.sender import Sender
from mallard.ingest.user_agent import UserAgents
from mallard.ingest.visitor import Visitors

# Of pages, of those in hash mode, of referrers, of both with a campaign: 16 MiB each if all are
# hostile.
CACHED_MAX = 4096
CACHED_LENGTH_MAX = 512  # longer URLs are taken apart anew each time: some 10 µs
NAMES_CACHED_MAX = 1024  # of events: 1 MiB if all are hostile

T = TypeVar("T")

_EVENT_TYPES = {"pageview": "page", "engagement": "engagement"}


# Plain tuples: those with names take five times as long to come apart.
# What an URL says of a page: the columns from `url` to `pathname`, the host, the campaign, and its
# columns.
Visited = tuple[bytes, str, Campaign, bytes]
# What a referrer says: the columns from `referrer` to `channel` if there is no campaign, the host,
# and all of it.
Came = tuple[bytes, str | None, Referral]
# What is known of the parts of one request's lines: the columns from `site_id` to `visitor_id`, by
# site; those from `event_name` to `ingest_api`, by whether it is interactive and by name; those
# from `country_code` to `language`, by the width of the screen.
Known = tuple[dict[str, bytes], dict[bool, dict[str, bytes]], dict[int | None, bytes]]


class _Kept(dict[str, T]):
    """What a function made of texts, so that one seen again costs a dictionary lookup.

    All are forgotten once there are `CACHED_MAX`: to know the oldest costs more than it saves.
    """

    def __init__(self, make: Callable[[str], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, text: str) -> T:
        if len(self) >= CACHED_MAX:
            self.clear()
        made = self[text] = self._make(text)
        return made


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
        self._pages = _Kept(_read_page)
        self._routes = _Kept(partial(_read_page, hash_mode=True))  # of pages in hash mode
        self._cames = _Kept(self._read_referrer)
        self._attributed = lru_cache(CACHED_MAX)(_attributed)

    def lines(
        self, raws: Iterable[RawEvent], sender: Sender, at_us: int, source: str, ingest_api: str
    ) -> list[Line]:
        """Return what is stored of a sender's raw events: a line for each of their sites.

        at_us: when the events were received, in microseconds; it becomes their timestamp. source
        and ingest_api: which kind of client and which door, as `event.Event` has them. The visitor
        is None where the address is unknown or a mail service's, and where a privacy signal asks
        for it. Raises Overloaded if a visitor id needs a salt that the disk does not take.
        """
        lines: list[Line] = []
        add = self._adder(
            lines, ({}, {True: {}, False: {}}, {}), sender, (at_us, source, ingest_api)
        )
        for raw in raws:
            add(raw)
        return lines

    def lines_of_batch(
        self,
        events: Iterable[Sent],
        read: Callable[[Sent], RawEvent | None],
        sender: Sender,
        at_us: int,
        source: str,
        ingest_api: str,
    ) -> list[Line] | None:
        """Do what `lines` does for events as they were sent; None if read gave None for one.

        read: gives the raw event of what is admitted, None for any other, and raises what is to be
        raised. It is not asked about an event whose parts were seen before. Raises InvalidInput
        for some of what is to be refused, and for some that is not.

        What is kept is kept of admitted events, under texts that were checked: what is found under
        a text as it was sent needs no second look. To read and admit such an event, and to put its
        line together from what was read, takes twice as long.
        """
        lines: list[Line] = []
        known: Known = ({}, {True: {}, False: {}}, {})
        add = self._adder(lines, known, sender, (at_us, source, ingest_api))
        sites, names, whos = known
        usual, routes, pages, cames = names[True], self._routes, self._pages, self._cames
        attributed = self._attributed
        join = b",".join
        for sent in events:
            site_id, referrer, width = sent.d, sent.r, sent.w
            called, kept = usual, pages
            # Of what only few events say, nothing; to ask in a loop takes five times as long.
            plain = (
                sent.p is sent.ra is sent.rc is sent.revenue is sent.i is sent.h is sent.v is UNSET
            )
            engaged_ms, depth = sent.e, sent.sd
            if plain and engaged_ms is depth is UNSET:
                what = _NOTHING_MORE
            elif plain and type(engaged_ms) is type(depth) is int:
                what = _ENGAGED % (engaged_ms, depth)
            else:
                more = more_of(sent)
                props, amount, currency, interactive, hash_mode, depth, engaged_ms, _ = more
                called, kept = names[interactive], routes if hash_mode else pages
                what = _what(props, amount, currency, depth, engaged_ms)
            site, event, page = sites.get(site_id), called.get(sent.n), kept.get(sent.u)
            came = cames.get(referrer) if referrer else _DIRECT
            who = whos.get(None if width is UNSET else width)
            if site is None or event is None or page is None or came is None or who is None:
                raw = read(sent)
                if raw is None:
                    return None
                add(raw)
                continue
            page_columns, hostname, campaign, tags = page
            columns, host, referral = came
            if host is not None and is_own(host, hostname, site_id):
                columns, _, referral = _DIRECT
            if campaign is not NO_CAMPAIGN:
                columns = attributed(referral, campaign)
            lines.append(join((site, event, page_columns, columns, tags, who, what)))
        return lines

    def _adder(
        self,
        lines: list[Line],
        known: Known,
        sender: Sender,
        received: tuple[int, str, str],
    ) -> Callable[[RawEvent], None]:
        """Return what adds an event to the lines of a request, and to what is known of its parts.

        received: when (µs), from which kind of client and by which door.
        """
        at_us, source, ingest_api = received
        known_sites, names, whos = known
        describe, user_agent, hints = self._agents.describe, sender.user_agent, sender.client_hints
        agent = describe(user_agent, hints)
        address = None if agent.is_proxy else sender.address
        place = self._places.place(address)
        if sender.privacy_signal and self._signals_count:
            address = None
        visitor_of = self._visitors.visitor_id

        def add(raw: RawEvent) -> None:
            # Cut first: name by name, or uncut, it takes twice as long.
            sites, name, url, referrer, width, props, amount, currency = raw[:8]
            interactive, hash_mode, depth, engaged_ms = raw[8:12]
            who = whos.get(width)
            if who is None:  # an agent that does not say what it runs on is told by its screen
                told = agent.device_type is not None
                runs_on = (agent if told else describe(user_agent, hints, width))[:5]
                who = whos[width] = _piece((*place, *runs_on, width, sender.language))
            what = _NOTHING_MORE
            is_plain = props is None and amount is None and depth is None and engaged_ms is None
            if not is_plain:
                what = _what(props, amount, currency, depth, engaged_ms)
            is_short = len(url) + len(referrer or "") <= CACHED_LENGTH_MAX
            if is_short:
                page = (self._routes if hash_mode else self._pages)[url]
                came = _DIRECT if referrer is None else self._cames[referrer]
            else:
                page = _read_page(url, hash_mode)
                came = _DIRECT if referrer is None else self._read_referrer(referrer)
            page_columns, hostname, campaign, tags = page
            called = names[interactive]
            event = called.get(name)
            if event is None:
                event = called[name] = _event_columns(name, interactive, source, ingest_api)
            for site_id in sites:
                site = known_sites.get(site_id)
                if site is None:
                    visitor_id = None
                    if address is not None:
                        visitor_id = visitor_of(site_id, address, user_agent, at_us)
                    site = known_sites[site_id] = _piece((site_id, at_us, visitor_id))
                columns, host, referral = came
                if host is not None and is_own(host, hostname, site_id):
                    columns, _, referral = _DIRECT
                if campaign is not NO_CAMPAIGN:
                    columns = (self._attributed if is_short else _attributed)(referral, campaign)
                lines.append(b",".join((site, event, page_columns, columns, tags, who, what)))

        return add

    def _read_referrer(self, referrer: str) -> Came:
        referral = self._referrers.read(referrer)
        return _piece((referral.url, referral.source, referral.channel)), referral.host, referral


def _piece(values: tuple[object, ...]) -> bytes:
    """Return neighbouring columns of a line."""
    return orjson.dumps(values, default=str)[1:-1]


@lru_cache(NAMES_CACHED_MAX)
def _event_columns(name: str, interactive: bool, source: str, ingest_api: str) -> bytes:
    """Return the columns from `event_name` to `ingest_api`."""
    event_type = _EVENT_TYPES.get(name, "track")
    # An engagement report is the page's doing; it must not undo a bounce.
    interactive = interactive and event_type != "engagement"
    return _piece((name, event_type, interactive, source, ingest_api))


# The columns from `props` on of an event that says nothing of them.
_NOTHING_MORE = _piece((None,) * 6)
# And of one that says just for how long somebody looked (ms), and how far down (percent).
_ENGAGED = b"null,null,null,%d,%d,null"


def _what(
    props: str | None,
    amount: Decimal | None,
    currency: str | None,
    depth: int | None,
    engaged_ms: int | None,
) -> bytes:
    """Return the columns from `props` on."""
    return _piece((props, amount, currency, engaged_ms, depth, None))


_DIRECT: Came = (_piece((DIRECT.url, DIRECT.source, DIRECT.channel)), None, DIRECT)


def _attributed(referral: Referral, campaign: Campaign) -> bytes:
    return _piece((referral.url, *attribute(referral, campaign)))


def _read_page(url: str, hash_mode: bool = False) -> Visited:
    page = split_page(url, hash_mode)
    campaign = read_campaign(page.query)
    return _piece(page[:3]), page.hostname, campaign, _piece(campaign[1:])
