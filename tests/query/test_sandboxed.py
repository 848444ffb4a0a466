"""The second wall: SQL that got past the first one finds files and settings out of its reach."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mallard.query import sandboxed
from mallard.query.confined import confine
from mallard.query.forms import Form
from mallard.query.permitted import Permission
from mallard.query.sandboxed import Limits, Task, run
from mallard.query.sql import Sql
from mallard.query.tail import view_of
from tests.stored import A, B, Stored, date

MIB = 1024 * 1024


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    made = Stored(tmp_path / "data", day=10)
    made.flush(0, A, B, A)
    made.settle()
    made.flush(0, A, B)
    yield made
    made.close()


def ask(stored: Stored, sql: str, *, sites: frozenset[str] | None = None) -> dict[str, Any]:
    """What comes of SQL, with its rows where there are any."""
    reading = confine(view_of([]), stored.store.snapshot(), sites, stored.store.source)
    limits = Limits(128 * MIB, 1, 10, str(stored.data / "spill"), 64 * MIB)
    output = io.BytesIO()
    result = run(Task(reading, (sql,), Form.JSON, limits, True, 1_000), output)
    if "error" not in result:
        result["found"] = json.loads(output.getvalue())
    return result


@pytest.fixture
def no_first_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Permission, "check", lambda _, text: Sql(text))


def test_views_and_macros_say_what_is_stored(stored: Stored) -> None:
    found = ask(stored, "SELECT site_id, count(*) AS n FROM events GROUP BY ALL ORDER BY ALL")
    assert found == {
        "rows": 2,
        "columns": [{"name": "site_id", "type": "VARCHAR"}, {"name": "n", "type": "BIGINT"}],
        "found": [{"site_id": A, "n": 3}, {"site_id": B, "n": 2}],
    }
    mine = ask(stored, "SELECT DISTINCT site_id FROM sessions", sites=frozenset({A}))
    assert mine["found"] == [{"site_id": A}]
    totals = f"SELECT pageviews FROM totals('{A}', '{date(0)}', '{date(1)}')"
    assert ask(stored, totals)["found"] == [{"pageviews": 3}]
    others = f"SELECT pageviews FROM totals('{B}', '{date(0)}', '{date(1)}')"
    assert ask(stored, others, sites=frozenset({A}))["found"] == [{"pageviews": 0}]


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_csv('/etc/passwd')",
        "FROM read_text('/etc/passwd')",
        "FROM read_blob('/etc/hostname')",
        "FROM '/etc/passwd'",
        "FROM glob('/etc/*')",
        "FROM glob('{data}/**')",
        "FROM read_parquet('{data}/events/**/*.parquet')",
        "FROM read_parquet('{other}')",
        "FROM '{other}'",
        "FROM parquet_metadata('{other}')",
        "FROM read_parquet('{mixed}')",
        "FROM read_blob('{data}/mallard.db')",
        "FROM read_duckdb('{data}/mallard.db')",
        "FROM (COPY (FROM events) TO '{data}/out.csv')",
        "FROM query('FROM read_csv(''/etc/passwd'')')",
        "FROM query_table('/etc/passwd')",
        "SELECT json_serialize_plan('FROM read_csv(''/etc/passwd'')')->>'x' AS x",
        "FROM frames",
        "FROM task",
    ],
)
def test_no_file_is_read_but_those_of_the_sites(
    stored: Stored, no_first_wall: None, sql: str
) -> None:
    snapshot = stored.store.snapshot()
    (other,) = snapshot.days[B, date(0)].parts
    text = sql.format(
        data=stored.data,
        other=stored.store.source(other),
        mixed=stored.store.source(snapshot.recent[0]),
    )
    found = ask(stored, text, sites=frozenset({A}))
    assert found.get("found", [{"x": None}]) == [{"x": None}]
    assert not (stored.data / "out.csv").exists()
    assert "root:" not in json.dumps(found)


@pytest.mark.parametrize(
    "sql",
    [
        "SET memory_limit = '100GB'",
        "RESET enable_external_access",
        "SET enable_external_access = true",
        "SET allowed_paths = ['/etc/passwd']",
        "SET lock_configuration = false",
        "LOAD httpfs",
        "INSTALL httpfs",
        "ATTACH '{data}/mallard.db' AS d",
        "ATTACH '{data}/new.duckdb' AS d",
        "COPY events TO '{data}/out.csv'",
        "EXPORT DATABASE '{data}/out'",
        "CALL enable_logging()",
    ],
)
def test_settings_are_locked_and_nothing_is_written(
    stored: Stored, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(path for path in stored.data.rglob("*"))
    said: list[str] = []

    def try_it(connection: Any, *_: Any) -> None:
        sandboxed_lock(connection, *_)
        try:
            connection.execute(sql.format(data=stored.data))
        except duckdb.Error as error:
            said.append(str(error))

    sandboxed_lock = sandboxed._lock
    monkeypatch.setattr(sandboxed, "_lock", try_it)
    assert ask(stored, "SELECT count(*) AS n FROM events")["found"] == [{"n": 5}]
    assert re.search("locked|disabled", said[0])
    assert sorted(path for path in stored.data.rglob("*")) == before


def test_an_error_does_not_tell_of_rows_that_may_not_be_seen(stored: Stored) -> None:
    """A condition may be worked out before that of a view, and its error says of what."""
    told = ask(stored, "FROM events WHERE site_id::INTEGER = 1", sites=frozenset({A}))
    assert told["error"] == "invalid"
    assert A in told["detail"]
    assert B not in told["detail"]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"PAR1 no more")])
@pytest.mark.parametrize("sites", [None, frozenset({A})])
def test_a_file_that_cannot_be_read_is_no_mistake_of_the_askers(
    stored: Stored, harm: Callable[[Path], object], sites: frozenset[str] | None
) -> None:
    snapshot = stored.store.snapshot()
    for part in snapshot.parts:
        harm(stored.data / part.location)
    told = ask(stored, "FROM events", sites=sites)
    assert told["error"] == "failed"  # what it says beyond that is for the log
    assert any(part.location in told["detail"] for part in snapshot.parts)


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT no_such FROM events", "invalid"),
        ("SELECT 'x'::INTEGER", "invalid"),
        ("SELECT sum(1) WHERE error('mine')", "invalid"),
        ("FROM range(1001)", "rows"),
        ("SELECT string_agg(range::VARCHAR) FROM range(100000000)", "memory"),
    ],
)
def test_what_fails_says_how(stored: Stored, sql: str, error: str) -> None:
    assert ask(stored, sql).get("error") == error


def test_an_answer_may_have_just_as_many_rows_as_are_allowed(stored: Stored) -> None:
    assert ask(stored, "FROM range(1000)")["rows"] == 1_000


def test_a_number_that_json_does_not_know_is_null(stored: Stored) -> None:
    found = ask(stored, "SELECT 'nan'::DOUBLE AS x, ['inf'::DOUBLE, 1] AS y, 'NaN' AS z")["found"]
    assert found == [{"x": None, "y": [None, 1.0], "z": "NaN"}]
