"""May this event in? Yes, or no and why.

Invariants: what nobody did anything wrong in (a bot, a prefetch, ...) is a verdict: answered like
the rest, counted, not stored. What the sender has to put right is raised. Nothing here is
counted and no disk is touched.

With `site_ids` set, both the Origin and the event's own site have to be among them: an Origin alone
says nothing of a sender that is no browser. An Origin matches by its host, or by host and port
where the setting names the port; "www." makes no difference, subdomains are sites of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

from mallard.config import IngestConfig, PrivacyConfig
from mallard.errors import Forbidden
from mallard.ingest.bots import Bots
from mallard.ingest.payload import RawEvent
from mallard.ingest.rate_limit import RateLimit
from mallard.ingest.referrer import Referrers
from mallard.ingest.sender import Sender


class Reason(StrEnum):
    """Why an event is stored or dropped; the values are labels of `/metrics`."""

    ACCEPTED = "accepted"
    BOT = "bot"  # a crawler or another program that loads pages
    AUTOMATION = "automation"  # a browser that a program drives
    PREFETCH = "prefetch"  # nobody has looked at the page yet
    PRIVACY_SIGNAL = "privacy_signal"  # Sec-GPC or DNT, and the setting says to drop
    SPAM_REFERRER = "spam_referrer"


class Verdict(NamedTuple):
    """What becomes of an event, and a sentence that says why; stored if it is `ACCEPTED`."""

    reason: Reason
    detail: str


ACCEPTED = Verdict(Reason.ACCEPTED, "The event is stored.")
_BOT = Verdict(Reason.BOT, "The User-Agent is that of a known bot.")
_AUTOMATION = Verdict(Reason.AUTOMATION, "The User-Agent is that of a browser driven by a program.")
_PREFETCH = Verdict(Reason.PREFETCH, "The browser only prefetches the page; nobody looks at it.")
_PRIVACY_SIGNAL = Verdict(
    Reason.PRIVACY_SIGNAL, "The browser sends Sec-GPC or DNT, and privacy_signals is drop."
)
_SPAM_REFERRER = Verdict(Reason.SPAM_REFERRER, "The referrer is known for spam.")
_referrer_of = attrgetter("referrer")


class Admission:
    """Judges events by the settings and the kept lists."""

    def __init__(
        self,
        ingest: IngestConfig,
        privacy: PrivacyConfig,
        bots: Bots,
        referrers: Referrers,
        rate_limit: RateLimit,
    ) -> None:
        self._sites = frozenset(map(_without_www, ingest.site_ids))
        self._hosts = frozenset(site.lower() for site in self._sites)
        self._filter_bots = ingest.filter_bots
        self._drop_signals = privacy.privacy_signals == "drop"
        self._bots = bots
        self._referrers = referrers
        self._rate_limit = rate_limit

    def verdicts(self, raws: Sequence[RawEvent], sender: Sender) -> list[Verdict]:
        """Return what becomes of each of a sender's events; it is the same for all their sites.

        Raises Forbidden if `site_ids` is set and the Origin (only a browser sends one), or a site
        of an event, is not in it.
        """
        if self._sites:
            self._check_origin(sender.origin)
            for raw in raws:
                self._check_sites(raw.sites)
        verdict = self._judge_sender(sender)
        if verdict is not ACCEPTED:
            return [verdict] * len(raws)
        is_spam = self._referrers.is_spam_referrer
        # Of a batch few referrers are unlike: asked about once each, they take half as long.
        spam = set(filter(is_spam, set(map(_referrer_of, raws))))
        if not spam:
            return [ACCEPTED] * len(raws)
        return [_SPAM_REFERRER if raw.referrer in spam else ACCEPTED for raw in raws]

    def takes_all_of(self, sender: Sender) -> bool:
        """Tell whether a sender's events are stored but for what `admits` says of each.

        False where `verdicts` or `charge` has more to say.
        """
        if self._rate_limit.is_on or self._judge_sender(sender) is not ACCEPTED:
            return False
        return not self._sites or sender.origin is None or self._is_known_origin(sender.origin)

    def admits(self, raw: RawEvent) -> bool:
        """Tell whether an event of such a sender is stored."""
        if self._sites and not self._sites.issuperset(raw.sites):
            return False
        return not self._referrers.is_spam_referrer(raw.referrer)

    def _check_origin(self, origin: str | None) -> None:
        if origin is not None and not self._is_known_origin(origin):
            raise Forbidden(
                "The Origin of this request is not among the sites of this server.",
                field="Origin",
                rule="the host of one of the configured site_ids",
            )

    def _check_sites(self, sites: Iterable[str]) -> None:
        for site in sites:
            if site not in self._sites:
                raise Forbidden(
                    "The event is for a site that this server does not have.",
                    field="d",
                    rule="one of the configured site_ids",
                )

    def _judge_sender(self, sender: Sender) -> Verdict:
        if sender.prefetch:
            return _PREFETCH
        if self._filter_bots and (reason := self._bots.reason(sender.user_agent)) is not None:
            return _AUTOMATION if reason == Reason.AUTOMATION else _BOT
        if self._drop_signals and sender.privacy_signal:
            return _PRIVACY_SIGNAL
        return ACCEPTED

    def charge(self, raws: Sequence[RawEvent]) -> None:
        """Take admitted events out of their sites' rates. Raises RateLimited."""
        if self._rate_limit.is_on:
            self._rate_limit.take(_counts(raws))

    def wait_seconds(self, raws: Sequence[RawEvent]) -> float:
        """Return how long these events would have to wait for their sites' rates; 0 if not."""
        return self._rate_limit.wait_seconds(_counts(raws))

    def _is_known_origin(self, origin: str) -> bool:
        """Tell whether an Origin (RFC 6454: scheme://host or scheme://host:port) is ours."""
        scheme, separator, authority = origin.lower().partition("://")
        if not separator or not scheme:
            return False  # "null": a sandboxed frame, a file; nobody knows whose
        host_and_port = _without_www(authority)
        host, colon, port = host_and_port.rpartition(":")
        if colon and port.isdigit() and host in self._hosts:
            return True
        return host_and_port in self._hosts


def _counts(raws: Sequence[RawEvent]) -> Counter[str]:
    return Counter(site for raw in raws for site in raw.sites)


def _without_www(site: str) -> str:
    return site[4:] if site[:4].lower() == "www." else site
