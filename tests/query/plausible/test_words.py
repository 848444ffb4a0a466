from __future__ import annotations

from decimal import Decimal

import pytest

from mallard.errors import InvalidInput
from mallard.query.plausible.words import countries_named, countries_that_match, country, money


def test_a_country_is_found_by_the_name_it_is_shown_with() -> None:
    for code in ("DE", "US", "CI", "XK", "HK"):
        assert countries_named([country(code)], whole=True)[0] == code


def test_a_country_is_found_by_what_else_it_is_called() -> None:
    assert countries_named(["United States of America"], whole=True)[0] == "US"
    assert "US" in countries_named(["of america"], whole=False, case_sensitive=False)
    assert "US" not in countries_named(["of america"], whole=False)


def test_a_code_that_no_name_is_known_of_stands_for_itself() -> None:
    assert country("A1") == "A1"
    assert "A1" in countries_named(["A1"], whole=True)
    assert countries_named(["DE"], whole=True) == ()


def test_countries_by_an_expression() -> None:
    assert countries_that_match(["^Esto", "^Pol"]) == ("EE", "PL")
    assert countries_that_match(["^esto"]) == ()
    assert countries_that_match(["^esto"], case_sensitive=False) == ("EE",)
    with pytest.raises(InvalidInput, match="no regular expression"):
        countries_that_match(["("])


def test_a_mean_is_shown_to_the_cent_in_short_too() -> None:
    told = money("USD", Decimal(250) / 3)
    assert told == {"value": 83.33, "currency": "USD", "short": "$83.33", "long": "$83.33"}
    assert money("USD", Decimal(1_000_000) / 3)["short"] == "$333.3K"
