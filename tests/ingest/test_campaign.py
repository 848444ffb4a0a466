"""Tags and click ids of a query string."""

from __future__ import annotations

import pytest
from hypothesis import given

from mallard.ingest.campaign import (
    CLICK_IDS,
    NO_CAMPAIGN,
    VALUE_LENGTH_MAX,
    Campaign,
    read_campaign,
)
from tests.ingest.texts import any_url, is_storable


def test_the_five_tags_are_read() -> None:
    query = "utm_source=news&utm_medium=email&utm_campaign=may&utm_content=top&utm_term=ducks"
    assert read_campaign(query) == Campaign("news", "news", "email", "may", "top", "ducks")


def test_values_are_decoded_and_trimmed() -> None:
    campaign = read_campaign("utm_campaign=+Fr%C3%BChling+%26%20mehr+")
    assert campaign.campaign == "Frühling & mehr"


def test_keys_are_read_in_any_case_and_the_first_value_wins() -> None:
    assert read_campaign("UTM_Source=a&utm_source=b").source == "a"


def test_an_empty_value_is_no_value() -> None:
    assert read_campaign("utm_source=&utm_medium=+&utm_source=b&utm_term") == Campaign("b", "b")


@pytest.mark.parametrize(
    ("query", "tag"),
    [
        ("ref=a&source=b&utm_source=c", "c"),
        ("ref=a&source=b", "b"),
        ("ref=a", "a"),
        ("reference=a", None),
    ],
)
def test_the_tag_is_utm_source_then_source_then_ref(query: str, tag: str | None) -> None:
    assert read_campaign(query).tag == tag


def test_source_and_ref_do_not_fill_the_utm_source_column() -> None:
    assert read_campaign("ref=a&source=b").source is None


@pytest.mark.parametrize("kind", CLICK_IDS)
def test_of_a_click_id_only_the_kind_is_kept(kind: str) -> None:
    assert read_campaign(f"{kind.upper()}=SECRET123") == Campaign(click_id_kind=kind)


def test_an_advertisement_outranks_the_id_that_facebook_puts_on_every_link() -> None:
    assert read_campaign("fbclid=1&gclid=2").click_id_kind == "gclid"
    assert read_campaign("gclid=2&fbclid=1").click_id_kind == "gclid"


@pytest.mark.parametrize("query", ["", "a=b", "utm_source", "xutm_source=a", "gclid=", "&&==&"])
def test_a_query_without_tags_is_no_campaign(query: str) -> None:
    assert read_campaign(query) is NO_CAMPAIGN


def test_a_value_is_cut_at_the_limit() -> None:
    campaign = read_campaign(f"utm_term={'%C3%A9' * 1000}")
    assert campaign.term == "é" * VALUE_LENGTH_MAX


@given(any_url)
def test_whatever_is_sent_only_storable_values_come_out(query: str) -> None:
    for text in read_campaign(f"utm_source={query}&utm_term={query}"):
        assert is_storable(text)
        assert text is None or 0 < len(text) <= VALUE_LENGTH_MAX
