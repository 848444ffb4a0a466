"""The parameters that reports over GET share: which there may be, and what they say."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import QueryParams

from mallard.errors import InvalidInput

FORMATS = ("json", "csv")
ROWS_MAX = 10_000


def check_names(given: QueryParams, known: Sequence[str]) -> None:
    """Raise InvalidInput for a parameter that says nothing here, is there twice, or holds NUL."""
    for name in given:
        if name not in known:
            raise InvalidInput(
                f"There is no parameter {name!r} here.",
                field=name,
                rule="some of " + ", ".join(known),
            )
        if len(given.getlist(name)) > 1:
            raise InvalidInput(f"{name} is there twice.", field=name, rule="once")
        if "\0" in given[name]:
            raise InvalidInput(f"{name} holds NUL.", field=name, rule="text without NUL")


def date_range(given: QueryParams) -> object:
    """Return what `period`, or `from` and `to`, say, as Stats API v2 writes it."""
    if "from" in given or "to" in given:
        if "period" in given:
            raise InvalidInput("A period is either named or has from and to.", field="period")
        return [given.get("from"), given.get("to")]
    return given.get("period", "30d")


def is_csv(given: QueryParams) -> bool:
    """Tell whether the answer is to be CSV."""
    return word(given, "format", FORMATS, "json") == "csv"


def word(given: QueryParams, name: str, known: Sequence[str], default: str) -> str:
    """Return a parameter that is one of some words."""
    found = given.get(name, default)
    if found not in known:
        raise InvalidInput(
            f"{name} {found!r} is unknown.", field=name, rule="one of " + ", ".join(known)
        )
    return found


def needed(given: QueryParams, name: str, rule: str) -> str:
    """Return a parameter that has to be there; raises InvalidInput, which says `rule`."""
    found = given.get(name)
    if not found:
        raise InvalidInput(f"{name} is missing.", field=name, rule=rule)
    return found


def number(given: QueryParams, name: str, default: int, least: int = 0, most: int = 10**12) -> int:
    """Return a parameter that is a whole number within bounds."""
    text = given.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 13:
        raise InvalidInput(f"{name} is no whole number.", field=name, rule="digits")
    if not least <= int(text) <= most:
        raise InvalidInput(f"{name} is out of bounds.", field=name, rule=f"from {least} to {most}")
    return int(text)
