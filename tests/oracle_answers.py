"""Sums by dimensions, filter and slices of time, in plain Python, over `oracle`'s visits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import orjson

from mallard.event import Event
from mallard.query.dimensions import By, Property
from mallard.query.filters import AllOf, AnyOf, Condition, Filter, HasDone, Not, Operator
from mallard.query.period import Slice
from tests.oracle import Stored, Visit, day_of, visits
from tests.oracle_rollup import OF_ENDS, OF_EVENTS, OF_FIRST, Value

Group = tuple[int, tuple[Value, ...], str | None]  # bucket, values, currency


def sums(
    stored: Sequence[Stored],
    site_id: str,
    by: Sequence[By],
    keep: Filter | None,
    pieces: Sequence[Slice],
) -> dict[Group, dict[str, Any]]:
    """Return the sums of every bucket and group, those of money under their currency."""
    of_site = [one for one in stored if one.event.site_id == site_id]
    visit_of = {one.position: visit for visit in visits(of_site) for one in visit.events}
    found: dict[Group, dict[str, Any]] = defaultdict(lambda: defaultdict(int))
    for piece in pieces:
        groups: dict[tuple[Value, ...], list[Stored]] = defaultdict(list)
        for one in of_site:
            visit = visit_of.get(one.position)
            inside = piece.start_us <= one.event.timestamp < piece.end_us
            if inside and (keep is None or fits(keep, one.event, visit)):
                groups[tuple(value_of(each, one.event, visit) for each in by)].append(one)
        for values, group in groups.items():
            _add(found[piece.bucket, values, None], _numbers(by, values, group, visit_of))
            for one in group:
                money = one.event.revenue_amount, one.event.revenue_currency
                if money[0] is not None and money[1] is not None:
                    _add(
                        found[piece.bucket, values, money[1]],
                        {"revenue_amount": money[0], "revenue_events": 1},
                    )
    return {group: dict(numbers) for group, numbers in found.items()}


def _add(total: dict[str, Any], more: dict[str, Any]) -> None:
    for name, number in more.items():
        total[name] += number


def value_of(by: By, event: Event, visit: Visit | None) -> Value:
    """Return the value of a dimension that an event of this visit has."""
    if isinstance(by, Property):
        value = orjson.loads(event.props or "{}").get(by.key)
        return None if value is None else str(value)
    name = str(by.value)
    if name in OF_EVENTS:
        return OF_EVENTS[name](event)
    if name in OF_ENDS:
        return OF_ENDS[name](visit) if visit else None
    return OF_FIRST[name](visit.events[0].event if visit else event)


def fits(keep: Filter, event: Event, visit: Visit | None) -> bool:
    """Tell whether a filter holds for an event of this visit, or of none."""
    if isinstance(keep, Condition):
        return _compares(keep, value_of(keep.by, event, visit))
    if isinstance(keep, HasDone):
        return visit is not None and any(fits(keep.part, one.event, visit) for one in visit.events)
    if isinstance(keep, Not):
        return not fits(keep.part, event, visit)
    if isinstance(keep, AllOf):
        return all(fits(part, event, visit) for part in keep.parts)
    assert isinstance(keep, AnyOf)
    return any(fits(part, event, visit) for part in keep.parts)


def _compares(condition: Condition, value: Value) -> bool:
    assert not isinstance(value, tuple)
    if value is None:
        return None in condition.values
    wanted = [each for each in condition.values if each is not None]
    if condition.operator is Operator.MATCHES:
        return any(re.search(each, value) for each in wanted)
    if not condition.case_sensitive:
        value, wanted = value.lower(), [each.lower() for each in wanted]
    if condition.operator is Operator.IS:
        return value in wanted
    return any(each in value for each in wanted)


def _numbers(
    by: Sequence[By],
    values: tuple[Value, ...],
    group: Sequence[Stored],
    visit_of: dict[int, Visit],
) -> dict[str, Any]:
    pages = [one for one in group if one.event.event_type == "page"]
    counted = [one for one in group if one.event.event_type != "engagement"]
    met = {visit_of[one.position] for one in counted if one.position in visit_of}
    engaged: dict[object, int] = defaultdict(int)
    depths: dict[object, int] = defaultdict(int)
    for one in group:
        if one.position in visit_of:
            page = (visit_of[one.position], one.event.pathname)
            if one.event.engaged_ms is not None:
                engaged[page] += one.event.engaged_ms
            if one.event.scroll_depth is not None:
                depths[page] = max(depths[page], one.event.scroll_depth)
    numbers = {
        "visitors": len({(day_of(visit.events[0].event), visit.visitor_id) for visit in met}),
        "visits": len(met),
        "pageviews": len(pages),
        "events": len(counted),
        "anonymous_pageviews": sum(one.event.visitor_id is None for one in pages),
        "bounces": sum(visit.bounce for visit in met),
        "duration_ms": sum(visit.duration_ms for visit in met),
        "visit_pageviews": sum(len(visit.pages) for visit in met),
        "engaged_ms": sum(engaged.values()),
        "engaged_pages": len(engaged),
        "scroll_sum": sum(depths.values()),
        "scroll_pages": len(depths),
    }
    ends = {"event:page": "pathname", "event:hostname": "hostname"}
    told = {each.value: value for each, value in zip(by, values, strict=True)}
    of_events = {name: value for name, value in told.items() if name.startswith("event:")}
    if of_events.keys() <= ends.keys():
        columns = {ends[name]: value for name, value in of_events.items()}
        entered = [v for v in met if v.pages and _is_at(v.pages[0], columns)]
        left = [v for v in met if v.pages and _is_at(v.pages[-1], columns)]
        numbers["entries"] = len(entered)
        numbers["entry_bounces"] = sum(visit.bounce for visit in entered)
        numbers["exits"] = len(left)
    return numbers


def _is_at(event: Event, columns: dict[str, Value]) -> bool:
    return all(getattr(event, column) == value for column, value in columns.items())
