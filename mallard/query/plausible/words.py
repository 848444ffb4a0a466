"""Money and countries in words, in English.

Babel is imported when first needed: it takes ten megabytes, and most servers never need it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any


def money(currency: str, amount: Decimal) -> dict[str, Any]:
    """Return an amount as Plausible's API has it: a number, a short and a long text."""
    from babel.numbers import format_compact_currency, format_currency  # noqa: PLC0415 - see above

    return {
        "value": float(round(amount, 2)),
        "currency": currency,
        "short": format_compact_currency(amount, currency, locale="en", fraction_digits=1),
        "long": format_currency(amount, currency, locale="en"),
    }


def country(code: str) -> str:
    """Return the name of a country by its ISO 3166-1 code; an unknown code as it is."""
    from babel import Locale  # noqa: PLC0415 - see above

    name: str = Locale("en").territories.get(code, code)
    return name
