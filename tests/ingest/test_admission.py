"""Yes or no, and why."""

from __future__ import annotations

from typing import Any

import pytest

from mallard.clock import Clock
from mallard.config import IngestConfig, PrivacyConfig
from mallard.errors import Forbidden
from mallard.ingest.admission import ACCEPTED, Admission, Reason, Verdict
from mallard.ingest.bots import Bots
from mallard.ingest.payload import RawEvent
from mallard.ingest.rate_limit import RateLimit
from mallard.ingest.referrer import Referrers
from mallard.ingest.sender import Sender
from tests.factories import make_raw, make_sender

BOTS = Bots()


def admission(privacy_signals: str = "anonymous", **ingest: Any) -> Admission:
    config = IngestConfig(**ingest)
    privacy = PrivacyConfig(privacy_signals=privacy_signals)
    return Admission(config, privacy, BOTS, Referrers(), RateLimit(config, Clock()))


def judge(by: Admission, sender: Sender, raw: RawEvent | None = None) -> Verdict:
    (verdict,) = by.verdicts([raw or make_raw()], sender)
    return verdict


def test_a_person_is_accepted() -> None:
    assert judge(admission(), make_sender()) is ACCEPTED


@pytest.mark.parametrize(
    ("sender", "reason"),
    [
        ({"user_agent": "Googlebot/2.1"}, Reason.BOT),
        ({"user_agent": "Mozilla/5.0 HeadlessChrome/124.0"}, Reason.AUTOMATION),
        ({"prefetch": True}, Reason.PREFETCH),
        ({"prefetch": True, "user_agent": "Googlebot/2.1"}, Reason.PREFETCH),
        ({"privacy_signal": True}, Reason.ACCEPTED),
        ({"user_agent": ""}, Reason.ACCEPTED),
        ({"user_agent": "curl/8.5.0"}, Reason.ACCEPTED),
    ],
)
def test_a_sender_has_its_reason(sender: dict[str, Any], reason: Reason) -> None:
    verdict = judge(admission(), make_sender(**sender))
    assert verdict.reason is reason
    assert verdict.detail.endswith(".")


def test_every_reason_of_the_bots_list_has_its_verdict() -> None:
    assert {"bot", "automation"} <= {reason.value for reason in Reason}


def test_bots_pass_when_they_are_not_filtered() -> None:
    bot = make_sender(user_agent="Googlebot/2.1")
    assert judge(admission(filter_bots=False), bot) is ACCEPTED


def test_a_privacy_signal_drops_only_if_the_setting_says_so() -> None:
    sender = make_sender(privacy_signal=True)
    assert judge(admission("drop"), sender).reason is Reason.PRIVACY_SIGNAL
    assert judge(admission("ignore"), sender) is ACCEPTED


def test_an_origin_without_site_ids_is_anything() -> None:
    anything = make_raw(sites=("anything",))
    assert judge(admission(), make_sender(origin="null"), anything) is ACCEPTED


@pytest.mark.parametrize("origin", ["https://EXAMPLE.com", "https://www.example.com:444", None])
def test_a_known_origin_passes(origin: str | None) -> None:
    sites = admission(site_ids=("Example.com", "www.other.org"))
    raw = make_raw(sites=("Example.com", "other.org"))
    assert judge(sites, make_sender(origin=origin), raw) is ACCEPTED


@pytest.mark.parametrize(
    "origin", ["null", "", "https://", "://example.com", "https://example.com:x", "https://a.b"]
)
def test_another_origin_is_forbidden(origin: str) -> None:
    with pytest.raises(Forbidden) as caught:
        judge(admission(site_ids=("example.com",)), make_sender(origin=origin))
    assert caught.value.field == "Origin"


@pytest.mark.parametrize(
    "sender",
    [{}, {"prefetch": True}, {"user_agent": "Googlebot/2.1"}, {"privacy_signal": True}],
)
def test_many_events_of_a_sender_are_judged_as_each_would_be_alone(sender: dict[str, Any]) -> None:
    who = make_sender(**sender)
    raws = [make_raw(), make_raw(referrer="https://semalt.com/"), make_raw(referrer="https://a.b/")]
    alone = [judge(admission("drop"), who, raw) for raw in raws]
    assert admission("drop").verdicts(raws, who) == alone


def test_what_judges_many_events_forbids_what_one_is_forbidden() -> None:
    sites = admission(site_ids=("example.com",))
    with pytest.raises(Forbidden) as caught:
        judge(sites, make_sender(origin="https://a.b"))
    assert caught.value.field == "Origin"
    assert judge(sites, make_sender()) is ACCEPTED
    with pytest.raises(Forbidden) as caught:
        sites.verdicts([make_raw(), make_raw(sites=("example.com", "a.b"))], make_sender())
    assert caught.value.field == "d"
    with pytest.raises(Forbidden):
        judge(sites, make_sender(user_agent="Googlebot/2.1"), make_raw(sites=("a.b",)))
