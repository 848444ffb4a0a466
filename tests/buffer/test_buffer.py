from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from typing import Any

import pytest

from mallard.buffer import buffer as buffer_module
from mallard.buffer import commit as commit_module
from mallard.buffer.commit import Receipt
from mallard.buffer.wal import LogReport, read_log
from mallard.errors import Overloaded
from mallard.event import Frame
from mallard.files import Files
from tests.buffer.rig import NODE, Rigs, names, until_true
from tests.factories import make_event


async def test_an_event_is_in_the_log_and_in_the_ring_when_its_append_returns(rigs: Rigs) -> None:
    rig = rigs()
    receipt = await rig.buffer.append([make_event()])
    assert receipt == Receipt(1, 1_000)
    assert rig.logged() == [Frame(1, 1_000, NODE, (make_event(),))]
    assert rig.buffer.tail() == tuple(rig.logged())
    assert rig.commits == 1
    assert rig.buffer.ring.events == 1
    assert rig.buffer.ring.size_bytes == sum(rig.files.writes)


async def test_concurrent_appends_get_neighbouring_positions_in_the_order_of_the_log(
    rigs: Rigs,
) -> None:
    rig = rigs(segment_bytes=4_000)
    requests = [[make_event(event_name=str(number))] * (1 + number % 4) for number in range(300)]
    receipts = await asyncio.gather(*map(rig.buffer.append, requests))
    starts, written, position = set(), [], 1
    for receipt, events in sorted(zip(receipts, requests, strict=True), key=lambda pair: pair[0]):
        assert receipt.first_position == position
        starts.add(position)
        written += [event.event_name for event in events]
        position += len(events)
    logged = rig.logged()
    assert names(logged) == written
    assert {frame.first_position for frame in logged} <= starts  # no request is torn in two
    assert tuple(logged) == rig.buffer.tail()
    assert rig.files.syncs < 300  # many who wait share one sync


async def test_a_batch_is_one_frame_and_one_write(rigs: Rigs) -> None:
    rig = rigs()
    await rig.buffer.append([make_event(event_name=str(n)) for n in range(50)])
    (frame,) = rig.logged()
    assert len(frame.events) == 50
    assert len(rig.files.writes) == 1


async def test_requests_of_one_instant_share_frames_of_bounded_size(rigs: Rigs) -> None:
    rig = rigs()
    times = [1_000] * 40 + [2_000] * 2
    rig.clock.us = 2_000
    sent = [rig.buffer.append([make_event(timestamp=us)]) for us in times]
    batch = rig.buffer.append([make_event(timestamp=2_000)] * 50)
    receipts = await asyncio.gather(*sent, batch)
    assert [receipt.loaded_at for receipt in receipts] == [*times, 2_000]
    shape = [(frame.loaded_at, frame.rows) for frame in rig.logged()]
    assert shape == [(1_000, 32), (1_000, 8), (2_000, 2), (2_000, 50)]


async def test_a_full_ring_refuses_and_stores_nothing_until_there_is_room(rigs: Rigs) -> None:
    rig = rigs(capacity_events=3)
    await rig.buffer.append([make_event()] * 2)
    with pytest.raises(Overloaded) as refused:
        await rig.buffer.append([make_event()] * 2)
    assert refused.value.retry_after_seconds >= 1
    assert rig.telemetry.failures["ring_full"] == 1
    assert len(rig.logged()) == 1
    rig.buffer.release(2)
    assert (await rig.buffer.append([make_event()] * 2)).first_position == 3


async def test_what_waits_for_the_disk_takes_room_too(rigs: Rigs) -> None:
    rig = rigs(capacity_events=2)
    waiting = await rig.held_up()
    second = asyncio.ensure_future(rig.buffer.append([make_event()]))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await rig.buffer.append([make_event()])
    rig.files.go.set()
    assert [(await f).first_position for f in (waiting, second)] == [1, 2]


