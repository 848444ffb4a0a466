"""What a page's query string says of the campaign that brought a visit.

Invariant: of a click id only the kind is kept. Its value names one person's one click, and the
ad network that made it can tell whose.
"""

from __future__ import annotations

from typing import NamedTuple

from mallard.ingest.page import clean, decode

VALUE_LENGTH_MAX = 256  # characters; a campaign's name, not a place to keep data

# Where several are present the first of this list stands. fbclid comes last: Facebook hangs it
# on every link that leaves it, advertisement or not.
CLICK_IDS = (
    "gclid",  # Google Ads
    "gbraid",  # Google Ads, from an iOS app
    "wbraid",  # Google Ads, from the web to an iOS app
    "dclid",  # Google Display & Video 360
    "msclkid",  # Microsoft Advertising
    "ttclid",  # TikTok
    "twclid",  # X
    "li_fat_id",  # LinkedIn
    "rdt_cid",  # Reddit
    "epik",  # Pinterest
    "sccid",  # Snapchat
    "yclid",  # Yandex Direct
    "fbclid",  # Facebook, Instagram
)

_ORDER = {kind: place for place, kind in enumerate(CLICK_IDS)}
_TAGS = frozenset(
    {
        "utm_source",
        "utm_medium",
        "utm_campaign",
        "utm_content",
        "utm_term",
        "source",
        "ref",
    }
)


class Campaign(NamedTuple):
    """The tags of one visit; None where a tag is absent or empty.

    tag: the first that is there of utm_source, source and ref: where the visit says it came from.
    source: utm_source alone, as it was sent. click_id_kind: a name of `CLICK_IDS`.
    """

    tag: str | None = None
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    content: str | None = None
    term: str | None = None
    click_id_kind: str | None = None


NO_CAMPAIGN = Campaign()


def read_campaign(query: str) -> Campaign:
    """Return the campaign of a raw query string; keys in any case, the first value of each wins.

    Values are decoded ("+" is a space), trimmed and cut to `VALUE_LENGTH_MAX`.
    """
    if "=" not in query:
        return NO_CAMPAIGN
    found: dict[str, str] = {}
    click_id_kind: str | None = None
    for pair in query.split("&"):
        name, _, raw = pair.partition("=")
        key = name.lower()
        if not raw:
            continue
        if key in _TAGS:
            if key not in found and (value := _value(raw)):
                found[key] = value
        elif key in _ORDER and (click_id_kind is None or _ORDER[key] < _ORDER[click_id_kind]):
            click_id_kind = key
    if not found and click_id_kind is None:
        return NO_CAMPAIGN
    return Campaign(
        tag=found.get("utm_source") or found.get("source") or found.get("ref"),
        source=found.get("utm_source"),
        medium=found.get("utm_medium"),
        campaign=found.get("utm_campaign"),
        content=found.get("utm_content"),
        term=found.get("utm_term"),
        click_id_kind=click_id_kind,
    )


def _value(raw: str) -> str:
    # A character is at most four bytes, each written in three characters.
    decoded = decode(raw[: 12 * VALUE_LENGTH_MAX].replace("+", " "))
    return clean(decoded.strip())[:VALUE_LENGTH_MAX].rstrip()
