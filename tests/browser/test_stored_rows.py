"""A visit in a real browser, told to a real server on another origin, read back from Parquet."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from mallard.web import pages
from tests.browser.origins import Site
from tests.end_to_end.server import RunningServer
from tests.waiting import until

TRACKER = Path(pages.__file__).parent / "tracker"
NODE = Path(sys.executable).with_name("node")
DUCKDB = Path(sys.executable).with_name("duckdb")
ORDER = '"Order", {props: {plan: "pro"}, revenue: {amount: 9.5, currency: "EUR"}}'
NAMES = ["pageview", "pageview", "Outbound Link: Click", "Order", "engagement"]

PLAUSIBLE = f"""
import {{ init, track }} from "@plausible-analytics/tracker";
init({{ domain: "shop.example", endpoint: window.api + "/api/event", outboundLinks: true,
        captureOnLocalhost: true }});
window.order = () => track({ORDER});
"""
PLAUSIBLE_TRACKER = """
import Plausible from "plausible-tracker";
const plausible = Plausible({ domain: "shop.example", apiHost: window.api, trackLocalhost: true });
plausible.enableAutoPageviews();
plausible.enableAutoOutboundTracking();
window.order = () => plausible.trackEvent("Order", { props: { plan: "pro" } });
"""


@pytest.fixture
def site(server: RunningServer) -> Iterator[Site]:
    with Site(f"http://stats.example:{server.port}") as site:
        site.body = f'<a href="http://other.example:{server.port}/robots.txt">out</a>'
        yield site


def visit(page: Page, server: RunningServer, site: Site, stored: int) -> None:
    """Do what a visitor does, and stop the server once that many events are in its log."""
    page.goto(site.url + "/ducks?utm_source=mail#top", referer="https://www.google.com/")
    page.evaluate("history.pushState({}, '', '/geese')")
    page.clock.run_for(500)
    page.evaluate("order()")
    page.clock.run_for(4000)
    page.click("a")
    page.clock.run_for(1000)  # the older client holds the link back, to have its event sent first
    page.wait_for_url("**/robots.txt")
    count = "SELECT count(*) FROM events"
    until(lambda: int(server.shell(count)[0][0]) >= stored, f"{stored} events in the log")
    assert server.terminate() == 0  # which writes everything to Parquet


def read(server: RunningServer, sql: str) -> list[list[str]]:
    """Return what DuckDB's own shell answers, knowing nothing but the data folder."""
    done = subprocess.run(
        [DUCKDB, "-init", server.data / "mallard.sql", "-csv", "-noheader", "-c", sql],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return list(csv.reader(io.StringIO(done.stdout)))


def bundle(folder: Path, source: str) -> str:
    """Return a Plausible client of npm, unmodified, as a script for a page."""
    entry, out = folder / "entry.js", folder / "out.js"
    entry.write_text(source)
    subprocess.run(
        [
            NODE,
            TRACKER / "node_modules" / "esbuild" / "bin" / "esbuild",
            entry,
            "--bundle",
            "--format=iife",
            f"--outfile={out}",
            "--log-level=error",
        ],
        env={"NODE_PATH": str(TRACKER / "node_modules")},
        check=True,
        timeout=60,
    )
    return out.read_text()


def test_a_visit_told_by_the_tracker_is_in_parquet(
    page: Page, server: RunningServer, site: Site
) -> None:
    site.attributes = "data-outbound"
    site.head = f"<script>window.order = () => mallard({ORDER})</script>"
    visit(page, server, site, len(NAMES))
    rows = read(
        server,
        """SELECT event_name, event_type, site_id, pathname, interactive FROM events
           ORDER BY position""",
    )
    assert sorted(rows) == sorted(
        [
            ["pageview", "page", "shop.example", "/ducks", "true"],
            ["pageview", "page", "shop.example", "/geese", "true"],
            ["Outbound Link: Click", "track", "shop.example", "/geese", "true"],
            ["Order", "track", "shop.example", "/geese", "true"],
            ["engagement", "engagement", "shop.example", "/geese", "false"],
        ]
    )
    first = """SELECT url, referrer, utm_source, screen_width, browser, os, count(visitor_id)
        FROM events WHERE pathname = '/ducks' GROUP BY ALL"""
    assert read(server, first) == [
        [
            "http://shop.example/ducks",
            "https://www.google.com/",
            "mail",
            "1000",
            "Chrome",
            "Windows",
            "1",
        ]
    ]
    assert read(server, "SELECT count(DISTINCT visitor_id) FROM events") == [["1"]]
    engagement = "SELECT scroll_depth, engaged_ms FROM events WHERE event_name = 'engagement'"
    assert read(server, engagement) == [["100", "4500"]]


def test_props_and_revenue_are_found_by_plain_sql_over_the_files(
    page: Page, server: RunningServer, site: Site
) -> None:
    site.attributes = "data-outbound"
    site.head = f"<script>window.order = () => mallard({ORDER})</script>"
    visit(page, server, site, len(NAMES))
    question = """SELECT json_extract(props, '$.plan'), sum(revenue_amount),
        any_value(revenue_currency) FROM {} WHERE event_name = 'Order' GROUP BY 1"""
    answer = [['"pro"', "9.50", "EUR"]]
    assert read(server, question.format("events")) == answer
    files = server.data / "recent" / "*.parquet"
    assert read(server, question.format(f"read_parquet('{files}')")) == answer


def test_a_visit_told_by_plausibles_client_is_stored_alike(
    page: Page, server: RunningServer, site: Site, tmp_path: Path
) -> None:
    script = bundle(tmp_path, PLAUSIBLE)
    site.script = "script.manual.js"  # ours is silent
    site.head = "<script>window.api = '{collector}'; window.__plausible = true</script>"
    site.body += f"<script>{script}</script>"
    names = [*NAMES, "engagement"]  # this client tells of the first page too, which we do not
    visit(page, server, site, len(names))
    assert sorted(row[0] for row in read(server, "SELECT event_name FROM events")) == sorted(names)
    assert read(
        server,
        """SELECT json_extract(props, '$.plan'), sum(revenue_amount), any_value(revenue_currency)
           FROM events WHERE event_name = 'Order' GROUP BY 1""",
    ) == [['"pro"', "9.50", "EUR"]]
    ((depth, engaged),) = read(
        server,
        """SELECT scroll_depth, engaged_ms FROM events
           WHERE event_name = 'engagement' AND pathname = '/geese'""",
    )
    assert depth == "100"
    assert int(engaged) >= 4000


def test_a_visit_told_by_plausibles_older_client_is_stored_alike(
    page: Page, server: RunningServer, site: Site, tmp_path: Path
) -> None:
    script = bundle(tmp_path, PLAUSIBLE_TRACKER)
    site.script = "script.manual.js"
    site.head = "<script>window.api = '{collector}'; window.__plausible = true</script>"
    site.body += f"<script>{script}</script>"
    names = ["pageview", "pageview", "Outbound Link: Click", "Order"]
    visit(page, server, site, len(names))
    assert sorted(row[0] for row in read(server, "SELECT event_name FROM events")) == sorted(names)
    assert read(
        server,
        """SELECT json_extract(props, '$.plan'), screen_width FROM events
           WHERE event_name = 'Order'""",
    ) == [['"pro"', "1000"]]
