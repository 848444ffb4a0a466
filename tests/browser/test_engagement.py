"""How long a page was looked at, and how far it was read."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.browser.origins import Collector, Site, nothing_but

# Five screens high.
TALL = '<style>body { margin: 0 } div { height: 2500px }</style><div class="tall"></div>'
HIDE = """hidden => {
    Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
    document.dispatchEvent(new Event("visibilitychange", {bubbles: true}));
}"""


def open_page(page: Page, collector: Collector, site: Site) -> None:
    site.body = TALL
    page.goto(site.url + "/read", referer="https://search.example/")
    collector.event("pageview")


def scroll_to(page: Page, line: int) -> None:
    page.evaluate(f"scrollTo(0, {line})")


def test_leaving_a_page_tells_the_time_and_the_depth_of_its_view(
    page: Page, collector: Collector, site: Site
) -> None:
    open_page(page, collector, site)
    page.clock.run_for(2000)
    scroll_to(page, 750)
    page.clock.run_for(2000)
    scroll_to(page, 0)
    page.clock.run_for(1000)
    page.goto("about:blank")
    told = collector.event("engagement")
    assert told["e"] == 5000
    assert told["sd"] == 50
    assert told["url"] == site.url + "/read"


def test_hiding_a_page_tells_what_is_new_since_the_last_time(
    page: Page, collector: Collector, site: Site
) -> None:
    open_page(page, collector, site)
    page.clock.run_for(3000)
    page.evaluate(HIDE, True)
    assert collector.event("engagement")["e"] == 3000
    page.clock.run_for(60_000)  # nobody looks
    page.evaluate(HIDE, False)
    page.clock.run_for(4000)
    page.evaluate(HIDE, True)
    assert [(event["e"], event["sd"]) for event in collector.named("engagement", 2)] == [
        (3000, 20),
        (4000, 20),
    ]


def test_less_than_three_seconds_are_told_only_if_the_page_was_scrolled_further(
    page: Page, collector: Collector, site: Site
) -> None:
    open_page(page, collector, site)
    page.clock.run_for(1000)
    page.evaluate(HIDE, True)
    collector.event("engagement")  # the first screen was read
    page.evaluate(HIDE, False)
    page.clock.run_for(2500)
    page.evaluate(HIDE, True)
    nothing_but(page, collector, ["pageview", "engagement"])
    page.evaluate(HIDE, False)
    scroll_to(page, 2000)
    page.clock.run_for(500)
    page.evaluate(HIDE, True)
    last = collector.named("engagement", 2)[1]
    assert (last["e"], last["sd"]) == (3000, 100)


def test_time_without_the_focus_does_not_count(
    page: Page, collector: Collector, site: Site
) -> None:
    open_page(page, collector, site)
    page.clock.run_for(2000)
    page.evaluate("document.hasFocus = () => false")
    page.clock.run_for(30_000)
    page.evaluate("document.hasFocus = () => true")
    page.clock.run_for(2000)
    page.evaluate(HIDE, True)
    assert collector.event("engagement")["e"] == 4000


def test_a_new_path_tells_of_the_old_one_and_begins_anew(
    page: Page, collector: Collector, site: Site
) -> None:
    open_page(page, collector, site)
    scroll_to(page, 2000)
    page.clock.run_for(4000)
    page.evaluate("scrollTo(0, 0); history.pushState({}, '', '/next')")
    page.clock.run_for(4000)
    collector.event("engagement")
    page.goto("about:blank")
    told = collector.named("engagement", 2)
    assert [event["url"].removeprefix(site.url) for event in told] == ["/read", "/next"]
    assert [event["sd"] for event in told] == [100, 20]
    assert [event["e"] for event in told] == [4000, 4000]


def test_a_page_that_rewrites_its_address_all_the_time_is_not_looked_at_for_longer(
    page: Page, collector: Collector, site: Site
) -> None:
    open_page(page, collector, site)
    page.evaluate("for (let i = 0; i < 50; i++) history.replaceState({}, '', '?at=' + i)")
    page.clock.run_for(3000)
    page.evaluate(HIDE, True)
    assert collector.event("engagement")["e"] == 3000


def test_a_page_that_sends_its_own_pageview_has_engagement_with_its_address_and_props(
    page: Page, collector: Collector, site: Site
) -> None:
    site.attributes = "data-manual"
    site.body = TALL
    page.goto(site.url + "/user/17")
    page.evaluate(
        """mallard("pageview", {u: "https://shop.example/user", props: {plan: "pro"},
            callback: () => document.title += "called "})"""
    )
    collector.event("pageview")
    page.clock.run_for(3000)
    page.evaluate(HIDE, True)
    told = collector.event("engagement")
    assert told["u"] == "https://shop.example/user"
    assert told["props"] == {"plan": "pro"}
    page.wait_for_function("document.title")
    assert page.title() == "called"


def test_a_page_that_is_not_counted_has_no_engagement(
    page: Page, collector: Collector, site: Site
) -> None:
    site.script, site.attributes = "script.exclusions.js", 'data-exclude="/private"'
    open_page(page, collector, site)
    page.clock.run_for(5000)
    page.evaluate("history.pushState({}, '', '/private')")
    page.clock.run_for(5000)
    page.evaluate(HIDE, True)
    told = collector.event("engagement")
    assert told["url"] == site.url + "/read"
    nothing_but(page, collector, ["pageview", "engagement"])
