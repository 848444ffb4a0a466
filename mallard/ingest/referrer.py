"""Where a visit came from: the referrer, the name of its source, and the channel.

Invariants: of a referrer scheme, host and path are stored, never its query string or fragment:
what people searched for, and session ids of other sites, are none of ours. A site does
not refer to itself. Hosts are matched on label boundaries. Nothing here raises.

Source of the channels: Google Analytics 4, "Default channel group", in Plausible's order, with AI
assistants beside them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from mallard.ingest.campaign import Campaign
from mallard.ingest.page import URL_LENGTH_MAX, clean, split, without_www
from mallard.ingest.sources import Kind, kind_of, source_of_host, source_of_tag

CACHED_REFERRERS_MAX = 4096
CACHED_LENGTH_MAX = 512  # longer referrers are read anew each time, so that the cache stays small

# Hosts that only ever send visits to be seen in reports, the most persistent of them. A kept list
# (matomo-org/referrer-spam-list, public domain) holds thousands; it comes in no kept Python
# package, so what else an operator meets goes into the setting ingest.blocked_referrers.
SPAM_HOSTS = frozenset(
    {
        "semalt.com",
        "darodar.com",
        "ilovevitaly.com",
        "priceg.com",
        "hulfingtonpost.com",
        "econom.co",
        "buttons-for-website.com",
        "buttons-for-your-website.com",
        "best-seo-offer.com",
        "best-seo-solution.com",
        "100dollars-seo.com",
        "success-seo.com",
        "videos-for-your-business.com",
        "get-free-traffic-now.com",
        "free-social-buttons.com",
        "free-share-buttons.com",
        "social-buttons.com",
        "event-tracking.com",
        "trafficmonetize.org",
        "traffic2money.com",
        "4webmasters.org",
        "webmonetizer.net",
        "floating-share-buttons.com",
        "howtostopreferralspam.eu",
        "googlsucks.com",
        "guardlink.org",
        "simple-share-buttons.com",
        "sharebutton.net",
        "savetubevideo.com",
        "kambasoft.com",
        "blackhatworth.com",
        "0n-line.tv",
        "rank-checker.online",
        "traffic-cash.xyz",
        "site-auditor.online",
        "share-buttons.xyz",
    }
)

_SCHEMES = frozenset({"", "http", "https", "android-app", "ios-app"})
_LOOPBACK = re.compile(r"(?:.*\.)?localhost|127(?:\.\d{1,3}){3}|0\.0\.0\.0|\[::1\]")

_PAID = re.compile(r"(?:.*cp.*|ppc|retargeting|paid.*)", re.S)
_SHOPPING = re.compile(r"(?:.*(?:(?:[^a-df-z]|^)shop|shopping).*)", re.S)
_DISPLAY = frozenset({"display", "banner", "expandable", "interstitial", "cpm"})
_SOCIAL = frozenset(
    {"social", "social-network", "social-media", "sm", "social network", "social media"}
)
_EMAIL = frozenset({"email", "e-mail", "e_mail", "e mail", "newsletter"})
_PAID_BY_KIND = {
    Kind.SHOPPING: "Paid Shopping",
    Kind.SEARCH: "Paid Search",
    Kind.SOCIAL: "Paid Social",
    Kind.VIDEO: "Paid Video",
}
_BY_MEDIUM = {
    **dict.fromkeys(("affiliate", "affiliates"), "Affiliates"),
    **dict.fromkeys(("referral", "app", "link"), "Referral"),
    "audio": "Audio",
    "sms": "SMS",
}
_GOOGLE_CLICK_IDS = frozenset({"gclid", "gbraid", "wbraid"})


class Referral(NamedTuple):
    """One referrer; all None for none, for loopback and for what is no web page or app.

    url: what is stored. host: lower case, without "www."; an app's is its package. source: the
    name of a known one, else the host. channel: of a visit that has no campaign.
    """

    url: str | None = None
    host: str | None = None
    source: str | None = None
    channel: str = "Direct"


DIRECT = Referral()


class Referrers:
    """Reads referrers; a seen one costs a dictionary lookup."""

    def __init__(self, blocked: Sequence[str] = ()) -> None:
        """blocked: hosts whose visits are spam, with everything below them."""
        hosts = (without_www(host.strip().lower().strip(".")) for host in blocked)
        self._spam = SPAM_HOSTS | {host for host in hosts if host}
        self._cached = lru_cache(CACHED_REFERRERS_MAX)(_read)
        self._cached_spam = lru_cache(CACHED_REFERRERS_MAX)(self._is_from_spam)

    def read(self, referrer: str | None) -> Referral:
        """Return what a referrer says."""
        if not referrer:
            return DIRECT
        if len(referrer) > CACHED_LENGTH_MAX:
            return _read(referrer)
        return self._cached(referrer)

    def is_spam(self, host: str | None) -> bool:
        """Tell whether a host, or one above it, is blocked."""
        while host:
            if host in self._spam:
                return True
            host = host.partition(".")[2]
        return False

    def is_spam_referrer(self, referrer: str | None) -> bool:
        """Tell whether a referrer as sent comes from a blocked host."""
        if not referrer:
            return False
        if len(referrer) > CACHED_LENGTH_MAX:
            return self._is_from_spam(referrer)
        return self._cached_spam(referrer)

    def _is_from_spam(self, referrer: str) -> bool:
        return self.is_spam(self.read(referrer).host)


@lru_cache(CACHED_REFERRERS_MAX)  # of hosts: no longer than 253 characters each
def is_own(host: str | None, hostname: str, site_id: str) -> bool:
    """Tell whether a referrer's host is the page's own, the site, or a part of the site."""
    if host is None:
        return False
    site = site_id.lower()
    return host in (site, hostname) or ("." in site and host.endswith(f".{site}"))


def attribute(referral: Referral, campaign: Campaign) -> tuple[str | None, str]:
    """Return a visit's source and channel; a campaign's word outranks the referrer's."""
    source = source_of_tag(campaign.tag) if campaign.tag else referral.source
    return source, channel(source, campaign)


