"""The sums of every dimension again, in plain Python, over the visits of `oracle`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, NamedTuple

from mallard.event import Event
from mallard.query.period import Slice
from tests.oracle import Stored, Visit, day_of, instant, revenue_of, visits

Value = str | tuple[str | None, ...] | None
Numbers = dict[str, Any]


class Key(NamedTuple):
    """What a row of sums is about; currency: None for all that is not money."""

    site_id: str
    date: date
    dimension: str
    value: Value
    currency: str | None


def _screen(event: Event) -> str | None:
    width = event.screen_width
    if width is None:
        return None
    classes = {"Mobile": 576, "Tablet": 992, "Laptop": 1440}
    return next((name for name, below in classes.items() if width < below), "Desktop")


# Not of an event alone: the start of the slice of its day that it is in.
SLICE = "time:slice"
# The value of an event itself.
OF_EVENTS: dict[str, Callable[[Event], Value]] = {
    "event:page": lambda event: event.pathname,
    "event:hostname": lambda event: event.hostname,
    "event:name": lambda event: event.event_name,
    "time:hour": lambda event: f"{instant(event.timestamp).hour:02}",
}
# The value that a visit has from its first event, and an event without visit from itself.
OF_FIRST: dict[str, Callable[[Event], Value]] = {
    "total": lambda event: "",
    "visit:source": lambda event: event.referrer_source,
    "visit:channel": lambda event: event.channel,
    "visit:referrer": lambda event: event.referrer,
    "visit:utm_source": lambda event: event.utm_source,
    "visit:utm_medium": lambda event: event.utm_medium,
    "visit:utm_campaign": lambda event: event.utm_campaign,
    "visit:utm_content": lambda event: event.utm_content,
    "visit:utm_term": lambda event: event.utm_term,
    "visit:device": lambda event: event.device_type,
    "visit:browser": lambda event: event.browser,
    "visit:browser_version": lambda event: (event.browser, event.browser_version),
    "visit:os": lambda event: event.os,
    "visit:os_version": lambda event: (event.os, event.os_version),
    "visit:country": lambda event: event.country_code,
    "visit:region": lambda event: (event.country_code, event.region),
    "visit:city": lambda event: (event.country_code, event.region, event.city),
    "visit:language": lambda event: event.language,
    "visit:screen": _screen,
}
# The value that a visit has from its first or last pageview, and an event without visit never.
OF_ENDS: dict[str, Callable[[Visit], Value]] = {
    "visit:entry_page": lambda visit: visit.pages[0].pathname if visit.pages else None,
    "visit:exit_page": lambda visit: visit.pages[-1].pathname if visit.pages else None,
    "visit:entry_page_hostname": lambda visit: visit.pages[0].hostname if visit.pages else None,
    "visit:exit_page_hostname": lambda visit: visit.pages[-1].hostname if visit.pages else None,
}


def rollup(stored: Sequence[Stored], cut: Sequence[tuple[str, Slice]] = ()) -> dict[Key, Numbers]:
    """Return every sum of every site-day, dimension and value; cut: the slices of sites' days."""
    found: dict[Key, Numbers] = {}
    visit_of = {one.position: visit for visit in visits(stored) for one in visit.events}
    for dimension in (*OF_EVENTS, *OF_FIRST, *OF_ENDS, SLICE):
        groups: dict[tuple[str, date, Value], list[Stored]] = defaultdict(list)
        for one in stored:
            if dimension == SLICE:
                values = _slices(one.event, cut)
            else:
                values = [_value(dimension, one.event, visit_of.get(one.position))]
            for value in values:
                groups[one.event.site_id, day_of(one.event), value].append(one)
        for (site_id, day, value), group in groups.items():
            key = Key(site_id, day, dimension, value, None)
            found[key] = _count(dimension, group, visit_of)
            for currency, amount in revenue_of(one.event for one in group).items():
                paid = [
                    event
                    for _, event in group
                    if event.revenue_amount is not None and event.revenue_currency == currency
                ]
                money = {"revenue_amount": amount, "revenue_events": len(paid)}
                found[key._replace(currency=currency)] = dict.fromkeys(found[key]) | money
    return found


def _slices(event: Event, cut: Sequence[tuple[str, Slice]]) -> list[Value]:
    return [
        str(piece.start_us)
        for site_id, piece in cut
        if site_id == event.site_id and piece.start_us <= event.timestamp < piece.end_us
    ]


def _value(dimension: str, event: Event, visit: Visit | None) -> Value:
    if dimension in OF_EVENTS:
        return OF_EVENTS[dimension](event)
    if dimension in OF_ENDS:
        return OF_ENDS[dimension](visit) if visit else None
    return OF_FIRST[dimension](visit.events[0].event if visit else event)


def _count(dimension: str, group: Sequence[Stored], visit_of: dict[int, Visit]) -> Numbers:
    positions = {one.position for one in group}
    pages = [one for one in group if one.event.event_type == "page"]
    counted = [one for one in group if one.event.event_type != "engagement"]
    inside = [one for one in group if one.position in visit_of]
    met = {visit_of[one.position] for one in counted if one in inside}
    entered = {visit for visit in met if _first_page(visit) in positions}
    left = {visit for visit in met if _last_page(visit) in positions}
    if dimension == SLICE:  # who was there in it, wherever they began and ended
        entered = left = {visit for visit in met if visit.pages}
    engaged: dict[object, list[int]] = defaultdict(list)
    depths: dict[object, list[int]] = defaultdict(list)
    for one in inside:
        page = (visit_of[one.position], one.event.pathname)
        if one.event.engaged_ms is not None:
            engaged[page].append(one.event.engaged_ms)
        if one.event.scroll_depth is not None:
            depths[page].append(one.event.scroll_depth)
    has_ends = dimension not in {"event:name", "time:hour"}
    return {
        "visitors": len({visit.visitor_id for visit in met}),
        "visits": len(met),
        "pageviews": len(pages),
        "events": len(counted),
        "anonymous_pageviews": sum(one.event.visitor_id is None for one in pages),
        "bounces": sum(visit.bounce for visit in met),
        "duration_ms": sum(visit.duration_ms for visit in met),
        "visit_pageviews": sum(len(visit.pages) for visit in met),
        "entries": len(entered) if has_ends else None,
        "entry_bounces": sum(visit.bounce for visit in entered) if has_ends else None,
        "exits": len(left) if has_ends else None,
        "engaged_ms": sum(sum(times) for times in engaged.values()),
        "engaged_pages": len(engaged),
        "scroll_sum": sum(max(percents) for percents in depths.values()),
        "scroll_pages": len(depths),
        "revenue_amount": None,
        "revenue_events": None,
    }


def _first_page(visit: Visit) -> int | None:
    return next((one.position for one in visit.events if one.event.event_type == "page"), None)


def _last_page(visit: Visit) -> int | None:
    positions = [one.position for one in visit.events if one.event.event_type == "page"]
    return positions[-1] if positions else None
