"""The parameters that reports share, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mallard.errors import InvalidInput

Given = Mapping[str, str]

ROWS = 100  # of a page, where nothing else is asked for
ROWS_MAX = 10_000
COMPARISONS = ("previous_period", "previous_year")


def check_names(given: Given, known: Sequence[str]) -> None:
    """Raise InvalidInput for a parameter that says nothing here, or holds NUL."""
    for name, value in given.items():
        if name not in known:
            raise InvalidInput(
                f"There is no parameter {name!r} here.",
                field=name,
                rule="some of " + ", ".join(known),
            )
        if "\0" in value:
            raise InvalidInput(f"{name} holds NUL.", field=name, rule="text without NUL")


def date_range(given: Given, default: str = "30d") -> object:
    """Return what `period`, or `from` and `to`, say, as Stats API v2 writes it."""
    if "from" in given or "to" in given:
        if "period" in given:
            raise InvalidInput("A period is either named or has from and to.", field="period")
        return [given.get("from"), given.get("to")]
    return given.get("period", default)


def comparison(given: Given) -> dict[str, Any]:
    """Return what `compare` says, as `include` of Stats API v2."""
    compare = given.get("compare")
    if compare is None:
        return {}
    if compare in COMPARISONS:
        mode = "year_over_year" if compare == "previous_year" else compare
        return {"comparisons": {"mode": mode}}
    first, _, last = compare.partition("..")
    if not last:
        raise InvalidInput(
            f"compare {compare[:200]!r} is unknown.",
            field="compare",
            rule="previous_period, previous_year or <date>..<date>",
        )
    return {"comparisons": {"mode": "custom", "date_range": [first, last]}}


def word(given: Given, name: str, known: Sequence[str], default: str) -> str:
    """Return a parameter that is one of some words."""
    found = given.get(name, default)
    if found not in known:
        raise InvalidInput(
            f"{name} {found[:200]!r} is unknown.", field=name, rule="one of " + ", ".join(known)
        )
    return found


def needed(given: Given, name: str, rule: str) -> str:
    """Return a parameter that has to be there; raises InvalidInput, which says `rule`."""
    found = given.get(name)
    if not found:
        raise InvalidInput(f"{name} is missing.", field=name, rule=rule)
    return found


def number(given: Given, name: str, default: int, least: int = 0, most: int = 10**12) -> int:
    """Return a parameter that is a whole number within bounds."""
    text = given.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 13:
        raise InvalidInput(f"{name} is no whole number.", field=name, rule="digits")
    if not least <= int(text) <= most:
        raise InvalidInput(f"{name} is out of bounds.", field=name, rule=f"from {least} to {most}")
    return int(text)
