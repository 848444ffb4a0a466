"""All that is known of sites and keys, in memory, as it was at one moment: never edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from mallard.accounts.access import Principal, digest
from mallard.errors import NotFound, Unauthenticated
from mallard.site import Goal, Segment, Site


@dataclass(frozen=True, slots=True)
class Directory:
    """The control tables at one version. Goals and segments are by site, in their own order.

    keys: who holds the keys that are not revoked, by the SHA-256 of the token. has_keys: whether
    there ever was one; a server whose keys are all revoked does not become open again.
    """

    version: int = -1
    sites: Mapping[str, Site] = field(default_factory=dict)
    goals: Mapping[str, tuple[Goal, ...]] = field(default_factory=dict)
    segments: Mapping[str, tuple[Segment, ...]] = field(default_factory=dict)
    keys: Mapping[bytes, Principal] = field(default_factory=dict)
    has_keys: bool = False

    def site(self, site_id: str) -> Site:
        """Return a site; of one that nobody has added, the defaults."""
        return self.sites.get(site_id) or Site(site_id)

    @property
    def zones(self) -> dict[str, ZoneInfo]:
        """The time zones of sites; of one that is not there it is UTC."""
        return {
            site_id: ZoneInfo(site.timezone)
            for site_id, site in self.sites.items()
            if site.timezone != "UTC"
        }

    def goals_of(self, site_id: str) -> tuple[Goal, ...]:
        """Return a site's goals by display name."""
        return self.goals.get(site_id, ())

    def segments_of(self, site_id: str) -> tuple[Segment, ...]:
        """Return a site's segments by name."""
        return self.segments.get(site_id, ())

    def segment(self, site_id: str, segment_id: int) -> Segment:
        """Return one segment of a site. Raises NotFound."""
        for segment in self.segments_of(site_id):
            if segment.segment_id == segment_id:
                return segment
        raise NotFound("The site has no such segment.")

    def authenticate(self, token: str) -> Principal:
        """Return who holds a token. Raises Unauthenticated for an unknown or revoked one."""
        kept = digest(token)
        principal = None if kept is None else self.keys.get(kept)
        if principal is None:
            raise Unauthenticated("The API key is unknown or revoked.")
        return principal
