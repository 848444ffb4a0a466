"""What today's lists say of events that are stored already, of which only the columns are left.

Invariant: asked again about its own answer, it gives the same one.
"""

from __future__ import annotations

from mallard.ingest.bots import Bots
from mallard.ingest.campaign import Campaign
from mallard.ingest.referrer import Referrers, attribute

# What a visit's source and channel are made of, in the order that `Hindsight.attribute` takes.
ATTRIBUTED_BY = (
    "referrer",
    "referrer_source",
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "click_id_kind",
)


class Hindsight:
    """Judges stored values as the pipeline would judge the same ones now."""

    def __init__(self, bots: Bots, referrers: Referrers) -> None:
        self._bots = bots
        self._referrers = referrers

    def attribute(
        self,
        referrer: str | None,
        source: str | None,
        utm_source: str | None,
        utm_medium: str | None,
        utm_campaign: str | None,
        click_id_kind: str | None,
    ) -> tuple[str | None, str]:
        """Return the source and the channel of a visit; source: the one that is stored.

        The tags `source` and `ref` of a link are not stored. A stored source that neither
        utm_source nor the referrer explains is therefore taken for what such a tag said, and kept.
        """
        referral = self._referrers.read(referrer)
        tag = utm_source
        if tag is None and source not in {None, referral.host, referral.source}:
            tag = source
        campaign = Campaign(tag, utm_source, utm_medium, utm_campaign, click_id_kind=click_id_kind)
        return attribute(referral, campaign)

    def is_spam(self, referrer: str) -> bool:
        """Whether a stored referrer is of a blocked host."""
        return self._referrers.is_spam_referrer(referrer)

    def is_bot(self, browser: str) -> bool:
        """Whether the name of a browser, all that is stored of a User-Agent, is a bot's."""
        return self._bots.reason(browser) is not None