def channel(source: str | None, campaign: Campaign) -> str:
    """Return the channel of a visit.

    source: as `attribute` gives it. A click id of Google's on Google, or of Microsoft's on Bing,
    makes a paid search of a visit whose link carries no medium.
    """
    kind = kind_of(source)
    name = (campaign.campaign or "").lower()
    medium = (campaign.medium or "").lower()
    if "cross-network" in name:
        return "Cross-network"
    if _PAID.fullmatch(medium) or _is_paid_click(source, campaign.click_id_kind):
        return _paid(kind, medium, name)
    if medium in _DISPLAY:
        return "Display"
    return _organic(kind, medium, name) or _messaging(source, kind, medium)


def _is_paid_click(source: str | None, click_id_kind: str | None) -> bool:
    if source == "Google":
        return click_id_kind in _GOOGLE_CLICK_IDS
    return source == "Bing" and click_id_kind == "msclkid"


def _paid(kind: Kind | None, medium: str, name: str) -> str:
    if kind is not Kind.SHOPPING and _SHOPPING.fullmatch(name):
        return "Paid Shopping"
    if kind in _PAID_BY_KIND:
        return _PAID_BY_KIND[kind]
    return "Display" if medium in _DISPLAY else "Paid Other"


def _organic(kind: Kind | None, medium: str, name: str) -> str | None:
    if kind is Kind.SHOPPING or _SHOPPING.fullmatch(name):
        return "Organic Shopping"
    if kind is Kind.SOCIAL or medium in _SOCIAL:
        return "Organic Social"
    if kind is Kind.VIDEO or "video" in medium:
        return "Organic Video"
    if kind is Kind.SEARCH or medium == "organic":
        return "Organic Search"
    if kind is Kind.AI:
        return "AI Assistants"
    return None


def _messaging(source: str | None, kind: Kind | None, medium: str) -> str:
    if kind is Kind.EMAIL or medium in _EMAIL:
        return "Email"
    if medium in _BY_MEDIUM:
        return _BY_MEDIUM[medium]
    if source and source.lower() == "sms":
        return "SMS"
    if medium.endswith("push") or "mobile" in medium or "notification" in medium:
        return "Mobile Push"
    return "Referral" if source else "Direct"


def _read(referrer: str) -> Referral:
    parts = split(referrer)
    host = without_www(parts.host) if parts.scheme in _SCHEMES else ""
    if not host or _LOOPBACK.fullmatch(host):
        return DIRECT
    source = source_of_host(host) or host
    path = clean(parts.path) or "/"
    url = f"{parts.scheme or 'https'}://{parts.host}{path}"[:URL_LENGTH_MAX]
    return Referral(url, host, source, channel(source, Campaign()))
