"""A real browser, the site it visits, and a collector on another origin that keeps what comes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.origins import Collector, Site

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # Sites have names, so that they are not localhost to the tracker, and all lie here.
    "--host-resolver-rules=MAP *.example 127.0.0.1",
    # An ordinary visitor's browser does not say that it is automated, to the page or the server.
    # (Playwright's own setting of the agent is lost to requests that outlive their page.)
    "--disable-blink-features=AutomationControlled",
    "--user-agent=Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 "
    "(KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
]


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's Chromium. Without it the test fails for root, and skips for others."""
    executable = shutil.which("chromium")
    if executable is None:
        reason = "NO BROWSER TEST RAN: there is no `chromium` here; `make test` as root installs it"
        if os.geteuid() == 0:
            pytest.fail(reason)
        pytest.skip(reason)
    return executable


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A headless Chromium; for one module, as a running Playwright bars asyncio elsewhere."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=CHROMIUM_FLAGS,
            # Playwright switches the back-forward cache off; visitors have it.
            ignore_default_args=["--disable-back-forward-cache"],
        )
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor without a past."""
    context = browser.new_context(viewport={"width": 1000, "height": 500})
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A tab, whose timers run only as far as the test says."""
    page = context.new_page()
    # Installed alone, the clock would go on by itself between the test's steps.
    page.clock.install(time=0)
    page.clock.pause_at(1_000)
    return page


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Where the tracker is loaded from and sends to."""
    with Collector() as collector:
        yield collector


@pytest.fixture
def site(collector: Collector) -> Iterator[Site]:
    """The site that is visited."""
    with Site(collector.url) as site:
        yield site
