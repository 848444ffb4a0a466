"""Amounts of money and their currencies, as clients write them."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal

from mallard.event import REVENUE_MAX

_AMOUNT = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,30})?")
_CURRENCY = re.compile(r"[A-Za-z]{3}")
_CENT = Decimal("0.01")
_ZERO = Decimal(0)


def read_amount(value: object) -> Decimal | None:
    """Return a number, or the text of one, rounded to two decimals, half to even.

    None if it is neither, or more than DECIMAL(12,2) holds. A float counts as the decimal number
    that it was written as: 1.005 is 1.005 and not 1.00499.
    """
    if type(value) is float:
        amount = Decimal(repr(value))
    elif type(value) is int or (type(value) is str and _AMOUNT.fullmatch(value)):
        amount = Decimal(value)
    else:
        return None
    if abs(amount) > REVENUE_MAX + 1:  # beyond it, rounding itself could fail
        return None
    amount = amount.quantize(_CENT, ROUND_HALF_EVEN) + _ZERO  # -0.00 becomes 0.00
    return amount if abs(amount) <= REVENUE_MAX else None


def read_currency(value: object) -> str | None:
    """Return three letters in upper case, the form of an ISO 4217 code; None for all else."""
    if type(value) is str and _CURRENCY.fullmatch(value):
        return value.upper()
    return None
