"""A newcomer's path: the README's commands, as printed, in a clean clone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.documents import ROOT, blocks
from tests.waiting import until

PRINTED = "127.0.0.1:8000"
BACKUPS = "/backups/"  # where the README's backups go
SET_UP_SECONDS_MAX = 600
NEEDED = ("git", "make", "curl")

pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists() or any(shutil.which(name) is None for name in NEEDED),
    reason="NOT RUN: a newcomer's path needs git, make, curl and a clone of the repository",
)


def bare_environment(folder: Path) -> dict[str, str]:
    """This process's environment without its virtual environment, and a port that is free."""
    here = Path(sys.executable).parent
    folder.mkdir()
    # The DuckDB shell is the reader's own; ours comes from the development lock.
    (folder / "duckdb").symlink_to(here / "duckdb")
    path = [part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != here]
    plain = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("MALLARD_", "MAKE", "MFLAGS", "VIRTUAL_ENV", "PYTEST"))
    }
    return plain | {
        "PATH": os.pathsep.join([*path, str(folder)]),
        "MALLARD_SERVER_PORT": "0",
        "MALLARD_BUFFER_FLUSH_INTERVAL_SECONDS": "0.1",
    }


@contextmanager
def in_background(command: str, folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """Run a command as a reader does in another terminal; give the file of what it prints."""
    log = folder.parent / "run.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def test_the_readmes_commands_work_in_a_clean_clone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, *commands = blocks("sh")
    assert start == "make run\n"
    clone = tmp_path / "mallard"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True, timeout=60)
    environment = bare_environment(tmp_path / "bin")
    began = time.monotonic()
    with in_background(start, clone, environment) as log:
        where = until(
            lambda: re.search(r"serves http://(\S+)", log.read_text()),
            "make run serves",
            SET_UP_SECONDS_MAX,
        )[1]
        until(lambda: httpx.get(f"http://{where}/health/ready").is_success, "it is ready")
        seconds = time.monotonic() - began
        said: list[str] = []
        for text in commands:
            here = text.replace(PRINTED, where).replace(BACKUPS, f"{tmp_path}{BACKUPS}")
            said.append(run(with_key(here, said), clone, environment))
        stored = next(text for text in commands if text.startswith("duckdb "))
        until(lambda: "99.00" in run(stored, clone, environment), "Parquet has the event")
        check_answers(said)
        check_snippets(where)
    with capsys.disabled():
        print(f"\nmake run on a clean clone: ready after {seconds:.1f} s")


def test_an_environment_that_could_not_be_made_is_made_anew_the_next_time(tmp_path: Path) -> None:
    # As Debian's Python does without the package python3-venv.
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nmkdir -p .venv/bin && touch .venv/bin/python && exit 1\n")
    python.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    make = ["make", f"PYTHON={python}", ".venv/bin/python"]
    environment = bare_environment(tmp_path / "bin")
    done = subprocess.run(make, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 2
    assert not (tmp_path / ".venv").exists()


def with_key(command: str, said: list[str]) -> str:
    """Have curl send the API key that an earlier command has printed, as a reader would."""
    if not (keys := re.findall(r"\bmal_\w+", "\n".join(said))):
        return command
    return command.replace("curl ", f"curl -H 'Authorization: Bearer {keys[0]}' ")


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a block as printed, but for curl's progress, and return what it says."""
    script = ["bash", "-e", "-o", "pipefail", "-c", command.replace("curl ", "curl -fsS ")]
    done = subprocess.run(
        script, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def check_answers(said: list[str]) -> None:
    """Look at what the README's commands answered."""
    whole = "\n".join(said)
    for text in (
        "signup",  # mallard shell
        "/welcome",
        "revenue",  # the DuckDB shell
        '"accepted"',  # the debug header
        "mal_",  # mallard keys create
        '"row_count"',  # SQL over HTTP
        "mallard_events_accepted_total",  # /metrics
        "Everything is as the manifest says.",  # mallard verify
    ):
        assert text in whole, f"{text} is not in:\n{whole}"


def check_snippets(where: str) -> None:
    """Load what the README's tags load."""
    tags = "\n".join(blocks("html"))
    sources = re.findall(r'src="https://analytics.example.com(/[^"]+)"', tags)
    assert [path.split("?")[0] for path in sources] == ["/js/script.js", "/api/event"]
    for path in sources:
        answer = httpx.get(f"http://{where}{path}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].split(";")[0] in {
            "application/javascript",
            "image/gif",
        }
