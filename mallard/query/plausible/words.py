"""Money and countries in words, in English.

Babel is imported when first needed: it takes ten megabytes, and most servers never need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mallard.errors import InvalidInput

# What others call a country that is shown by a shorter name, or by one with more in it.
_OTHER_NAMES = {
    "Burma": "MM",
    "Czech Republic": "CZ",
    "Hong Kong": "HK",
    "Iran, Islamic Republic of": "IR",
    "Korea, Republic of": "KR",
    "Macao": "MO",
    "Myanmar": "MM",
    "Republic of Korea": "KR",
    "Russian Federation": "RU",
    "Turkey": "TR",
    "United Kingdom of Great Britain and Northern Ireland": "GB",
    "United States of America": "US",
    "Viet Nam": "VN",
}


def money(currency: str, amount: Decimal) -> dict[str, Any]:
    """Return an amount as Plausible's API has it: a number, a short and a long text."""
    from babel.numbers import format_compact_currency, format_currency  # noqa: PLC0415 - see above

    amount = round(amount, 2)  # a mean has more digits, and the short text would show them all
    return {
        "value": float(amount),
        "currency": currency,
        "short": format_compact_currency(amount, currency, locale="en", fraction_digits=1),
        "long": format_currency(amount, currency, locale="en"),
    }


def country(code: str) -> str:
    """Return the name of a country by its ISO 3166-1 code; an unknown code as it is."""
    return _countries().get(code, code)


def countries_named(
    texts: Sequence[str], *, whole: bool, case_sensitive: bool = True
) -> tuple[str, ...]:
    """Return the codes of the countries one of whose names is a text, or else contains one.

    A code that no name is known of stands for itself, as it does where countries are shown.
    """
    fold = str if case_sensitive else str.casefold
    wanted = [fold(each) for each in texts]
    found = [
        code
        for name, code in _named()
        if (fold(name) in wanted if whole else any(each in fold(name) for each in wanted))
    ]
    return tuple(dict.fromkeys([*found, *(text for text in texts if text not in _countries())]))


def countries_that_match(texts: Sequence[str], *, case_sensitive: bool = True) -> tuple[str, ...]:
    """Return the codes of the countries in whose names one of some RE2 expressions is found."""
    names = pa.array([name for name, _ in _named()])
    found: list[str] = []
    for text in texts:
        try:
            told = pc.match_substring_regex(names, text, ignore_case=not case_sensitive)
        except pa.ArrowInvalid as error:
            raise InvalidInput(
                f"{text!r} is no regular expression ({error}).",
                field="filters",
                rule="an expression of RE2's syntax",
            ) from error
        found += [code for (_, code), fits in zip(_named(), told.to_pylist(), strict=True) if fits]
    return tuple(dict.fromkeys(found))


def _named() -> list[tuple[str, str]]:
    """Return every name that a country has here, with its code."""
    return [*((name, code) for code, name in _countries().items()), *_OTHER_NAMES.items()]


@cache
def _countries() -> dict[str, str]:
    """Return the names of countries by their codes of two letters."""
    from babel import Locale  # noqa: PLC0415 - see above

    names: dict[str, str] = dict(Locale("en").territories)
    return {code: name for code, name in names.items() if len(code) == 2}
