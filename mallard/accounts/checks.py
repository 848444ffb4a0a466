"""Checks of what people say of sites, keys, goals and segments, the same at every door.

Each takes a field of a document, a mapping of names to JSON values, and raises InvalidInput that
names the field and what would be right. What comes out is text that any database and any
terminal can hold: no control characters, no half of a surrogate pair.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, NoReturn
from zoneinfo import available_timezones

from mallard.errors import InvalidInput, MissingInput
from mallard.site import read_site_id

Document = Mapping[str, Any]

NAME_LENGTH_MAX = 256
# Control characters, and halves of surrogate pairs, which UTF-8 cannot write.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CURRENCY = re.compile(r"[A-Za-z]{3}")
# Not the name of a place, but of what this machine is set to.
_NO_ZONES = frozenset({"localtime", "Factory"})


def known_fields(document: object, known: Collection[str]) -> Document:
    """Return the document, of which every field is a known one."""
    if not isinstance(document, dict):
        raise InvalidInput("This takes a JSON object.", rule=f"an object of {', '.join(known)}")
    for name in document:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else "."
            shown = _UNFIT.sub("?", name[:64])
            raise InvalidInput(
                f"{shown} is no field of this{hint}",
                field=shown,
                rule=f"one of {', '.join(known)}",
            )
    return document


def refuse(field: str, problem: str, rule: str) -> NoReturn:
    """Raise InvalidInput about one field."""
    raise InvalidInput(f"{field} {problem}.", field=field, rule=rule)


def text(document: Document, field: str, length_max: int = NAME_LENGTH_MAX) -> str:
    """Return a text that is required, trimmed and not empty."""
    found = optional_text(document, field, length_max)
    if found is None:
        raise MissingInput(f"{field} is missing.", field=field, rule="a text that is not empty")
    return found


def optional_text(document: Document, field: str, length_max: int = NAME_LENGTH_MAX) -> str | None:
    """Return a text, trimmed and not empty; None where it is absent or null."""
    found = document.get(field)
    return None if found is None else fit_text(found, field, length_max)


def fit_text(value: object, field: str, length_max: int) -> str:
    """Return a value that is a text, trimmed and not empty."""
    if not isinstance(value, str):
        refuse(field, "is not a text", "a JSON string")
    if _UNFIT.search(value):
        refuse(field, "holds a control character", "text without control characters")
    value = value.strip()
    if not value:
        refuse(field, "is empty", "a text that is not empty")
    if len(value) > length_max:
        refuse(field, "is too long", f"at most {length_max} characters")
    return value


def site_id(value: object, field: str = "site_id") -> str:
    """Return the name of a site."""
    if not isinstance(value, str):
        refuse(field, "is not a text", "a JSON string")
    try:
        return read_site_id(value)
    except InvalidInput as error:
        refuse(field, error.detail, error.rule or "")


def one_of(document: Document, field: str, known: Collection[str], default: str) -> str:
    """Return one of the words that are known."""
    found = document.get(field, default)
    if not isinstance(found, str) or found not in known:
        refuse(field, "is none of the words it may be", f"one of {', '.join(known)}")
    return found


def zone(document: Document, field: str, default: str) -> str:
    """Return the name of a time zone, as the IANA database spells it."""
    found = document.get(field, default)
    names = _zones()
    if not isinstance(found, str) or found not in names:
        near = difflib.get_close_matches(found[:64], names, 1) if isinstance(found, str) else []
        example = near[0] if near else "Europe/Berlin"
        refuse(field, "is no time zone", f"a name of the IANA database, such as {example}")
    return found


def currency(document: Document, field: str, default: str | None = None) -> str | None:
    """Return an ISO 4217 code in upper case, by its form; None where it is null."""
    found = document.get(field, default)
    if found is None:
        return None
    if not isinstance(found, str) or not _CURRENCY.fullmatch(found):
        refuse(field, "is no currency", "three letters, such as EUR (ISO 4217)")
    return found.upper()


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - _NO_ZONES)
