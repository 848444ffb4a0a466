"""`mallard export` and `GET /api/export` of a real server, beside each other."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import httpx
import pytest

from mallard.cli.benchmark.history import History
from mallard.clock import Clock
from mallard.files import Files
from mallard.store.local import LocalStore
from tests.documents import ROOT
from tests.end_to_end.server import RunningServer, environment, run

SITE = "example.com"
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0"
DAY_EVENTS = 50_000
MIB = 2**20
# What an export takes at most, in KiB as the system says, once its rows are written.
MEASURED = """
import re, sys
from pathlib import Path
from mallard.query.forms import Form
from mallard.query.pieces import Wanted, What
from mallard.transfer.exporter import export_folder
with open(sys.argv[2], "wb") as sink:
    wanted = Wanted("site-0.example", What.EVENTS)
    rows = export_folder(Path(sys.argv[1]), wanted, Form(sys.argv[3]), sink)
print(rows, re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def test_beside_a_server_the_command_writes_what_the_server_sends(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server:
        for number in range(3):
            event = {"d": SITE, "n": "pageview", "u": f"https://{SITE}/{number}"}
            sent = httpx.post(
                f"{server.url}/api/event", json=event, headers={"User-Agent": BROWSER}
            )
            assert sent.status_code == 202
        for form in ("csv", "ndjson"):
            given = {"site_id": SITE, "format": form}
            answer = httpx.get(f"{server.url}/api/export", params=given)
            done = run("export", "--data", str(server.data), "--site", SITE, "--format", form)
            assert done.returncode == 0, done.stderr
            assert done.stdout == answer.text
            assert done.stdout.count("\n") == (3 if form == "ndjson" else 4)


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_three_times_the_events_take_no_more_memory(form: str, tmp_path: Path) -> None:
    data, table_bytes, peaks = tmp_path / "data", 0, []
    data.mkdir()
    store = LocalStore(data, Files(), Clock())
    for day, (table, last) in enumerate(History(1, DAY_EVENTS, date(2025, 3, 1)).days(30), 1):
        store.publish(table, last)
        table_bytes += table.nbytes
        if day in {10, 30}:  # with fewer not all that is kept for the next is there yet
            rows, peak_kib = exported(data, tmp_path / "events", form)
            assert rows == last
            peaks.append(peak_kib * 1024)
    store.close()
    assert table_bytes > 450 * MIB
    assert peaks[1] - peaks[0] < 50 * MIB


def exported(data: Path, output: Path, form: str) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(data), str(output), form],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment({}),
        check=True,
    )
    rows, peak_kib = map(int, done.stdout.split())
    return rows, peak_kib
