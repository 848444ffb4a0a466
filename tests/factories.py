"""What tests need of everything, in one place: ordinary values, any of which a test may replace."""

from __future__ import annotations

from typing import Any

from mallard.event import Event
from mallard.ingest.payload import RawEvent
from mallard.ingest.sender import Sender

NOON_US = 1_714_564_800_000_000  # 2024-05-01 12:00:00 UTC
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/124.0.0.0 Safari/537.36"
)
ADDRESS = "203.0.113.7"  # RFC 5737, for documentation


def make_raw(**values: Any) -> RawEvent:
    """Return a pageview of example.com as a client tells it."""
    return RawEvent(
        **{
            "sites": ("example.com",),
            "name": "pageview",
            "url": "https://example.com/pricing",
            **values,
        }
    )


def make_sender(**values: Any) -> Sender:
    """Return a person with Chrome on Windows who looks at a page of example.com."""
    return Sender(
        **{
            "address": ADDRESS,
            "user_agent": CHROME,
            "origin": "https://example.com",
            "client_hints": None,
            "language": "en-us",
            "privacy_signal": False,
            "prefetch": False,
            **values,
        }
    )


def make_event(**values: Any) -> Event:
    """Return a pageview of example.com as it is stored."""
    return Event(
        **{
            "site_id": "example.com",
            "timestamp": NOON_US,
            "event_name": "pageview",
            "event_type": "page",
            "source": "Snippet",
            "ingest_api": "post",
            "visitor_id": 1,
            "url": "https://example.com/pricing",
            "hostname": "example.com",
            "pathname": "/pricing",
            "channel": "Direct",
            "browser": "Chrome",
            "browser_version": "124",
            "os": "Windows",
            "os_version": "10",
            "device_type": "Desktop",
            "language": "en-us",
            **values,
        }
    )
