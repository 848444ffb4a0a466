"""Which views of a page are counted, and what is said of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import CHROMIUM_FLAGS
from tests.browser.origins import Collector, Site, nothing_but

BUILDS = ["script.js", "script.pageviews.js", "script.exclusions.js"]
BACK = "new Promise(done => { addEventListener('popstate', done); history.back() })"


def urls(collector: Collector, site: Site, views: int) -> list[str]:
    """The addresses of the pageviews, without the site's origin, once there are so many."""
    return [event["url"].removeprefix(site.url) for event in collector.named("pageview", views)]


@pytest.mark.parametrize("build", BUILDS)
def test_a_view_says_where_from_where_and_how_wide_without_a_cors_preflight(
    page: Page, collector: Collector, site: Site, build: str
) -> None:
    site.script = build
    page.goto(site.url + "/ducks?utm_source=mail", referer="https://search.example/?q=ducks")
    (request,) = collector.received(1)
    body = {key: value for key, value in request.body.items() if value != {}}
    assert body == {
        "n": "pageview",
        "d": "shop.example",
        "url": site.url + "/ducks?utm_source=mail",
        "r": "https://search.example/?q=ducks",
        "w": 1000,
        "h": False,
    }
    assert request.method == "POST"
    assert request.path == "/api/event"
    assert request.headers["Content-Type"].startswith("text/plain")
    assert request.headers["Origin"] == site.url
    assert "Cookie" not in request.headers
    nothing_but(page, collector, ["pageview"])


@pytest.mark.parametrize("build", BUILDS)
def test_each_new_path_of_a_single_page_application_is_one_view(
    page: Page, collector: Collector, site: Site, build: str
) -> None:
    site.script = build
    page.goto(site.url + "/")
    collector.events(1)
    expected = ["/"]
    for step, seen in (
        ("history.pushState({}, '', '/push')", ["/push"]),
        ("history.pushState({}, '', '/push')", []),
        ("history.pushState({}, '', '/push?page=2')", []),
        ("location.hash = 'part'", []),
        ("history.replaceState({}, '', '/replace')", ["/replace"]),
        ("history.pushState({}, '', '/last')", ["/last"]),
        (BACK, ["/replace"]),
    ):
        page.evaluate(step)
        page.clock.run_for(500)
        expected += seen
        # Waited for at each step: two requests under way at once may arrive in either order.
        assert urls(collector, site, len(expected)) == expected


def test_two_new_paths_at_once_are_two_views(page: Page, collector: Collector, site: Site) -> None:
    page.goto(site.url + "/")
    page.evaluate("history.pushState({}, '', '/one'); history.pushState({}, '', '/two')")
    # Two requests under way at once may arrive in either order.
    assert sorted(urls(collector, site, 3)) == ["/", "/one", "/two"]


def test_the_pages_own_history_functions_are_left_alone(
    page: Page, collector: Collector, site: Site
) -> None:
    page.goto(site.url + "/")
    collector.events(1)
    assert "[native code]" in page.evaluate("history.pushState + ''")


def test_in_hash_mode_the_fragment_is_part_of_the_page(
    page: Page, collector: Collector, site: Site
) -> None:
    site.attributes = "data-hash"
    page.goto(site.url + "/#/ducks")
    collector.events(1)
    page.evaluate("location.hash = '/geese'")
    page.clock.run_for(1000)
    assert urls(collector, site, 2) == ["/#/ducks", "/#/geese"]
    assert [event["h"] for event in collector.named("pageview", 2)] == [True, True]


def test_a_page_restored_by_the_back_button_is_viewed_again(
    page: Page, collector: Collector, site: Site
) -> None:
    site.script = "script.pageviews.js"
    page.goto(site.url + "/first")
    collector.events(1)
    page.evaluate("window.kept = 'kept'")
    page.goto(site.url + "/second")
    collector.events(2)
    page.go_back(wait_until="commit")
    assert page.evaluate("window.kept") == "kept", "the browser loaded the page anew"
    page.clock.run_for(1000)
    assert urls(collector, site, 3) == ["/first", "/second", "/first"]


