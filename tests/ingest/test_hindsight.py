from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mallard.ingest.bots import Bots
from mallard.ingest.hindsight import Hindsight
from mallard.ingest.referrer import Referrers
from mallard.ingest.sources import TABLE

HINDSIGHT = Hindsight(Bots(), Referrers())
_HOSTS = [host for group in TABLE.values() for _, hosts, _ in group for host in hosts.split()]
_NAMES = [name for group in TABLE.values() for name, _, _ in group]
_REFERRERS = st.sampled_from([None, *(f"https://{host.replace('*', 'de')}/" for host in _HOSTS)])
_TAGS = st.sampled_from([None, "newsletter", "fb", "My Shop", *_NAMES])
_MEDIA = st.sampled_from([None, "cpc", "email", "social", "referral"])
_CLICKS = st.sampled_from([None, "gclid", "msclkid", "fbclid"])


@given(_REFERRERS, _TAGS, _TAGS, _MEDIA, st.sampled_from([None, "shop", "cross-network"]), _CLICKS)
def test_asked_again_about_its_own_answer_it_gives_the_same_one(
    referrer: str | None,
    source: str | None,
    utm_source: str | None,
    medium: str | None,
    campaign: str | None,
    click_id_kind: str | None,
) -> None:
    told = (utm_source, medium, campaign, click_id_kind)
    new, channel = HINDSIGHT.attribute(referrer, source, *told)
    assert HINDSIGHT.attribute(referrer, new, *told) == (new, channel)


def test_utm_source_outranks_a_stored_source_and_that_the_referrer() -> None:
    google = "https://www.google.de/"
    assert HINDSIGHT.attribute(google, "old", "fb", None, None, None)[0] == "Facebook"
    assert HINDSIGHT.attribute(google, "hn", None, None, None, None)[0] == "Hacker News"
    assert HINDSIGHT.attribute(google, "google.de", None, None, None, None)[0] == "Google"
    assert HINDSIGHT.attribute(None, None, None, None, None, None) == (None, "Direct")
