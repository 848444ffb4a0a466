from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from mallard.errors import StorageError
from mallard.event import Event
from mallard.files import Files
from mallard.query.events import open_folder
from mallard.query.macros import EXAMPLES
from mallard.query.rules import Definition, about
from mallard.query.shell_script import KEEP_US, ShellScript
from tests import oracle
from tests.factories import NOON_US, make_event
from tests.faults import Fault, FaultyFiles
from tests.histories import History
from tests.stored import SettableClock

DAY_US = 86_400_000_000
DATES = ["2024-05-01", "2024-05-02"]
COUNTS = (
    "SELECT (SELECT count(*) FROM events), (SELECT sum(position) FROM events), "
    "(SELECT count(*) FROM sessions), (SELECT sum(events) FROM sessions), "
    "(SELECT sum(duration_ms) FROM sessions)"
)


def run_in_shell(script: Path, sql: str) -> str:
    cli = Path(sys.executable).with_name("duckdb")
    run = subprocess.run(
        [cli, "-csv", "-noheader", "-init", script, "-c", sql],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Error" not in run.stderr
    return run.stdout


class Told(History):
    """A history whose script is written as a server writes it."""

    def __init__(self, data: Path) -> None:
        self.clock = SettableClock()
        data.mkdir(exist_ok=True)
        self.script = ShellScript(data, Files(), self.clock)
        self.path = data / "mallard.sql"
        super().__init__(data, self.script.tell, self.clock)

    def check(self) -> None:
        """The script's counts, in both DuckDBs, are those of what is in parts."""
        visits = oracle.visits(self.events)
        numbers = [
            len(self.events),
            sum(one.position for one in self.events),
            len(visits),
            sum(len(visit.counted) for visit in visits),
            sum(visit.duration_ms for visit in visits),
        ]
        expected = ",".join(map(str, numbers))
        with duckdb.connect() as connection:
            connection.execute(self.path.read_text())
            (row,) = connection.execute(COUNTS).fetchall()
        assert ",".join(map(str, row)) == expected
        assert run_in_shell(self.path, COUNTS) == f"{expected}\n"


Tell = Callable[..., Told]


@pytest.fixture
def tell(tmp_path: Path) -> Iterator[Tell]:
    made: list[Told] = []

    def make(folder: str = "data") -> Told:
        made.append(Told(tmp_path / folder))
        return made[-1]

    yield make
    for told in made:
        told.store.close()


def a_day_of(site_id: str, day: int = 0) -> list[Event]:
    start = NOON_US + day * DAY_US
    return [
        make_event(site_id=site_id, timestamp=start + minute * 60_000_000, user_id="ada")
        for minute in (0, 10, 50)
    ]


@pytest.mark.parametrize("folder", ["data", "it's data"])
def test_numbers_are_exact_after_every_flush_compaction_and_late_event(
    folder: str, tell: Tell
) -> None:
    told = tell(folder)
    told.log([*a_day_of("a.example"), *a_day_of("it's/b", day=1)])
    told.flush()
    told.check()
    told.settle(DATES)
    told.check()
    told.log([make_event(site_id="a.example", timestamp=NOON_US + 1), *a_day_of("n" * 300)])
    told.flush()
    told.check()
    told.settle(DATES)
    told.check()


def test_a_new_folder_has_both_views_and_no_row(tell: Tell) -> None:
    told = tell()
    assert run_in_shell(told.path, "SELECT count(*) FROM events") == "0\n"
    assert run_in_shell(told.path, "SELECT count(*) FROM sessions") == "0\n"
    assert run_in_shell(told.path, "SELECT visits FROM totals('a', '2024-05-01', '2024-05-03')")


def test_an_event_has_its_id_its_money_and_its_props(tell: Tell) -> None:
    told = tell()
    told.log([make_event(revenue_amount=Decimal("0.10"), props='{"plan": "pro"}')])
    told.flush()
    sql = "SELECT revenue_amount, json_extract(props, '$.plan'), event_id FROM events"
    event_id = f"{NOON_US // 1000:012x}7{told.store.node:03x}8{1:015x}"
    assert run_in_shell(told.path, sql) == f'0.10,"""pro""",{uuid.UUID(event_id)}\n'


def test_what_a_rule_drops_is_in_neither_view_and_not_in_the_script_afterwards(tell: Tell) -> None:
    told = tell()
    told.log([*a_day_of("a.example"), make_event(site_id="a.example", user_id="bob")])
    told.flush()
    told.settle(DATES)
    told.drop(Definition(conditions=(about("user", "ada"),)), lambda event: event.user_id == "ada")
    told.check()
    assert "ada" in told.path.read_text()


def test_a_shell_that_ran_the_script_keeps_its_snapshot_and_can_run_it_again(tell: Tell) -> None:
    told = tell()
    told.log(a_day_of("a.example"))
    told.flush()
    with duckdb.connect() as connection:
        connection.execute(told.path.read_text())
        told.settle(DATES)
        told.log(a_day_of("a.example", day=1))
        told.flush()
        assert connection.execute("SELECT count(*) FROM events").fetchall() == [(3,)]
        connection.execute(told.path.read_text())
        assert connection.execute("SELECT count(*) FROM events").fetchall() == [(6,)]


def test_the_examples_give_the_same_in_both_shells(tell: Tell) -> None:
    told, november = tell(), 1_793_880_000_000_000  # 2026-11-05 12:00:00 UTC
    pages = ["/", "/pricing", "/", "/pricing"]
    told.log(
        [
            make_event(timestamp=november + number, pathname=path, visitor_id=number // 3)
            for number, path in enumerate(pages)
        ]
    )
    told.flush()
    told.settle(["2026-11-05"])
    told.log([make_event(timestamp=november + 9, event_name="signup", event_type="track")])
    told.flush()
    with open_folder(told.path.parent) as connection:
        for example in EXAMPLES.splitlines():
            rows = connection.execute(example).fetchall()
            assert rows
            printed = run_in_shell(told.path, f"COPY ({example.rstrip(';')}) TO '/dev/stdout'")
            wanted = connection.sql(example.rstrip(";"))
            wanted.write_csv(str(told.path.with_suffix(".csv")))
            assert printed == told.path.with_suffix(".csv").read_text()
            assert sum(isinstance(value, int) and value > 0 for row in rows for value in row)


def test_only_months_that_changed_are_written_again(tell: Tell) -> None:
    told = tell()
    told.log([*a_day_of("a.example"), *a_day_of("a.example", day=40)])
    told.flush()
    told.settle(["2024-05-01", "2024-06-10"])
    live = told.path.parent / "live"
    before = {path.name for path in live.iterdir()}
    assert sorted(name[:7] for name in before if name[:7] == "2024-05") == ["2024-05"]
    told.log(a_day_of("b.example"))
    told.flush()
    assert {path.name for path in live.iterdir()} == before  # a flush changes no site-day
    told.settle(["2024-05-01"])
    after = {path.name for path in live.iterdir()}
    assert {name[:7] for name in after - before} == {"2024-05"}


def test_a_month_that_is_outdated_stays_for_shells_that_began_to_read_it(tell: Tell) -> None:
    told = tell()
    for number in range(3):
        told.log(a_day_of(f"{number}.example"))
        told.flush()
        told.settle(["2024-05-01"])
    live = told.path.parent / "live"
    assert len(list(live.iterdir())) == 3
    told.clock.us += KEEP_US + 1
    told.log(a_day_of("a.example", day=1))
    told.flush()
    (left,) = live.iterdir()
    assert left.name in told.path.read_text()
    told.check()


def test_a_start_writes_nothing_that_is_there_and_removes_what_is_left_over(tell: Tell) -> None:
    told = tell()
    told.log(a_day_of("a.example"))
    told.flush()
    told.settle(DATES)
    live = told.path.parent / "live"
    (live / "2024-05.0000000000000000.json.tmp").write_bytes(b"torn")
    before = {path: path.stat().st_ino for path in (told.path, *live.iterdir())}
    ShellScript(told.path.parent, Files(), told.clock).tell(told.store.snapshot())
    after = {path: path.stat().st_ino for path in (told.path, *live.iterdir())}
    assert after.items() < before.items()
    assert len(after) == 2
    told.check()


def test_readers_that_run_the_script_again_and_again_never_see_a_dip_or_a_double(
    tell: Tell,
) -> None:
    told, ended, wrong, counts = tell(), threading.Event(), [], []

    def count() -> None:
        before = 0
        while not ended.is_set():
            least = told.store.snapshot().watermark
            with duckdb.connect(config={"threads": "1"}) as connection:
                connection.execute(told.path.read_text())
                ((rows, positions, _, in_visits, _),) = connection.execute(COUNTS).fetchall()
            counts.append(rows)
            if rows < max(before, least) or (positions or 0) != rows * (rows + 1) // 2:
                wrong.append(f"{rows} rows after {before} and {least}, of positions {positions}")
            if (in_visits or 0) != rows:
                wrong.append(f"{in_visits} events in visits, of {rows}")
            before = rows

    readers = [threading.Thread(target=count) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(12):
        told.log(a_day_of(f"{number % 4}.example", day=number % 3))
        told.flush()
        if number % 3 == 2:
            told.settle([*DATES, "2024-05-03"])
    ended.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert len(set(counts)) > 1


@pytest.mark.parametrize("fault", [Fault.EIO, Fault.TEAR])
def test_a_failing_disk_leaves_a_script_that_is_true_and_the_next_commit_tries_again(
    fault: Fault, tell: Tell
) -> None:
    told = tell()
    told.log(a_day_of("a.example"))
    told.flush()
    told.settle(DATES)
    before, old = told.path.read_text(), told.store.snapshot()
    told.log(a_day_of("b.example"))
    told.flush()
    told.settle(DATES)
    after = told.path.read_text()
    for step in itertools.count(1):
        told.script.tell(old)
        assert told.path.read_text() == before
        files = FaultyFiles(step, fault)
        script = ShellScript(told.path.parent, FaultyFiles(0, fault), told.clock)
        script._files = files
        try:
            script.tell(told.store.snapshot())
        except OSError:
            assert told.path.read_text() in {before, after}
            script.tell(told.store.snapshot())
        assert told.path.read_text() == after
        told.script = ShellScript(told.path.parent, Files(), told.clock)
        if files.steps < step:
            break
    assert step > 10


def test_a_folder_in_the_scripts_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "mallard.sql").mkdir()
    with pytest.raises(StorageError, match=r"mallard\.sql"):
        ShellScript(tmp_path, Files(), SettableClock())
