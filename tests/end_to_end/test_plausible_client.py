"""A client of Plausible's Stats API, unmodified from npm, asks a real server over HTTP."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mallard.accounts.control import Control
from mallard.web import pages
from tests.end_to_end.server import RunningServer
from tests.stored import SettableClock
from tests.web.running import started
from tests.web.test_reports import EVENTS, GOALS, MINUTE_US, NOON_US, SITE

MODULES = Path(pages.__file__).parent / "tracker" / "node_modules"
NODE = Path(sys.executable).with_name("node")
SCRIPT = """
const Plausible = require("plausible").default;
const [url, key, site] = process.argv.slice(2);
const plausible = new Plausible(key, site, url);
const today = "2024-09-16";
const refused = (promise) => promise.then(() => null, (error) => error.message);
(async () => console.log(JSON.stringify({
  realtime: await plausible.getRealtime(),
  visitors: await plausible.getAggregate("day", "visitors", true, null, today),
  google: await plausible.getAggregate("month", "pageviews", false, "visit:source==Google", today),
  bounces: await plausible.getAggregate("7d", "bounce_rate", false, null, today),
  months: await plausible.getTimeseries("6mo", "visitors", null, null, today),
  days: await plausible.getTimeseries("7d", "pageviews", null, "date", today),
  pages: await plausible.getBreakdown("7d", "visitors", "event:page", null, 2, 1, today),
  rest: await plausible.getBreakdown("7d", "visitors", "event:page", null, 2, 2, today),
  goals: await plausible.getBreakdown("7d", "visitors", "event:goal", null, null, null, today),
  mistake: await refused(plausible.getAggregate("day", "visitor", false, null, today)),
  stranger: await refused(new Plausible("mal_unknown", site, url).getRealtime()),
})))();
"""


def _add_goal(goal: dict[str, str], control: Control) -> object:
    return control.goals.add(SITE, goal)


@pytest.fixture
def seeded(tmp_path: Path) -> Iterator[tuple[RunningServer, str]]:
    """A server over events of 2024-09-15 and 16, and the token of a key."""
    with started(tmp_path, clock=SettableClock(NOON_US + 60 * MINUTE_US)) as (server, _):
        for goal in GOALS:
            server.accounts.change_now(partial(_add_goal, goal))
        fields = {"name": "client", "scopes": ["stats:read"], "sites": [SITE]}
        _, token = server.accounts.change_now(lambda control: control.keys.create(fields))
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(server.buffer.append(EVENTS))
    with RunningServer(tmp_path) as running:
        yield running, token


def run_client(url: str, token: str, folder: Path) -> dict[str, Any]:
    script = folder / "client.cjs"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [NODE, script, url, token, SITE],
        env={"NODE_PATH": str(MODULES)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_client_of_npm_gets_what_it_asks(
    seeded: tuple[RunningServer, str], tmp_path: Path
) -> None:
    server, token = seeded
    found = run_client(server.url, token, tmp_path)
    months = ["2024-04", "2024-05", "2024-06", "2024-07", "2024-08", "2024-09"]
    assert found == {
        "realtime": 0,
        "visitors": {"value": 2, "change": 100},
        "google": {"value": 2},
        "bounces": {"value": 33},
        "months": [
            {"date": f"{month}-01", "visitors": 3 * (month == "2024-09")} for month in months
        ],
        "days": [
            {"date": f"2024-09-{day}", "pageviews": {15: 2, 16: 3}.get(day, 0)}
            for day in range(10, 17)
        ],
        "pages": [{"page": "/", "visitors": 2}, {"page": "/blog/a", "visitors": 1}],
        "rest": [{"page": "/blog/b", "visitors": 1}, {"page": "/pricing", "visitors": 1}],
        "goals": [
            {"goal": "Blog", "visitors": 2},
            {"goal": "PurchaseUSD", "visitors": 1},
            {"goal": "Signup", "visitors": 1},
        ],
        "mistake": found["mistake"],
        "stranger": "The API key is unknown or revoked.",
    }
    assert "'visitor'" in found["mistake"]
