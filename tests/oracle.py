"""The answers again, in plain Python over lists of stored events; both must agree.

Written from the definitions, and knows nothing of SQL.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from mallard.event import Event

IDLE_US = 30 * 60 * 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Stored(NamedTuple):
    """An event and the position it was given."""

    position: int
    event: Event


def store(events: Iterable[Event], first_position: int = 1) -> list[Stored]:
    """Return events with the positions that one commit after another gives them."""
    return [Stored(number, event) for number, event in enumerate(events, first_position)]


def instant(us: int) -> datetime:
    """Return what DuckDB returns for a TIMESTAMP, exactly."""
    return (_EPOCH + timedelta(microseconds=us)).replace(tzinfo=None)


def day_of(event: Event) -> date:
    """Return the UTC date an event belongs to."""
    return instant(event.timestamp).date()


# Visits ------------------------------------------------------------------------------------------

# What a visit takes from its first event.
TAKEN = (
    *("referrer", "referrer_source", "channel"),
    *("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term", "click_id_kind"),
    *("country_code", "region", "city", "browser", "browser_version", "os", "os_version"),
    *("device_type", "screen_width", "language"),
)


@dataclass(frozen=True)
class Visit:
    """The events of one visit, the earliest first."""

    site_id: str
    date: date
    visitor_id: int
    visit: int
    events: tuple[Stored, ...]

    @property
    def counted(self) -> list[Event]:
        """Its events that somebody did: engagement reports are not among them."""
        return [event for _, event in self.events if event.event_type != "engagement"]

    @property
    def pages(self) -> list[Event]:
        """Its pageviews."""
        return [event for _, event in self.events if event.event_type == "page"]

    @property
    def bounce(self) -> bool:
        """Whether it is one pageview and nothing else that somebody did on purpose."""
        others = [event for event in self.counted if event.event_type != "page"]
        return len(self.pages) == 1 and not any(event.interactive for event in others)

    @property
    def duration_ms(self) -> int:
        """From its first event to its last, in whole milliseconds."""
        return (self.events[-1].event.timestamp - self.events[0].event.timestamp) // 1000

    @property
    def engaged_ms(self) -> int | None:
        """The time its pages were looked at; None where no event tells any."""
        told = [event.engaged_ms for _, event in self.events if event.engaged_ms is not None]
        return sum(told) if told else None

    @property
    def revenue(self) -> dict[str, Decimal] | None:
        """The sum of each currency; None without any."""
        sums = revenue_of(event for _, event in self.events)
        return sums or None

    def row(self) -> dict[str, Any]:
        """Return it as a row of the sessions table."""
        first, pages = self.events[0], self.pages
        users = [event.user_id for _, event in self.events if event.user_id is not None]
        return {
            "site_id": self.site_id,
            "date": self.date,
            "visitor_id": self.visitor_id,
            "visit": self.visit,
            "first_position": first.position,
            "started_at": instant(first.event.timestamp),
            "ended_at": instant(self.events[-1].event.timestamp),
            "duration_ms": self.duration_ms,
            "pageviews": len(pages),
            "events": len(self.counted),
            "bounce": self.bounce,
            "entry_page": pages[0].pathname if pages else None,
            "exit_page": pages[-1].pathname if pages else None,
            "entry_hostname": pages[0].hostname if pages else None,
            "exit_hostname": pages[-1].hostname if pages else None,
            **{name: getattr(first.event, name) for name in TAKEN},
            "user_id": users[-1] if users else None,
            "engaged_ms": self.engaged_ms,
            "revenue": self.revenue,
        }


def visits(stored: Sequence[Stored]) -> list[Visit]:
    """Return the visits of events in any order."""
    found: list[Visit] = []
    of_visitors: dict[tuple[str, date, int], list[Stored]] = defaultdict(list)
    for one in stored:
        if one.event.visitor_id is not None:
            key = (one.event.site_id, day_of(one.event), one.event.visitor_id)
            of_visitors[key].append(one)
    for (site_id, day, visitor_id), theirs in of_visitors.items():
        theirs.sort(key=lambda one: (one.event.timestamp, one.position))
        for number, events in enumerate(_divide(theirs), 1):
            found.append(Visit(site_id, day, visitor_id, number, tuple(events)))
    return found


def _divide(theirs: Sequence[Stored]) -> list[list[Stored]]:
    """Divide one visitor's day into visits."""
    divided: list[list[Stored]] = []
    before: Event | None = None
    for one in theirs:
        if one.event.event_type != "engagement" and (
            not divided or (before is not None and one.event.timestamp - before.timestamp > IDLE_US)
        ):
            divided.append([])
        if divided:
            divided[-1].append(one)
        before = one.event
    return divided


def visit_by_position(stored: Sequence[Stored]) -> dict[int, int | None]:
    """Return the number of the visit that each event belongs to, None for those of none."""
    numbers: dict[int, int | None] = {one.position: None for one in stored}
    for visit in visits(stored):
        numbers.update((one.position, visit.visit) for one in visit.events)
    return numbers


def revenue_of(events: Iterable[Event]) -> dict[str, Decimal]:
    """Return the sum of each currency; an amount of no currency is not money."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for event in events:
        if event.revenue_amount is not None and event.revenue_currency is not None:
            sums[event.revenue_currency] += event.revenue_amount
    return dict(sums)


# Reports -----------------------------------------------------------------------------------------


def percent(part: int, whole: int) -> float | None:
    """Return a share in percent; None of nothing."""
    return 100 * part / whole if whole else None


def summary(stored: Sequence[Stored]) -> dict[str, Any]:
    """Return the numbers of a report about these events, whole site-days of them."""
    found = visits(stored)
    return {
        **visit_numbers(found),
        "pageviews": sum(event.event_type == "page" for _, event in stored),
        "events": sum(event.event_type != "engagement" for _, event in stored),
        "views_per_visit": sum(len(visit.pages) for visit in found) / len(found) if found else None,
    }


def visit_numbers(found: Sequence[Visit]) -> dict[str, Any]:
    """Return the numbers of a report that visits alone tell."""
    durations = [visit.duration_ms for visit in found]
    return {
        "visitors": len({(visit.site_id, visit.date, visit.visitor_id) for visit in found}),
        "visits": len(found),
        "bounce_rate": percent(sum(visit.bounce for visit in found), len(found)),
        "visit_seconds": sum(durations) / len(durations) / 1000 if durations else None,
    }


def funnel(stored: Sequence[Stored], steps: Sequence[str]) -> list[int]:
    """Return how many visits did the first step, the first two in their order, and so on.

    A step is "page:" and a pathname, or an event's name; an event is one step at most.
    """
    reached = [0] * len(steps)
    for visit in visits(stored):
        done = 0
        for event in visit.counted:
            if done < len(steps) and _is_step(event, steps[done]):
                reached[done] += 1
                done += 1
    return reached


def _is_step(event: Event, step: str) -> bool:
    page = event.event_type == "page" and event.pathname is not None
    return event.event_name == step or (page and step == f"page:{event.pathname}")
