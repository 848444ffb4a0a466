"""`mallard.open` in a process of its own, beside a server that flushes and compacts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mallard
from mallard.errors import InvalidInput, StorageError
from tests.stored import A, B, Stored


def test_each_query_sees_what_is_stored_then(tmp_path: Path) -> None:
    stored = Stored(tmp_path, day=10)
    stored.flush(0, A, B, A)
    with mallard.open(tmp_path) as book:
        sql = "SELECT count(*) AS n, sum(position)::BIGINT AS s FROM events"
        for number in range(2, 12):
            found = book.sql(sql)
            rows = 3 * (number - 1)
            assert found.fetchall() == [(rows, rows * (rows + 1) // 2)]
            stored.flush(0, A, B, A)
            stored.settle()
        assert book.sql("SELECT $x AS x", {"x": "a"}).arrow().to_pylist() == [{"x": "a"}]
        assert len(book.sql("FROM sessions")) == len(book.sql("FROM sessions").fetchall())
        assert book.sql("SELECT 1 AS one").columns == ["one"]
        assert "one" in repr(book.sql("SELECT 1 AS one"))
        with pytest.raises(InvalidInput, match="no_such"):
            book.sql("SELECT no_such FROM events")
        assert book.sql("SELECT 1").fetchone() == (1,)
        nothing = book.sql("")
        assert (nothing.fetchall(), nothing.fetchone(), repr(nothing)) == ([], None, "nothing")
    stored.close()


def test_what_is_no_data_folder_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        mallard.open(tmp_path)


def test_importing_mallard_loads_nothing_of_it() -> None:
    program = "import mallard, sys; assert 'duckdb' not in sys.modules, 'loaded'"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
