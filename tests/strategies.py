"""Hypothesis strategies: events with every column, in one place."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from mallard.event import INSTANT_MAX, INT32_MAX, INT64_MAX, INT64_MIN, REVENUE_MAX, Event

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INSTANTS = st.integers(0, INSTANT_MAX)
INT64 = st.integers(INT64_MIN, INT64_MAX)
AMOUNTS = st.decimals(-REVENUE_MAX, REVENUE_MAX, places=2)
_NUMBERS: dict[str, st.SearchStrategy[object]] = {
    "sent_at": INSTANTS,
    "received_at": INSTANTS,
    "visitor_id": INT64,
    "sequence_number": INT64,
    "quantity": INT64,
    "engaged_ms": INT64,
    "screen_width": st.integers(0, INT32_MAX),
    "scroll_depth": st.integers(0, 100),
    "revenue_amount": AMOUNTS | st.just(Decimal("1E+3")),
}
_ALWAYS = {"site_id", "event_name", "event_type", "source", "ingest_api"}
_FLAGS = {"interactive", "backfill", "trusted_clock"}


def _column(name: str) -> st.SearchStrategy[object]:
    if name == "timestamp":
        return INSTANTS
    if name in _FLAGS:
        return st.booleans()
    return TEXT if name in _ALWAYS else st.none() | _NUMBERS.get(name, TEXT)


EVENTS = st.builds(Event, **{name: _column(name) for name in Event._fields})

# Events that meet in visits: few sites and visitors around one midnight, at times that are equal,
# next to each other, or the 30 minutes apart at which a visit ends.
_MIDNIGHT_US = 1_714_608_000_000_000  # 2024-05-02 00:00:00 UTC
_MINUTE_US = 60_000_000
_PAUSES = st.sampled_from([0, 10, 29, 30, 60, 90, 400])
VISITED_AT = st.builds(
    lambda pause, before, off: _MIDNIGHT_US + (-pause if before else pause) * _MINUTE_US + off,
    _PAUSES,
    st.booleans(),
    st.sampled_from([-1, 0, 0, 0, 1, 999]),
)
PATHS = st.sampled_from([None, "/", "/pricing", "/signup"])
_OF_VISITED: dict[str, st.SearchStrategy[Any]] = {
    "site_id": st.sampled_from(["example.com", "example.com", "it's/a=site"]),
    "timestamp": VISITED_AT,
    "event_name": st.sampled_from(["pageview", "signup", "purchase"]),
    "event_type": st.sampled_from(["page", "page", "track", "engagement", "identify"]),
    "interactive": st.booleans(),
    "visitor_id": st.sampled_from([None, 1, 1, -7]),
    "user_id": st.sampled_from([None, None, "ada", "bob"]),
    "pathname": PATHS,
    "hostname": st.sampled_from([None, "example.com", "shop.example.com"]),
    "referrer_source": st.sampled_from([None, "Google", "Bing"]),
    "utm_source": st.sampled_from([None, "news"]),
    "country_code": st.sampled_from([None, "DE", "FR"]),
    "screen_width": st.sampled_from([None, 0, 1920]),
    "revenue_amount": st.sampled_from([None, None, Decimal("0.10"), Decimal("-3.00")]),
    "revenue_currency": st.sampled_from([None, "EUR", "USD"]),
    "engaged_ms": st.sampled_from([None, 0, 1_500]),
}
VISITED_EVENTS = st.fixed_dictionaries(_OF_VISITED).map(lambda values: Event(**values))