def test_a_page_that_nobody_sees_is_counted_when_somebody_does(
    page: Page, collector: Collector, site: Site
) -> None:
    site.head = "<script>window.mallard = (...call) => (mallard.q ||= []).push(call)</script>"
    page.add_init_script(
        "Object.defineProperty(document, 'hidden', {get: () => !window.shown, configurable: true})"
    )
    page.goto(site.url + "/")
    page.evaluate("mallard('Loaded')")
    nothing_but(page, collector, [])
    page.evaluate("window.shown = true")
    page.clock.run_for(500)
    nothing_but(page, collector, ["pageview", "Loaded"])


def test_a_prerendered_page_is_counted_when_it_is_visited(
    chromium: str, tmp_path: Path, collector: Collector, site: Site
) -> None:
    # Nothing is prerendered under a debugger, so this browser runs on its own.
    site.head = """<script>
        const tell = n => fetch("{collector}/api/event", {method: "POST", body: `{"n": "${n}"}`});
        const go = async () => {
            const names = await (await fetch("{collector}/names")).json();
            names.includes("prerendered") ? location.href = "/next" : setTimeout(go, 20);
        };
        window.mallard = (...call) => (mallard.q ||= []).push(call);
        mallard("Loaded");
        location.pathname == "/" ? go() : document.prerendering && tell("prerendered");
        </script><script type="speculationrules">
        {"prerender": [{"urls": ["/next"], "eagerness": "immediate"}]}</script>"""
    flags = [*CHROMIUM_FLAGS, "--headless", f"--user-data-dir={tmp_path}"]
    with subprocess.Popen([chromium, *flags, site.url], stderr=subprocess.DEVNULL) as process:
        try:
            assert len(collector.named("Loaded", 2)) == 2
            assert urls(collector, site, 2) == ["/", "/next"]
        finally:
            process.terminate()
    names = [event["n"] for event in collector.events(5)]
    assert names.index("prerendered") < [i for i, n in enumerate(names) if n == "pageview"][1]
    assert not [
        request
        for request in collector.received(5)
        if request.body["n"] in {"pageview", "Loaded"} and "Sec-Purpose" in request.headers
    ]


def test_sites_and_the_collectors_address_can_be_named(
    page: Page, collector: Collector, site: Site
) -> None:
    site.attributes = 'data-domain="a.example,b.example" data-api="{collector}/other/path"'
    page.goto(site.url + "/")
    (request,) = collector.received(1)
    assert request.path == "/other/path"
    assert request.body["d"] == "a.example,b.example"


def test_in_manual_mode_only_the_page_says_what_is_a_view(
    page: Page, collector: Collector, site: Site
) -> None:
    site.attributes = "data-manual"
    page.goto(site.url + "/secret/17")
    page.evaluate("history.pushState({}, '', '/secret/18')")
    nothing_but(page, collector, [])
    page.evaluate("mallard('pageview', {u: 'https://shop.example/secret'})")
    assert collector.event("pageview")["u"] == "https://shop.example/secret"


@pytest.mark.parametrize(
    ("attributes", "path", "counted"),
    [
        ('data-exclude="/admin/**, /*/draft"', "/ducks", True),
        ('data-exclude="/admin/**, /*/draft"', "/admin/a/b", False),
        ('data-exclude="/admin/**, /*/draft"', "/ducks/draft", False),
        ('data-exclude="/admin/**, /*/draft"', "/ducks/17/draft", True),
        ('data-include="/shop/*"', "/shop/17", True),
        ('data-include="/shop/*"', "/blog", False),
        ('data-include="/shop/**" data-exclude="/shop/cart"', "/shop/cart", False),
        ('data-exclude="/a.b"', "/axb", True),
    ],
)
def test_the_extended_script_counts_included_pages_that_are_not_excluded(
    page: Page, collector: Collector, site: Site, attributes: str, path: str, counted: bool
) -> None:
    site.script, site.attributes = "script.exclusions.js", attributes
    page.goto(site.url + path)
    nothing_but(page, collector, ["pageview"] if counted else [])


def test_the_extended_script_works_as_a_module(
    page: Page, collector: Collector, site: Site
) -> None:
    site.script = "script.compat.js"
    site.attributes = 'type="module" data-domain="shop.example"'
    page.goto(site.url + "/")
    assert collector.event("pageview")["d"] == "shop.example"
