"""Hypothesis strategies for hostile text, and what may never come out of it."""

from __future__ import annotations

from hypothesis import strategies as st

# Every code point, lone surrogates and NUL too, beside the pieces that URLs are made of.
any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)
_PIECES = (
    *("http", "https:", "://", "//", "/", "\\", "?", "#", "&", "=", "+", "%", "@", ":", "[::1]"),
    *("%00", "%ff", "%ED%A0%80", "%C3%A9", "%25", "%2", "%0a", "utm_source", "utm_medium", "cpc"),
    *("gclid", "ref", "www.", "example.com", "google.", "co.uk", "android-app", "Mozilla/5.0"),
)
any_url = st.lists(st.sampled_from([*_PIECES, "\ud800", "\x00", " "]) | any_text, max_size=12).map(
    "".join
)


def is_storable(text: str | None) -> bool:
    """Tell whether a column may hold text: valid UTF-8 without control characters."""
    if text is None:
        return True
    return not any(
        ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 or 0xD800 <= ord(letter) < 0xE000
        for letter in text
    )
