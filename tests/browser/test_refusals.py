"""Who and what is not counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.origins import Collector, Site, nothing_but

BUILDS = ["script.js", "script.pageviews.js", "script.exclusions.js"]


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("flag", ["mallard_ignore", "plausible_ignore"])
def test_a_visitor_who_opted_out_is_not_counted(
    page: Page, collector: Collector, site: Site, flag: str, build: str
) -> None:
    site.script = build
    page.add_init_script(f"localStorage.{flag} = 'true'")
    page.goto(site.url + "/")
    page.evaluate("mallard('x')")
    nothing_but(page, collector, [])


def test_a_visitor_who_took_the_opt_out_back_is_counted(
    page: Page, collector: Collector, site: Site
) -> None:
    page.add_init_script("localStorage.mallard_ignore = 'false'")
    page.goto(site.url + "/")
    collector.event("pageview")


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(
    ("signal", "value"), [("globalPrivacyControl", "true"), ("doNotTrack", "'1'")]
)
@pytest.mark.parametrize("attributes", ["", 'data-privacy="drop"'])
def test_a_privacy_signal_keeps_the_browser_silent_where_the_page_says_so(
    page: Page,
    collector: Collector,
    site: Site,
    attributes: str,
    signal: str,
    value: str,
    build: str,
) -> None:
    site.script, site.attributes = build, attributes
    page.add_init_script(f"Object.defineProperty(navigator, '{signal}', {{value: {value}}})")
    page.goto(site.url + "/")
    nothing_but(page, collector, [] if attributes else ["pageview"])


@pytest.mark.parametrize("value", ["'unspecified'", "'0'", "null"])
def test_without_a_privacy_signal_the_page_is_counted(
    page: Page, collector: Collector, site: Site, value: str
) -> None:
    site.attributes = 'data-privacy="drop"'
    page.add_init_script(f"Object.defineProperty(navigator, 'doNotTrack', {{value: {value}}})")
    page.goto(site.url + "/")
    collector.event("pageview")


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("attributes", ["", "data-local"])
def test_localhost_is_counted_only_where_the_page_says_so(
    page: Page, collector: Collector, site: Site, attributes: str, host: str, build: str
) -> None:
    site.script, site.attributes = build, attributes
    page.goto(f"http://{host}:{site.port}/")
    nothing_but(page, collector, ["pageview"] if attributes else [])


@pytest.mark.parametrize("host", ["localhost.shop.example", "mylocalhost.example", "x127.example"])
def test_a_site_whose_name_only_looks_like_localhost_is_counted(
    page: Page, collector: Collector, site: Site, host: str
) -> None:
    page.goto(f"http://{host}:{site.port}/")
    assert collector.event("pageview")["d"] == host


def test_a_file_is_not_counted(page: Page, collector: Collector, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(f'<script src="{collector.url}/js/script.js"></script>')
    page.goto(file.as_uri())
    assert page.evaluate("typeof mallard") == "function"
    nothing_but(page, collector, [])


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("attributes", ["", "data-local"])
def test_an_automated_browser_is_counted_only_where_the_page_says_so(
    page: Page, collector: Collector, site: Site, attributes: str, build: str
) -> None:
    site.script, site.attributes = build, attributes
    page.add_init_script("Object.defineProperty(navigator, 'webdriver', {value: true})")
    page.goto(site.url + "/")
    nothing_but(page, collector, ["pageview"] if attributes else [])


def test_a_page_that_may_not_use_storage_is_counted(
    page: Page, collector: Collector, site: Site
) -> None:
    site.head = """<script>if (top == self) onload = () => {
        const frame = document.createElement("iframe");
        frame.sandbox = "allow-scripts";
        frame.src = "/framed";
        document.body.append(frame);
    }</script>"""
    page.goto(site.url + "/")
    views = collector.named("pageview", 2)
    assert [view["url"].removeprefix(site.url) for view in views] == ["/", "/framed"]
