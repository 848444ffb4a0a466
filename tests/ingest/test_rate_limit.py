"""One bucket for each site."""

from __future__ import annotations

import pytest

from mallard.clock import Clock
from mallard.config import IngestConfig
from mallard.errors import RateLimited
from mallard.ingest import rate_limit
from mallard.ingest.rate_limit import RateLimit


class SetClock(Clock):
    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


def limit(rate: int, burst: int = 0) -> tuple[RateLimit, SetClock]:
    clock = SetClock()
    return RateLimit(IngestConfig(rate_limit_per_site=rate, rate_limit_burst=burst), clock), clock


def taken(limit: RateLimit, site: str, tries: int = 1000) -> int:
    for count in range(tries):
        try:
            limit.take({site: 1})
        except RateLimited:
            return count
    return tries


def test_without_a_rate_nothing_is_limited() -> None:
    assert taken(limit(0)[0], "a") == 1000


def test_a_bucket_holds_what_a_second_allows_and_refills() -> None:
    bucket, clock = limit(10)
    assert taken(bucket, "a") == 10
    clock.seconds += 0.3
    assert taken(bucket, "a") == 3
    clock.seconds += 60
    assert taken(bucket, "a") == 10


def test_a_burst_may_be_larger_or_smaller_than_the_rate() -> None:
    assert taken(limit(10, 50)[0], "a") == 50
    assert taken(limit(10, 1)[0], "a") == 1


def test_sites_do_not_share() -> None:
    bucket, _ = limit(5)
    assert taken(bucket, "a") == 5
    assert taken(bucket, "b") == 5


def test_the_wait_is_told_in_whole_seconds() -> None:
    bucket, _ = limit(1, 1)
    bucket.take({"a": 1})
    with pytest.raises(RateLimited) as caught:
        bucket.take({"a": 1})
    assert caught.value.retry_after_seconds == 1
    fast, _ = limit(1000)
    taken(fast, "a")
    with pytest.raises(RateLimited) as caught:
        fast.take({"a": 1})
    assert caught.value.retry_after_seconds == 1


def test_of_several_sites_all_pay_or_none() -> None:
    bucket, _ = limit(5)
    bucket.take({"a": 5})
    with pytest.raises(RateLimited):
        bucket.take({"b": 1, "a": 1})
    assert taken(bucket, "b") == 5


def test_a_batch_larger_than_the_bucket_passes_and_is_paid_for() -> None:
    bucket, clock = limit(10)
    bucket.take({"a": 100})
    clock.seconds += 9.05
    assert bucket.wait_seconds({"a": 1}) > 0
    clock.seconds += 0.1
    assert taken(bucket, "a") == 1
    clock.seconds += 0.5
    with pytest.raises(RateLimited):
        bucket.take({"a": 100})


def test_looking_takes_nothing() -> None:
    bucket, _ = limit(1)
    for _ in range(5):
        assert bucket.wait_seconds({"a": 1}) == 0
    bucket.take({"a": 1})
    assert bucket.wait_seconds({"a": 1}) == pytest.approx(1)


def test_made_up_sites_neither_fill_memory_nor_refill_a_bucket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limit, "SITES_MAX", 100)
    bucket, clock = limit(5)
    assert taken(bucket, "known") == 5
    passed = 0
    for number in range(1000):
        try:
            bucket.take({f"made-up-{number}": 1})
            passed += 1
        except RateLimited:
            pass
    assert len(bucket._full_at) <= 101
    assert passed < 110
    with pytest.raises(RateLimited):
        bucket.take({"known": 1})
    clock.seconds += 2
    assert taken(bucket, "newcomer") == 5
    assert len(bucket._full_at) <= 3
