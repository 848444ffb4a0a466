"""A site, what events belong to, and what people have said of it: zone, money, goals, segments.

Any site exists as soon as events name it; one that nobody has said anything of has the defaults.
`accounts/` keeps what was said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from mallard.errors import InvalidInput

SITE_LENGTH_MAX = 256
SITE_RULE = f"letters, digits and . - _ : only, at most {SITE_LENGTH_MAX} characters for each site"
_SITE = re.compile(r"[A-Za-z0-9._:\-]+")


class SiteKind(StrEnum):
    """What a site stands for: a web site, an event log's instance, an environment."""

    WEB = "web"
    LOG = "log"
    ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Site:
    """What is known of one site.

    timezone: a name of the IANA database, by which its days are cut. currency: ISO 4217, in which
    money is shown first; None: none in particular. created_at: aware, UTC; None where nobody has
    added it, and all else is the default.
    """

    site_id: str
    kind: SiteKind = SiteKind.WEB
    timezone: str = "UTC"
    currency: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """What counts as a conversion: views of pages or events of a name; one of the two is None.

    page: a pathname in which `*` stands for anything within one segment and `**` for anything.
    props: (name, value) pairs, each of which the event must have. currency: ISO 4217, of a goal
    of an event that brings money, which is reported in that currency; else None.
    """

    goal_id: int
    site_id: str
    display_name: str
    page: str | None = None
    event_name: str | None = None
    props: tuple[tuple[str, str], ...] = ()
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Filters that were given a name, as JSON in the form of Plausible's Stats API v2."""

    segment_id: int
    site_id: str
    name: str
    filters: list[Any]


def read_site_id(text: str) -> str:
    """Return the name of a site without a leading "www.".

    Raises InvalidInput whose detail goes on from the field's name. "." and ".." and what has ".."
    in it are refused: a site's name is part of a folder's name.
    """
    site = text[4:] if text[:4].lower() == "www." else text
    if not text or not site:
        raise InvalidInput("is empty, or names an empty site", rule=SITE_RULE)
    if len(text) > SITE_LENGTH_MAX:
        raise InvalidInput("is too long", rule=SITE_RULE)
    if not _SITE.fullmatch(site):
        raise InvalidInput("has characters that no site has", rule=SITE_RULE)
    if ".." in site or site == ".":
        raise InvalidInput("is made of dots", rule='a name other than ".", without ".." in it')
    return site
