from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from mallard.config import QueryConfig
from mallard.errors import Overloaded, QueryTimeout, QueryTooLarge
from mallard.query.engine import Engine, Kept, Session
from mallard.query.sql import Params, Sql

FOREVER = Sql("SELECT count(*) FROM range(1_000_000_000_000) a, range(1_000_000) b")


def engine(data: Path, **settings: object) -> Engine:
    return Engine(QueryConfig(**{"workers": 1, **settings}), data)  # type: ignore[arg-type]


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Engine]:
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


def test_what_is_kept_is_bounded_and_the_least_used_goes_first() -> None:
    table = pa.table({"n": list(range(1_000))})  # 8,000 bytes and what Python takes
    kept = Kept(20_000)
    kept.keep({"a": table, "b": table})
    assert kept.get("a") is table
    kept.keep({"c": table})
    assert kept.get("b") is None
    assert kept.get("a") is table
    assert kept.size_bytes <= 20_000
    kept.keep({"large": pa.table({"n": list(range(10_000))})})
    assert (kept.get("large"), kept.size_bytes) == (None, 0)
