"""The third wall: a process that takes too much ends, and nothing else does."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mallard.config import QueryConfig
from mallard.errors import InvalidInput, MallardError, QueryTimeout, QueryTooLarge
from mallard.query.forms import Form
from mallard.query.sandbox import SPILLED, Sandbox
from mallard.query.tail import Tail, TailView, view_of
from tests.query.noisy import Noisy
from tests.stored import A, B, Stored

MIB = 1024 * 1024
CONFIG = QueryConfig(
    threads=1,
    timeout_seconds=5.0,
    sql_memory_bytes=64 * MIB,
    sql_spill_bytes=8 * MIB,
    sql_bytes_max=MIB,
    sql_rows_max=5_000,
)


class Empty:
    """Stands for a tail without events."""

    def view(self) -> TailView:
        return view_of([])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    made = Stored(tmp_path_factory.mktemp("data"), day=10)
    made.flush(0, A, B, A)
    yield made
    made.close()


@pytest.fixture(scope="module")
def sandbox(stored: Stored) -> Iterator[Sandbox]:
    made = Sandbox(CONFIG, stored.data, stored.store, cast(Tail, Empty()))
    yield made
    made.close()
    assert psutil.Process().children() == []
    assert list((stored.data / SPILLED).iterdir()) == []


def test_every_form_reads_back_as_the_same_rows(sandbox: Sandbox) -> None:
    sql = "SELECT position, pathname, [position] AS l FROM events ORDER BY position"
    rows = [(1, "/1", [1]), (3, "/3", [3])]
    found = {form: sandbox.ask(sql, form, frozenset({A})) for form in Form}
    objects = [dict(zip(("position", "pathname", "l"), row, strict=True)) for row in rows]
    assert json.loads(found[Form.JSON].content) == objects
    lines = found[Form.NDJSON].content.splitlines()
    assert [json.loads(line) for line in lines] == objects
    text = csv.reader(io.StringIO(found[Form.CSV].content.decode()))
    assert list(text) == [["position", "pathname", "l"], *([str(x) for x in r] for r in rows)]
    parquet = pq.read_table(io.BytesIO(found[Form.PARQUET].content))
    assert parquet.to_pylist() == objects
    with pa.ipc.open_stream(found[Form.ARROW].content) as stream:
        assert stream.read_all().to_pylist() == objects
    assert {each.rows for each in found.values()} == {2}


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT length(repeat('x', 3000000000))", QueryTooLarge),
        ("SELECT list(range) FROM range(1000000000)", QueryTooLarge),
        ("SELECT repeat('x', 2000000)", QueryTooLarge),
        # It may have some of the disk, but not so much.
        (
            "SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY md5(range::VARCHAR)) AS n "
            "FROM range(2000000))",
            QueryTooLarge,
        ),
        ("FROM range(5001)", QueryTooLarge),
        ("SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))", QueryTimeout),
        ("SELECT count(*) FROM range(1000000000000)", QueryTimeout),
        ("SELECT count(*) FROM range(1000000) a, range(1000000) b, range(9) c", QueryTimeout),
        (
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
            QueryTimeout,
        ),
        ("SELECT no_such FROM events", InvalidInput),
    ],
)
def test_what_takes_too_much_ends_and_the_next_is_answered(
    sandbox: Sandbox, sql: str, kind: type[MallardError]
) -> None:
    before = psutil.Process().memory_info().rss
    with pytest.raises(kind):
        sandbox.ask(sql, Form.JSON, None)
    assert psutil.Process().memory_info().rss - before < 64 * MIB
    assert sandbox.ask("SELECT 1 AS x", Form.JSON, None).content == b'[{"x":1}]'


def test_a_process_has_nothing_of_the_servers_environment(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLARD_SECRET", "a secret of the server's")
    sandbox.ask("SELECT 1", Form.JSON, None)  # uses up the one that waited
    sandbox.ask("SELECT 1", Form.JSON, None)
    (waiting,) = psutil.Process().children()
    assert "MALLARD_SECRET" not in waiting.environ()
    assert os.environ["MALLARD_SECRET"]


def test_a_damaged_file_is_not_told_of_but_counted(tmp_path: Path) -> None:
    made = Stored(tmp_path, day=10)
    made.flush(0, A)
    sandbox = Sandbox(CONFIG, made.data, made.store, cast(Tail, Empty()))
    with pytest.raises(InvalidInput):
        sandbox.ask("FROM no_such", Form.JSON, None)
    assert sandbox.failures == 0
    (part,) = made.store.snapshot().parts
    (made.data / part.location).write_bytes(b"PAR1 no more")
    with pytest.raises(MallardError) as told:
        sandbox.ask("FROM events", Form.JSON, None)
    assert (told.value.detail, sandbox.failures) == ("", 1)
    sandbox.close()
    made.close()


def test_nothing_but_rows_is_among_the_rows(sandbox: Sandbox) -> None:
    query = sandbox.begin(Noisy, 10)
    content = b"".join(iter(query.read, b""))
    assert (content, query.finish()["rows"]) == (b"first\nsecond\n", 2)


def test_one_that_waited_too_long_is_replaced(sandbox: Sandbox) -> None:
    sandbox.ask("SELECT 1", Form.JSON, None)
    (waiting,) = psutil.Process().children()
    waiting.kill()
    waiting.wait()
    assert sandbox.ask("SELECT 2 AS x", Form.JSON, None).content == b'[{"x":2}]'
