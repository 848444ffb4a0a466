"""Hostile names: what is taken can be held by any database and shown by any terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mallard.accounts import checks, shapes
from mallard.accounts.accounts import Accounts
from mallard.accounts.control import Control
from mallard.errors import Conflict, InvalidInput, MissingInput
from mallard.site import Goal, Site
from tests.accounts.conftest import StandingClock

ANY = st.text(st.characters(), max_size=300)  # halves of surrogate pairs too
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | ANY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY, inner, max_size=3),
    max_leaves=8,
)
SQL = "'; DROP TABLE accounts_key; --"


def set_site(control: Control, site: str, said: Any) -> Any:
    return control.sites.set(site, said)


def add_goal(control: Control, site: str, said: Any) -> Any:
    return control.goals.add(site, said)


def add_segment(control: Control, site: str, said: Any) -> Any:
    return control.segments.add(site, said)


def create_key(control: Control, site: str, said: Any) -> Any:
    return control.keys.create(said)


Said = dict[str, st.SearchStrategy[Any]]
NAME = st.sampled_from([SQL, "Ünïcode 鴨", "x" * 256]) | ANY | JSON
SITE = st.sampled_from(["a.example", "www.b.example", SQL]) | ANY
CURRENCY = st.sampled_from(["EUR", None]) | JSON
FILTERS = st.lists(JSON, min_size=1, max_size=3)
CHANGES: tuple[tuple[Callable[..., Any], Said, Said], ...] = (
    (
        set_site,
        {},
        {
            "kind": st.sampled_from(["web", "log"]) | JSON,
            "timezone": st.sampled_from(["UTC", "Asia/Kolkata"]) | JSON,
            "currency": CURRENCY,
        },
    ),
    (
        add_goal,
        {"page": st.sampled_from(["/x/**", "/" + SQL]) | JSON},
        {"props": st.dictionaries(ANY, ANY, max_size=2) | JSON, "display_name": NAME},
    ),
    (add_goal, {"event_name": NAME}, {"currency": CURRENCY, "page": st.none() | JSON}),
    (add_segment, {"name": NAME, "filters": FILTERS | JSON}, {}),
    (
        create_key,
        {
            "name": NAME,
            "scopes": st.sampled_from([["sql"], ["stats:read", "admin"]]) | JSON,
            "sites": st.sampled_from(["*", ["a.example"]]) | JSON,
        },
        {},
    ),
)


@given(ANY)
def test_a_text_is_taken_trimmed_or_refused_with_a_rule(text: str) -> None:
    try:
        taken = checks.text({"name": text}, "name")
    except InvalidInput as error:
        assert (error.field, bool(error.rule)) == ("name", True)
    else:
        assert taken == text.strip() != ""
        assert taken.encode().decode() == taken
        assert not any(ord(character) < 32 or character == "\x7f" for character in taken)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "a\nb", "\x1b[31m", "\x9b31m", " ", "x" * 257])
def test_a_text_that_breaks_something_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        checks.text({"name": text}, "name")
    with pytest.raises(MissingInput):
        checks.text({"name": None}, "name")


@pytest.mark.parametrize("value", [1, True, ["a"], {"a": 1}, b"a"])
def test_what_is_no_text_is_refused(value: object) -> None:
    for check in (checks.text, checks.optional_text, checks.zone, checks.currency, checks.one_of):
        arguments: tuple[Any, ...] = {checks.zone: ("UTC",), checks.one_of: (["a"], "a")}.get(
            check, ()
        )
        with pytest.raises(InvalidInput):
            check({"name": value}, "name", *arguments)
    with pytest.raises(InvalidInput):
        checks.site_id(value)


@pytest.mark.parametrize(
    "zone", ["europe/berlin", "Berlin", "../../etc/passwd", "", "localtime", "UTC\0", "+02:00", "é"]
)
def test_a_zone_is_a_name_of_the_iana_database(zone: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checks.zone({"timezone": zone}, "timezone", "UTC")
    assert caught.value.field == "timezone"
    if zone == "europe/berlin":
        assert caught.value.rule == "a name of the IANA database, such as Europe/Berlin"
    assert checks.zone({"timezone": "America/Argentina/Ushuaia"}, "timezone", "UTC")


@pytest.mark.parametrize("currency", ["EURO", "E", "12A", "\u0415UR", "EUR\n", ""])
def test_a_currency_is_three_letters(currency: str) -> None:
    with pytest.raises(InvalidInput):
        checks.currency({"currency": currency}, "currency")
    assert checks.currency({"currency": "eur"}, "currency") == "EUR"


def test_an_unknown_field_is_named_and_the_near_one_too() -> None:
    with pytest.raises(InvalidInput) as caught:
        checks.known_fields({"time_zone": "UTC"}, ("kind", "timezone"))
    assert caught.value.detail == "time_zone is no field of this; did you mean timezone?"
    with pytest.raises(InvalidInput) as caught:
        checks.known_fields({"\x1b[2J\ud800": 1}, ("kind",))
    assert caught.value.field == "?[2J?"


@settings(max_examples=40, deadline=None)
@given(site=SITE, said=st.data())
@pytest.mark.parametrize(("change", "required", "optional"), CHANGES)
def test_whatever_is_said_is_refused_or_comes_back_as_it_was_said(
    hostile: Accounts,
    change: Callable[..., Any],
    required: Said,
    optional: Said,
    site: str,
    said: st.DataObject,
) -> None:
    document = said.draw(st.fixed_dictionaries(required, optional=optional))
    try:
        made = hostile.change_now(partial(change, site=site, said=document))
    except (InvalidInput, Conflict) as error:
        assert error.detail.isprintable()
        return
    kept = shown(hostile, made)
    for name, value in document.items():
        if value is not None:
            expected = value.strip() if isinstance(value, str) else value
            assert kept[name] == (expected.upper() if name == "currency" else expected), name


def shown(accounts: Accounts, made: Any) -> dict[str, Any]:
    """What is read again of a record, in the words it was said in."""
    if isinstance(made, tuple):
        (key,) = (each for each in accounts.read_now(lambda control: control.keys.all())[-1:])
        assert key == made[0]
        return shapes.key(key)
    directory = accounts.directory_now()
    if isinstance(made, Site):
        return shapes.site(directory.site(made.site_id))
    if isinstance(made, Goal):
        assert made in directory.goals_of(made.site_id)
        return shapes.goal(made)
    assert made in directory.segments_of(made.site_id)
    return shapes.segment(made)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    path: Path = tmp_path_factory.mktemp("hostile") / "mallard.db"
    path.touch()
    accounts = Accounts(path, StandingClock())
    yield accounts
    accounts.close()