@pytest.mark.parametrize("step", ["write", "sync"])
@pytest.mark.parametrize("writer", ["MainThread", "mallard-log"])
async def test_when_the_disk_fails_all_who_wait_are_refused_and_no_number_is_given_away(
    step: str, writer: str, rigs: Rigs
) -> None:
    rig = rigs(capacity_events=10)
    await rig.quick()
    if writer == "mallard-log":
        rig.clock.seconds = 99.0  # before the loop may write
    rig.files.fail = {step}
    results = await asyncio.gather(
        *(rig.buffer.append([make_event(event_name="refused")] * 2) for _ in range(4)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [Overloaded] * 4
    assert rig.telemetry.failures["append"] >= 1
    assert rig.buffer.failure
    assert names(rig.buffer.tail()) == ["before"]
    rig.files.fail = set()
    assert rig.files.writers[1] == writer
    # All the room that was reserved is free again, and the next number is the next.
    receipt = await rig.buffer.append([make_event(event_name="after")] * 9)
    assert receipt.first_position == 2
    assert names(rig.logged()) == ["before"] + ["after"] * 9
    assert rig.buffer.failure is None


@pytest.mark.parametrize("durability", ["fsync", "memory"])
async def test_a_failed_log_is_found_to_work_again_without_any_request(
    durability: str, rigs: Rigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer_module, "PROBE_SECONDS", 0.01)
    rig = rigs(durability=durability)
    rig.files.fail = {"write"}
    await asyncio.gather(rig.buffer.append([make_event()]), return_exceptions=True)
    await until_true(lambda: bool(rig.buffer.failure), "the failure shows")
    with pytest.raises(Overloaded, match="No space left"):
        await rig.buffer.append([make_event()])
    rig.files.fail = set()
    await until_true(lambda: rig.buffer.failure is None, "the probe clears the failure")
    await rig.buffer.append([make_event(event_name="after")])
    assert names(rig.buffer.tail())[-1] == "after"


async def test_a_nearly_full_disk_refuses_before_it_is_full(rigs: Rigs) -> None:
    rig = rigs(free_bytes_min=1_000)
    rig.files.free = 999
    with pytest.raises(Overloaded, match="nearly full"):
        await rig.buffer.append([make_event()])
    assert rig.files.writes == []
    rig.files.free = 1_000
    assert (await rig.buffer.append([make_event()])).first_position == 1


@pytest.mark.parametrize(
    "values",
    [
        {"url": "\ud800"},
        {"screen_width": 2**31},
        {"visitor_id": 2**63},
        {"revenue_amount": Decimal("1.001")},
        {"revenue_amount": Decimal("9E+999999999")},
    ],
    ids=str,
)
async def test_an_event_that_cannot_be_written_fails_alone(
    values: dict[str, Any], rigs: Rigs
) -> None:
    rig = rigs(capacity_events=4)
    waiting = await rig.held_up()
    group = [
        asyncio.ensure_future(rig.buffer.append([event]))
        for event in (make_event(), make_event(**values), make_event())
    ]
    await asyncio.sleep(0)
    rig.files.go.set()
    results = await asyncio.gather(waiting, *group, return_exceptions=True)
    assert isinstance(results[2], TypeError | ValueError)
    assert [r.first_position for r in results if isinstance(r, Receipt)] == [1, 2, 3]
    assert len(rig.files.writes) == 2  # the three were one group
    assert rig.buffer.failure is None
    await rig.buffer.append([make_event()])  # its room is free again


async def test_loaded_at_never_goes_back_when_the_clock_does(rigs: Rigs) -> None:
    rig = rigs()
    assert (await rig.buffer.append([make_event()])).loaded_at == 1_000
    rig.clock.us = 400
    assert (await rig.buffer.append([make_event()])).loaded_at == 1_000
    rig.buffer.close()
    rig.start()
    assert (await rig.buffer.append([make_event()])).loaded_at == 1_000
    rig.buffer.close()
    rig.start(watermark=3, loaded_at=5_000)
    assert (await rig.buffer.append([make_event()])).loaded_at == 5_000


async def test_what_is_committed_at_once_is_loaded_when_it_was_received(rigs: Rigs) -> None:
    rig = rigs()
    rig.clock.us = 10_004_700
    at_once, late = make_event(timestamp=10_001_000), make_event(timestamp=9_999_000)
    assert (await rig.buffer.append([at_once])).loaded_at == 10_001_000
    assert (await rig.buffer.append([late])).loaded_at == 10_004_000
    backfilled = make_event(timestamp=5_000, received_at=10_003_000)
    assert (await rig.buffer.append([backfilled])).loaded_at == 10_004_000  # never back


async def test_a_client_that_goes_away_takes_nobody_along(rigs: Rigs) -> None:
    rig = rigs()
    waiting = await rig.held_up()
    gone = asyncio.ensure_future(rig.buffer.append([make_event(event_name="gone")]))
    stays = asyncio.ensure_future(rig.buffer.append([make_event(event_name="stays")]))
    await asyncio.sleep(0)
    gone.cancel()
    rig.files.go.set()
    assert (await waiting).first_position == 1
    assert (await stays).first_position == 3
    assert names(rig.logged()) == ["first", "gone", "stays"]
    with pytest.raises(asyncio.CancelledError):
        await gone


@pytest.mark.parametrize(("durability", "synced"), [("fsync", True), ("os", False)])
async def test_only_fsync_durability_syncs_what_is_written(
    durability: str, synced: bool, rigs: Rigs
) -> None:
    rig = rigs(durability=durability)
    await rig.buffer.append([make_event()])
    assert (rig.files.syncs > 0) is synced
    assert names(rig.logged()) == ["pageview"]


async def test_memory_durability_answers_before_the_write_and_writes_all_the_same(
    rigs: Rigs,
) -> None:
    rig = rigs(durability="memory")
    waiting = await rig.held_up()
    assert (await waiting).first_position == 1  # while its write is held up
    assert names(rig.buffer.tail()) == ["first"]
    rig.files.go.set()
    await rig.buffer.append([make_event()])
    rig.buffer.close()
    assert names(rig.logged()) == ["first", "pageview"]
    assert rig.files.syncs == 0


async def test_a_restart_takes_back_what_parts_do_not_hold_and_goes_on_counting(
    rigs: Rigs,
) -> None:
    rig = rigs()
    for name in ("a", "b", "c"):
        await rig.buffer.append([make_event(event_name=name)])
    held = rig.buffer.ring.size_bytes
    rig.buffer.close()
    report = rig.start(watermark=0)
    assert rig.buffer.ring.size_bytes == held
    assert report.events == 3
    rig.buffer.close()
    rig.start(watermark=2)
    assert names(rig.buffer.tail()) == ["c"]
    assert (await rig.buffer.append([make_event()])).first_position == 4


async def test_a_restart_after_a_trimmed_log_goes_on_after_the_watermark(rigs: Rigs) -> None:
    rig = rigs()
    await rig.buffer.append([make_event()] * 5)
    rig.buffer.close()
    rig.buffer.release(5)
    assert rig.logged() == []
    rig.start(watermark=5)
    assert (await rig.buffer.append([make_event()])).first_position == 6


async def test_closing_settles_all_who_wait_and_refuses_those_who_come_later(rigs: Rigs) -> None:
    rig = rigs()
    waiting = [await rig.held_up()]
    waiting += [asyncio.ensure_future(rig.buffer.append([make_event()])) for _ in range(20)]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(asyncio.to_thread(rig.buffer.close))
    rig.files.go.set()
    assert [(await each).first_position for each in waiting] == list(range(1, 22))
    await closing
    with pytest.raises(Overloaded, match="shutting down"):
        await rig.buffer.append([make_event()])
    rig.buffer.close()  # a second time does nothing
    assert len(names(rig.logged())) == 21


async def test_appends_that_race_with_closing_are_stored_or_refused_and_never_left_waiting(
    rigs: Rigs,
) -> None:
    for _ in range(20):
        rig = rigs(durability="os")
        before = len(rig.logged())
        closing = threading.Thread(target=rig.buffer.close)
        waiting = [asyncio.ensure_future(rig.buffer.append([make_event()])) for _ in range(5)]
        closing.start()
        for _ in range(5):
            await asyncio.sleep(0)
            waiting.append(asyncio.ensure_future(rig.buffer.append([make_event()])))
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 30)
        closing.join()
        stored = [result for result in results if isinstance(result, Receipt)]
        assert all(isinstance(result, Receipt | Overloaded) for result in results)
        assert len(rig.logged()) - before == len(stored)


async def test_a_release_removes_the_segments_that_parts_cover(rigs: Rigs) -> None:
    rig = rigs(segment_bytes=1)
    for _ in range(4):
        await rig.buffer.append([make_event()])
    rig.buffer.release(3)
    await until_true(lambda: rig.buffer.wal.segment_count == 1, "three segments are trimmed")
    assert [frame.first_position for frame in rig.buffer.tail()] == [4]
    report = LogReport()
    (frame,) = read_log(rig.data / "wal", Files(), 3, report)
    assert frame.first_position == 4


async def test_an_inner_fault_is_answered_and_costs_no_room(
    rigs: Rigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = rigs(capacity_events=1)

    def fault(frame: Frame) -> bytes:
        raise RuntimeError("a mistake of ours")

    with monkeypatch.context() as broken:
        broken.setattr(commit_module, "encode", fault)
        with pytest.raises(RuntimeError, match="mistake"):
            await rig.buffer.append([make_event()])
    assert (await rig.buffer.append([make_event()])).first_position == 1


async def test_an_append_of_nothing_is_our_own_mistake(rigs: Rigs) -> None:
    with pytest.raises(AssertionError):
        await rigs().buffer.append([])
