"""What is shown of sites, keys, goals and segments, in JSON: the same at every door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mallard.site import Goal, Segment, Site

if TYPE_CHECKING:
    from mallard.accounts.keys import ApiKey

Shape = dict[str, Any]


def site(site: Site) -> Shape:
    """Return a site; `created_at` is null where nobody has added it."""
    return {
        "site_id": site.site_id,
        "kind": site.kind.value,
        "timezone": site.timezone,
        "currency": site.currency,
        "created_at": site.created_at and site.created_at.isoformat(),
    }


def key(key: ApiKey) -> Shape:
    """Return a key without its token; `sites` is "*" where it is for every site."""
    return {
        "key_id": key.key_id,
        "name": key.name,
        "scopes": [scope.value for scope in key.scopes],
        "sites": "*" if key.sites is None else list(key.sites),
        "created_at": key.created_at.isoformat(),
        "last_used_on": key.last_used_on and key.last_used_on.isoformat(),
        "revoked_at": key.revoked_at and key.revoked_at.isoformat(),
    }


def goal(goal: Goal) -> Shape:
    """Return a goal of a site."""
    return {
        "goal_id": goal.goal_id,
        "display_name": goal.display_name,
        "page": goal.page,
        "event_name": goal.event_name,
        "props": dict(goal.props),
        "currency": goal.currency,
    }


def segment(segment: Segment) -> Shape:
    """Return a segment of a site."""
    return {
        "segment_id": segment.segment_id,
        "name": segment.name,
        "filters": segment.filters,
    }
