from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mallard.cli.shell import shell
from mallard.clock import to_datetime
from mallard.errors import InvalidInput, StorageError
from mallard.query.events import show_folder
from tests.stored import A, B, Stored

NAMES = "SELECT event_name FROM events ORDER BY position"


def talk(data: Path, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    shell(data, None, "csv")


def test_a_statement_sees_parquet_and_the_logs_tail(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell(data, NAMES, "csv")
    assert capsys.readouterr().out == "event_name\nin parquet\nin the log\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a class for idle time")
def test_it_takes_the_time_that_a_server_on_the_same_machine_leaves(
    data: Path, asked_to_be_idle: list[int]
) -> None:
    shell(data, "SELECT 1", "csv")
    assert asked_to_be_idle == [os.SCHED_IDLE]


class Told(io.StringIO):
    """Notes that something is written, once in a row."""

    def __init__(self, did: list[str]) -> None:
        super().__init__()
        self.did = did

    def write(self, text: str) -> int:
        if self.did[-1] != "writes":
            self.did.append("writes")
        return super().write(text)


@pytest.mark.parametrize("form", ["table", "csv"])
@pytest.mark.parametrize("fails", [False, True])
def test_it_pauses_while_it_reads_and_not_while_it_looks_or_writes(
    form: str, fails: bool, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []

    @contextmanager
    def pausing() -> Iterator[None]:
        did.append("pauses")
        try:
            yield
        finally:
            did.append("done")

    def look(connection: duckdb.DuckDBPyConnection, data: Path, as_of: int | None) -> bool:
        if did and fails:
            away.rename(recent)
        found = show_folder(connection, data, as_of)
        if fails and not did:
            recent.rename(away)
        did.append("looks")
        return found

    recent, away = data / "recent", data / "away"
    monkeypatch.setattr("mallard.cli.shell.pausing", pausing)
    monkeypatch.setattr("mallard.cli.shell.show_folder", look)
    monkeypatch.setattr("sys.stdout", Told(did))
    shell(data, NAMES, form)
    again = ["looks", "pauses", "done"]
    assert did == [
        *again,
        *(again if fails else []),
        "writes",
        *(["pauses", "done"] if form == "csv" else []),
    ]


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (8, 7)])
def test_it_leaves_a_core_to_the_server(
    cores: int,
    threads: int,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mallard.query.events.cores", lambda: cores)
    shell(data, "SELECT current_setting('threads') AS threads", "csv")
    assert capsys.readouterr().out == f"threads\n{threads}\n"


def test_a_table_shows_names_types_and_values(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell(
        data, "SELECT json_extract_string(props, '$.plan') AS plan, 1 AS one FROM events", "table"
    )
    shown = capsys.readouterr().out
    for text in ("plan", "varchar", "pro", "NULL", "one", "int32"):
        assert text in shown


def test_several_statements_run_in_turn(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shell(data, "SELECT 1 AS a; SELECT ';' AS b;", "csv")
    assert capsys.readouterr().out == "a\n1\nb\n;\n"


def test_wrong_sql_is_refused_with_the_databases_words(data: Path) -> None:
    with pytest.raises(InvalidInput, match="no_such_column"):
        shell(data, "SELECT no_such_column FROM events", "csv")


def test_what_is_no_data_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not a Mallard data folder"):
        shell(tmp_path, "SELECT 1", "csv")


def test_typed_statements_end_with_a_semicolon_over_any_number_of_lines(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(data, "SELECT\n1 AS a\n;\nSELECT 2 AS b", monkeypatch)
    assert capsys.readouterr().out == "a\n1\nb\n2\n"


def test_a_mistake_is_told_and_the_talk_goes_on(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(data, "SELEC 1;\nSELECT 2 AS b;\n", monkeypatch)
    said = capsys.readouterr()
    assert "SELEC" in said.err
    assert said.out == "b\n2\n"


def test_dot_words_help_list_and_leave(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(data, ".tables\n.help\n.quit\nSELECT 1;\n", monkeypatch)
    said = capsys.readouterr().out
    assert said.startswith("name\nevents\n")
    assert ".quit  leave" in said
    assert "1\n" not in said


def test_a_talk_sees_what_was_stored_meanwhile(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    segment = max((data / "wal").iterdir())
    log = segment.read_bytes()
    segment.write_bytes(b"")

    def type_lines() -> Iterator[str]:
        yield f"{NAMES};"
        assert capsys.readouterr().out == "event_name\nin parquet\n"
        segment.write_bytes(log)  # now the event comes
        yield f"{NAMES};"

    lines = type_lines()

    def type_line() -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", type_line)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    shell(data, None, "csv")
    assert capsys.readouterr().out == "event_name\nin parquet\nin the log\n"


def test_a_query_that_control_c_ended_is_told_and_the_talk_goes_on(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # DuckDB 2 raises a RuntimeError, none of its own errors, when Control-C ends a query.
    ends = [RuntimeError("Query interrupted")]

    def print_csv(
        connection: duckdb.DuckDBPyConnection, _: Path, statement: duckdb.Statement
    ) -> None:
        if ends:
            raise ends.pop()
        print(connection.execute(statement).fetchall())

    monkeypatch.setattr("mallard.cli.shell._print_csv", print_csv)
    talk(data, "SELECT 1;\nSELECT 40 + 2;\n", monkeypatch)
    said = capsys.readouterr()
    assert said.err == "Query interrupted\n"
    assert said.out == "[(42,)]\n"


def test_history_that_cannot_be_read_is_said_to_be_missing(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell(data, "SELECT 1", "csv")
    assert capsys.readouterr().err == ""
    (segment,) = (data / "wal").iterdir()
    content = bytearray(segment.read_bytes().rstrip(b"\0"))
    content[-1] ^= 1
    segment.write_bytes(content)
    shell(data, NAMES, "csv")
    said = capsys.readouterr()
    assert said.out == "event_name\nin parquet\n"
    assert "missing" in said.err
    assert "mallard verify" in said.err


@pytest.mark.parametrize("form", ["csv", "table"])
def test_where_compaction_took_a_file_away_meanwhile_it_looks_again(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Stored(tmp_path)
    stored.flush(0, A, B, A)
    looked: list[bool] = []

    def show_then_compact(*asked: Any) -> bool:
        looked.append(show_folder(*asked))
        if len(looked) == 1:
            stored.clock.pass_by(3 * 86_400)
            stored.settle()
            stored.store.sweep(hurry=True)
            assert not stored.store.retired()
        return looked[-1]

    monkeypatch.setattr("mallard.cli.shell.show_folder", show_then_compact)
    shell(tmp_path, "SELECT 'three' || sum(position) AS found FROM events", form)
    stored.close()
    assert "three6" in capsys.readouterr().out
    assert looked == [True, True]


def test_what_was_stored_at_an_instant_is_seen_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = Stored(tmp_path)
    stored.flush(0, A)
    then = to_datetime(stored.clock.us)
    stored.clock.pass_by(60)
    stored.flush(0, A)
    stored.close()
    for as_of, count in ((then, "1"), (None, "2"), (then - timedelta(seconds=1), "0")):
        shell(tmp_path, "SELECT count(*) AS n FROM events", "csv", as_of)
        assert capsys.readouterr().out.splitlines() == ["n", count]


def test_a_file_that_cannot_be_read_is_said_with_what_to_do(data: Path) -> None:
    (path,) = (path for path in data.glob("recent/*.parquet") if path.name != "empty.parquet")
    path.write_bytes(path.read_bytes()[:-4] + b"none")
    with pytest.raises(StorageError, match=f"{path.name}.*mallard verify --data {data}"):
        shell(data, "SELECT 1", "csv")
