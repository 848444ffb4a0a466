from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from rich.console import Console

from mallard.cli import bench
from mallard.cli.benchmark import processes, store_rows, traffic
from mallard.cli.benchmark.rates import Setting
from mallard.cli.benchmark.rows import Pairs, Row, Target
from mallard.ingest.bots import Bots
from mallard.ingest.payload import batch_from_json, from_json
from tests.end_to_end.server import run

_SIZES = [
    "stored bytes an event",
    "of its part a filter reads",
    "its visits",
    "compaction of that site-day",
    "growth of the process meanwhile",
]
WHAT = [
    "single POST, fsync and enrichment",
    "bare ASGI",
    "batches of 1,000",
    'durability "fsync" against "memory"',
    'durability "fsync" against "os"',
    "processor time",
    "idle after the start",
    "after the single POSTs",
    "after the batches",
    "p99 acknowledgement at half of the top rate",
    "flush of 1,000 events over 300 sites",
    "start after kill -9 with 1,500 events",
    "process start to first 202",
    "tracker with every automatic feature",
    "tracker with pageviews",
    *_SIZES,
    *_SIZES,
    *_SIZES,
    "flush of 1,000 events beside 20 site-days against 2",
    "start with 20 parts",
]


def test_a_short_run_measures_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_rows, "DAY_EVENTS", 5_000)
    monkeypatch.setattr(store_rows, "MIDDLE_DAY_EVENTS", 5_500)
    monkeypatch.setattr(store_rows, "LARGE_DAY_EVENTS", 6_000)
    setting = Setting(tmp_path, processes.Cores(), seconds=0.2, rounds=1)
    rows = bench.measure(setting, events=1500, site_days=20, say=lambda what: None)
    for row, what in zip(rows, WHAT, strict=True):
        assert what in row.what
        assert row.value > 0, row
        assert row.sound, row
    by_what = dict(zip(WHAT, rows, strict=True))
    assert "visitor_id" in by_what["stored bytes an event"].measured
    assert "0 lost, 0 doubled" in by_what["start after kill -9 with 1,500 events"].measured


def test_it_prints_each_row_with_its_target_and_whether_it_is_met(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fast = Row("speed", "12/s : 10/s", 1.2, Target(0.6, " x", at_least=True))
    slow = Row("start", "3 s", 3.0, Target(2, " s"))
    Console(width=100).print(bench.table_of([fast, slow]))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["speed", "12/s", ":", "10/s", "1.20", "x", ">=", "0.6", "x", "yes"] in lines
    assert ["start", "3", "s", "3.00", "s", "<", "2", "s", "NO"] in lines


def test_an_event_that_is_lost_or_doubled_is_no_question_of_speed() -> None:
    assert Row("start", "1 lost", 0.1, Target(2, " s"), sound=False).met is False


def test_a_ratio_is_the_median_of_pairs_so_one_bad_moment_does_not_count() -> None:
    pairs = Pairs([10, 10, 1], [20, 20, 20])
    assert pairs.ratio == 0.5
    assert pairs.spread == "0.05 to 0.50"


def test_the_load_is_of_people_with_many_pages_referrers_and_agents() -> None:
    requests = traffic.single_requests(8000)
    assert requests == traffic.single_requests(8000)
    bots = Bots()
    agents = set[str]()
    for request in requests:
        head, _, body = request.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        assert int(headers["Content-Length"]) == len(body)
        assert bots.reason(headers["User-Agent"]) is None
        agents.add(headers["User-Agent"])
    raws = [from_json(request.partition(b"\r\n\r\n")[2]) for request in requests]
    assert len(agents) > 50
    assert len({raw.sites for raw in raws}) == traffic.SITES
    assert len({raw.url for raw in raws}) > 1_000
    assert len({raw.referrer for raw in raws}) > 100
    assert any(raw.props for raw in raws)
    assert any(raw.revenue_amount for raw in raws)


def test_a_batch_holds_as_many_events_as_it_says() -> None:
    body = traffic.batch_requests(8000)[0].partition(b"\r\n\r\n")[2]
    assert len(batch_from_json(body)) == traffic.BATCH_EVENTS


def test_processes_run_on_the_cores_they_are_given_and_ours_come_back() -> None:
    cores = processes.Cores()
    with processes.running_on(cores.client):
        assert processes.Cores().all == cores.client
    assert processes.Cores().all == cores.all


def test_a_folder_that_is_not_there_is_refused() -> None:
    done = run("bench", "--data-root", "/nowhere/at/all")
    assert done.returncode == 2
    assert "--data-root" in done.stderr


def test_after_some_events_each_visitor_leaves_for_another() -> None:
    requests = traffic.single_requests(8000)[:3]
    sent = list(itertools.islice(traffic.of_others(requests, 2), 18))
    for first in (0, 6, 12):
        assert sent[first : first + 3] == sent[first + 3 : first + 6]
    assert len(set(sent)) == 9
    assert {request.partition(b"\r\n\r\n")[2] for request in sent} == {
        request.partition(b"\r\n\r\n")[2] for request in requests
    }
