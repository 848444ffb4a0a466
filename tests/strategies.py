"""Hypothesis strategies: events with every column, in one place."""

from __future__ import annotations

from decimal import Decimal

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
