"""A person is erased by command, from a running server and from a folder without one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.server import RunningServer, run
from tests.erasing import holders
from tests.waiting import until

MARK = "zqxsubject"
SETTINGS = {"buffer.flush_interval_seconds": "3600", "store.close_after_seconds": "0"}
CHROME = "Mozilla/5.0 (X11; Linux x64) AppleWebKit/537.36 Chrome/141.0.0.0 Safari/537.36"
DUCKDB = Path(sys.executable).with_name("duckdb")


def send(server: RunningServer, path: str, **fields: object) -> None:
    document = {"d": "example.com", "n": "pageview", "u": f"https://example.com/{path}", **fields}
    answer = httpx.post(f"{server.url}/api/event", json=document, headers={"User-Agent": CHROME})
    assert answer.status_code == 202


def paths_in(server: RunningServer) -> list[list[str]]:
    return server.shell("SELECT pathname, count(*) FROM events GROUP BY 1 ORDER BY 1")


def paths_in_duckdb(data: Path) -> str:
    sql = "SELECT DISTINCT pathname FROM events ORDER BY 1"
    done = subprocess.run(
        [str(DUCKDB), "-init", str(data / "mallard.sql"), "-csv", "-noheader", "-c", sql],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.replace("\n", " ").strip()


def mallard(server: RunningServer, *arguments: str) -> str:
    done = run(*arguments, "--data", str(server.data), settings=server.settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_erasing_while_the_server_runs_hides_at_once_and_leaves_no_byte(tmp_path: Path) -> None:
    with RunningServer(tmp_path, SETTINGS) as server:
        for number in range(3):
            send(server, MARK, p={"name": MARK})
            send(server, f"kept{number}")
        assert holders(server.data) == {"wal"}
        where = f"pathname is /{MARK}"
        said = mallard(server, "erase", "--where", where, "--yes")
        assert "3 stored events are meant" in said
        assert paths_in(server) == [["/kept0", "1"], ["/kept1", "1"], ["/kept2", "1"]]
        assert paths_in_duckdb(server.data) == "/kept0 /kept1 /kept2"
        rule = re.search(r"^([0-9a-f]{12}): no answer", said, re.MULTILINE)
        assert rule is not None
        assert "is cancelled" in mallard(server, "erasures", "cancel", rule[1])
        assert [f"/{MARK}", "3"] in paths_in(server)

        send(server, "later")
        done = mallard(server, "erase", "--where", f"url contains {MARK}", "--yes", "--now")
        send(server, MARK)
        assert "Done." in done
        assert holders(server.data) == {"wal"}  # what was sent after it was erased
        assert MARK not in paths_in_duckdb(server.data)
        assert [f"/{MARK}", "1"] in paths_in(server)
        assert ["/later", "1"] in paths_in(server)
        assert MARK not in server.logs


@pytest.mark.parametrize("stopped", ["by a signal", "by kill -9"])
def test_erasing_without_a_server_leaves_no_byte_either(stopped: str, tmp_path: Path) -> None:
    with RunningServer(tmp_path, SETTINGS) as server:
        send(server, MARK, p={"name": MARK})
        send(server, "kept")
        if stopped == "by a signal":
            server.terminate()
        else:
            server.kill9()
        assert holders(server.data) == ({"recent"} if stopped == "by a signal" else {"wal"})
        mallard(server, "erase", "--where", f"props contains {MARK}", "--yes", "--now")
        assert holders(server.data) == set()
        assert paths_in(server) == [["/kept", "1"]]
        (listed,) = mallard(server, "erasures").splitlines()
        receipt = json.loads(mallard(server, "erasures", "receipt", listed.split()[0]))
        assert receipt["counts"][0]["site_id"] == "example.com"
        assert receipt["events"] == 1
        assert MARK not in json.dumps(receipt)


def test_a_server_that_is_killed_goes_on_erasing_at_its_next_start(tmp_path: Path) -> None:
    with RunningServer(tmp_path, {**SETTINGS, "erasure.grace_seconds": "2"}) as server:
        send(server, MARK)
        send(server, "kept")
        mallard(server, "erase", "--where", f"pathname contains {MARK}", "--yes")
        server.kill9()
        shutil.copytree(server.data, tmp_path / "copy")
        assert "recent" in holders(tmp_path / "copy")
        server.restart()
        assert paths_in(server) == [["/kept", "1"]]
        until(lambda: "done 2" in mallard(server, "erasures"), "the receipt is complete")
        assert holders(server.data) == set()
        assert paths_in(server) == [["/kept", "1"]]


def test_a_damaged_file_that_an_erasure_waits_for_is_given_up_by_command(tmp_path: Path) -> None:
    with RunningServer(tmp_path, {**SETTINGS, "erasure.grace_seconds": "0"}) as server:
        send(server, MARK)
        send(server, "kept")
        server.terminate()
        server.restart()
        (path,) = (path for path in server.data.glob("recent/*") if path.name != "empty.parquet")
        path.write_bytes(path.read_bytes()[:-9] + bytes(9))
        send(server, MARK)
        send(server, "later")
        said = mallard(server, "erase", "--where", f"pathname contains {MARK}", "--yes")
        (rule,) = re.findall(r"^([0-9a-f]{12}): no answer", said, re.MULTILINE)
        advice = f"`mallard erasures discard {rule}`"
        until(lambda: advice in mallard(server, "erasures"), "the erasure waits for the file")
        # Nobody said yes.
        assert run("erasures", "discard", rule, "--data", str(server.data)).returncode == 1
        assert len(list(server.data.glob("quarantine/*"))) == 1
        done = mallard(server, "erasures", "discard", rule, "--yes")
        assert done.startswith("2 events of damaged files are given up")
        until(lambda: "done 2" in mallard(server, "erasures"), "the receipt is complete")
        receipt = json.loads(mallard(server, "erasures", "receipt", rule))
        assert receipt["discarded"] == {f"recent/{path.name}": 2}
        assert holders(server.data) == set()
        assert paths_in(server) == [["/later", "1"]]
        again = run("erasures", "discard", rule, "--yes", "--data", str(server.data))
        assert again.returncode == 1
        assert f"No rule {rule}" in again.stderr


def test_spam_that_is_known_today_leaves_history(tmp_path: Path) -> None:
    with RunningServer(tmp_path, SETTINGS) as server:
        send(server, "kept", r="https://fine.example/")
        send(server, MARK, r=f"https://{MARK}.example/")
        server.terminate()
        server.settings["ingest.blocked_referrers"] = f"{MARK}.example"
        server.restart()
        declined = run("reclassify", "spam", "--data", str(server.data), settings=server.settings)
        assert f"1  https://{MARK}.example/" in declined.stdout
        assert len(paths_in(server)) == 2  # nobody said yes
        assert "Done." in mallard(server, "reclassify", "spam", "--yes", "--now")
        assert paths_in(server) == [["/kept", "1"]]
        assert "Nothing would change." in mallard(server, "reclassify", "sources")
        assert holders(server.data) == set()


def test_a_request_that_nobody_understands_is_refused_in_words(tmp_path: Path) -> None:
    with RunningServer(tmp_path, SETTINGS) as server:
        for arguments, words in (
            (("erase", "--yes"), "must say which events"),
            (("erase", "--where", "color is red"), "no column 'color'"),
            (("erase", "--visitor", "12"), "16 hexadecimal digits"),
            (("erase", "--site", "a", "--from", "yesterday"), "no date"),
            (("erasures", "cancel", "nothing"), "No rule nothing"),
        ):
            done = run(*arguments, "--data", str(server.data))
            assert done.returncode == 1, arguments
            assert words in done.stderr
        assert "Nothing was ever erased" in mallard(server, "erasures")
