"""Whether filters make a segment: one that can be used as a filter later."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from mallard.errors import InvalidInput
from mallard.query.plausible.filtering import Context, read_filters
from mallard.query.plausible.names import SEGMENT
from mallard.site import Goal, Segment

# What stands around other filters.
_AROUND = ("and", "or", "not", "has_done", "has_not_done")
# Filters do not ask what time it is, or where.
_ZONE, _NOW = ZoneInfo("UTC"), datetime(1970, 1, 1, tzinfo=UTC)


def check_segment(filters: list[Any], goals: Sequence[Goal]) -> None:
    """Return if filters mean something on a site with these goals; else raise InvalidInput.

    A segment of segments is refused: what it means would change with those, or end in itself.
    """
    if _names_segments(filters):
        raise InvalidInput(
            "A segment is not made of segments.",
            field="filters",
            rule="the filters of the other segment themselves",
        )
    segment = Segment(1, "", "", filters)
    context = Context(_ZONE, _NOW, goals=tuple(goals), segments=(segment,))
    read_filters([["is", SEGMENT, [segment.segment_id]]], context)


def _names_segments(filters: object) -> bool:
    """Tell whether a filter, or one of a list of them, is on a segment."""
    if not isinstance(filters, list) or not filters:
        return False
    if isinstance(filters[0], list):
        return any(map(_names_segments, filters))
    if filters[0] in _AROUND:
        return any(map(_names_segments, filters[1:2]))
    return filters[1:2] == [SEGMENT]
