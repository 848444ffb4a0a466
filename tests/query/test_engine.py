from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from mallard.config import QueryConfig
from mallard.errors import Overloaded, QueryTimeout, QueryTooLarge
from mallard.query import engine as query_engine
from mallard.query.engine import Engine, Session
from mallard.query.sql import Params, Sql

FOREVER = Sql("SELECT count(*) FROM range(1_000_000_000_000) a, range(1_000_000) b")


def engine(data: Path, **settings: object) -> Engine:
    return Engine(QueryConfig(**{"workers": 1, **settings}), data)  # type: ignore[arg-type]


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(query_engine, "SLOW_SECONDS", 3_600)
    made = engine(tmp_path, queue_max=3)
    yield made
    made.close()


def answer(session: Session) -> int:
    return int(session.rows(Sql("SELECT 42"))[0][0])


def test_it_gives_what_the_work_gives_and_raises_what_it_raises(one: Engine) -> None:
    p = Params()
    doubled = Sql(f"SELECT number * {p(2)} AS number FROM ")

    def work(session: Session) -> list[int]:
        taken = session.take(pa.table({"number": [1, 2]}))
        numbers: list[int] = session.table(Sql(doubled + taken), p)["number"].to_pylist()
        return numbers

    assert asyncio.run(one.run(work)) == [2, 4]
    with pytest.raises(ZeroDivisionError):
        asyncio.run(one.run(lambda _: 1 // 0))


@pytest.mark.parametrize(("seconds", "released"), [(0, 1), (3_600, 0)])
def test_what_a_long_question_left_to_the_allocator_is_given_back_by_its_own_thread(
    one: Engine, seconds: float, released: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    by: list[int] = []

    class Pool:
        def release_unused(self) -> None:
            by.append(threading.get_ident())

    monkeypatch.setattr(pa, "default_memory_pool", Pool)
    monkeypatch.setattr(query_engine, "RELEASE_SECONDS", seconds)
    thread = one.submit(lambda _: threading.get_ident()).result(30)
    assert by == [thread] * released


def test_a_slow_query_is_stopped_and_the_next_one_works(tmp_path: Path) -> None:
    made = engine(tmp_path, timeout_seconds=0.1)
    with pytest.raises(QueryTimeout, match=r"longer than 0\.1 seconds"):
        made.submit(lambda session: session.rows(FOREVER)).result(30)
    assert made.submit(answer).result(30) == 42
    made.close()


def test_a_query_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    made = engine(tmp_path, memory_bytes=64 * 1024 * 1024)
    hungry = Sql("SELECT list(md5(range::VARCHAR)) FROM range(20_000_000)")
    with pytest.raises(QueryTooLarge):
        made.submit(lambda session: session.rows(hungry)).result(60)
    made.close()


def test_what_does_not_fit_in_memory_spills_into_a_new_data_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    made = engine(data, memory_bytes=64 * 1024 * 1024)
    wide = Sql("SELECT count(*) FROM (SELECT DISTINCT md5(range::VARCHAR) FROM range(2_000_000))")
    assert made.submit(lambda session: session.rows(wide)).result(60) == [(2_000_000,)]
    made.close()
    assert not (data / "tmp" / "query").exists()


def test_a_query_that_would_spill_more_than_it_may_is_refused(tmp_path: Path) -> None:
    made = engine(tmp_path, memory_bytes=64 * 1024 * 1024, sql_spill_bytes=1024 * 1024)
    wide = Sql("SELECT md5(range::VARCHAR) AS text FROM range(2_000_000)")
    with pytest.raises(QueryTooLarge, match="ask for less of time, for fewer dimensions"):
        made.submit(lambda session: session.made(wide)).result(60)
    made.close()


def test_the_same_question_while_it_is_under_way_is_asked_once(one: Engine) -> None:
    begun, go_on = threading.Event(), threading.Event()
    asked: list[int] = []

    def slow(session: Session) -> int:
        asked.append(1)
        begun.set()
        go_on.wait(30)
        return answer(session)

    first = one.submit(slow, key="q")
    begun.wait(30)
    second = one.submit(slow, key="q")
    go_on.set()
    assert (first.result(30), second.result(30), len(asked)) == (42, 42, 1)
    assert one.submit(slow, key="q").result(30) == 42
    assert len(asked) == 2  # what is answered is not under way any more


def test_owners_are_served_in_turn_and_the_queue_is_bounded(one: Engine) -> None:
    begun, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def block(_: Session) -> None:
        begun.set()
        go_on.wait(30)

    one.submit(block)
    begun.wait(30)
    waiting = [
        one.submit(lambda _, name=name: order.append(name), owner=name[0])  # type: ignore[misc]
        for name in ("a1", "a2", "b1")
    ]
    with pytest.raises(Overloaded, match="Too many questions"):
        one.submit(block)
    go_on.set()
    for each in waiting:
        each.result(30)
    assert order == ["a1", "b1", "a2"]


def test_the_same_question_waits_once_and_is_not_asked_again_of_the_same_data(one: Engine) -> None:
    begun, go_on = threading.Event(), threading.Event()
    asked: list[str] = []

    def slow(session: Session) -> int:
        begun.set()
        go_on.wait(30)
        return answer(session)

    def ask(version: int, number: int = 0) -> Future[int]:
        def counted(session: Session) -> int:
            asked.append(f"{version}.{number}")
            return answer(session)

        return one.submit(counted, key="q", version=version)

    running = one.submit(slow, key="running", version=1)
    begun.wait(30)
    assert one.submit(answer, key="running", version=1) is running
    newer = one.submit(answer, key="running", version=2)  # the one under way may not see it
    waiting = [ask(1), ask(2)]  # what waits will see both
    go_on.set()
    assert [each.result(30) for each in (running, newer, *waiting)] == [42] * 4
    assert newer is not running
    assert waiting[0] is waiting[1]
    assert asked == ["1.0"]


def test_a_question_that_takes_long_leaves_room_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_engine, "SLOW_SECONDS", 0)
    made = engine(tmp_path)
    go_on = threading.Event()
    slow = made.submit(lambda _: go_on.wait(30))
    assert made.submit(answer).result(30) == 42
    go_on.set()
    assert slow.result(30) is True
    made.close()


async def test_a_question_that_nobody_waits_for_is_stopped_or_never_begun(one: Engine) -> None:
    begun = threading.Event()
    ended: list[str] = []

    def forever(session: Session) -> None:
        session.ends_with(lambda: ended.append("elsewhere"))
        begun.set()
        try:
            session.rows(FOREVER)
        finally:
            ended.append("here")

    running = asyncio.ensure_future(one.run(forever, key="q"))
    await asyncio.to_thread(begun.wait, 30)
    waiting = asyncio.ensure_future(one.run(lambda _: ended.append("never")))
    last = asyncio.ensure_future(one.run(answer))
    await asyncio.sleep(0)  # all three have asked
    assert (one.running, one.waiting) == (1, 2)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (one.running, one.waiting) == (1, 1)
    running.cancel()
    assert await last == 42
    assert one.running == 0
    assert ended[0] == "elsewhere"
    assert ended[-1] == "here"
    assert "never" not in ended


def test_a_question_that_was_stopped_between_two_statements_does_not_begin_the_next(
    one: Engine,
) -> None:
    def work(session: Session) -> None:
        session.stop()
        session.rows(FOREVER)

    with pytest.raises(duckdb.InterruptException):
        one.submit(work).result(30)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority elsewhere")
def test_threads_of_the_database_give_way_and_those_that_ask_do_not(tmp_path: Path) -> None:
    def niceness() -> dict[str, int]:
        tasks = Path("/proc/self/task").iterdir()
        return {task.name: os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in tasks}

    def own(_: Session) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    made = engine(tmp_path, threads=4)
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert made.submit(own).result(30) == ours
    new = [nice for name, nice in niceness().items() if name not in before]
    assert new.count(min(19, ours + query_engine.NICENESS)) >= 3
    made.close()


def test_one_who_goes_away_does_not_take_the_answer_from_the_others(one: Engine) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(session: Session) -> int:
        begun.set()
        go_on.wait(30)
        return answer(session)

    async def both() -> int:
        first = asyncio.ensure_future(one.run(slow, key="q"))
        await asyncio.to_thread(begun.wait, 30)
        second = asyncio.ensure_future(one.run(slow, key="q"))
        await asyncio.sleep(0)
        first.cancel()
        go_on.set()
        return await second

    assert asyncio.run(both()) == 42


def test_closing_answers_who_waits_and_refuses_who_comes(tmp_path: Path) -> None:
    made = engine(tmp_path)
    waiting = [made.submit(answer) for _ in range(3)]
    made.close()
    assert [each.result(0) for each in waiting] == [42] * 3
    with pytest.raises(Overloaded, match="shutting down"):
        made.submit(answer)
    assert not (tmp_path / "tmp" / "query").exists()
