"""Custom events, and those that clicks and submitted forms make."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.browser.origins import Collector, Site, nothing_but

STUB = "<script>window.{0} = window.{0} || function () {{ ({0}.q = {0}.q || []).push(arguments) }};"
ALL = "data-outbound data-files data-forms"
# Navigations to these stay without effect, so that the page lives on.
LINKS = """<base target="_self">
<a id="out" href="https://other.example/x?y=1">out</a>
<a id="in" href="#in">in</a>
<a id="mail" href="mailto:duck@shop.example">mail</a>
<a id="file" href="/files/price%20list.PDF?v=2">file</a>
<a id="page" href="/files.pdf/about">page</a>
<a id="both" href="https://other.example/ducks.tar.gz"><b><i id="inner">both</i></b></a>
<script>addEventListener("click", e => e.preventDefault())</script>"""


def open_page(page: Page, collector: Collector, site: Site, path: str = "/") -> None:
    page.goto(site.url + path)
    collector.event("pageview")


@pytest.mark.parametrize("build", ["script.js", "script.pageviews.js", "script.compat.js"])
@pytest.mark.parametrize("function", ["mallard", "plausible"])
def test_a_custom_event_carries_props_revenue_and_what_else_it_is_given(
    page: Page, collector: Collector, site: Site, function: str, build: str
) -> None:
    site.script = build
    open_page(page, collector, site)
    page.evaluate(
        f"""{function}("Order", {{props: {{plan: "pro", seats: 3}}, interactive: false,
            revenue: {{amount: 9.5, currency: "EUR"}}, url: "https://shop.example/order"}})"""
    )
    order = collector.event("Order")
    assert order["props"] == {"plan": "pro", "seats": 3}
    assert order["revenue"] == {"amount": 9.5, "currency": "EUR"}
    assert order["interactive"] is False
    assert order["url"] == "https://shop.example/order"
    assert {request.method for request in collector.received(2)} == {"POST"}


@pytest.mark.parametrize("function", ["mallard", "plausible"])
def test_calls_before_the_script_ran_wait_in_the_stub_and_follow_the_pageview(
    page: Page, collector: Collector, site: Site, function: str
) -> None:
    site.head = STUB.format(function) + f"{function}('Early', {{props: {{a: 'b'}}}})</script>"
    page.goto(site.url + "/")
    assert collector.event("Early")["props"] == {"a": "b"}
    page.evaluate(f"{function}('Late')")
    collector.event("Late")
    nothing_but(page, collector, ["pageview", "Early", "Late"])


def test_a_callback_is_called_with_the_response(
    page: Page, collector: Collector, site: Site
) -> None:
    open_page(page, collector, site)
    call = "new Promise(done => mallard('x', {callback: answer => done(answer.status)}))"
    assert page.evaluate(call) == 202


def test_a_callback_is_called_with_the_error_when_nobody_answers_and_the_page_sees_none(
    page: Page, collector: Collector, site: Site
) -> None:
    site.attributes = 'data-api="http://blocked.example:1/" data-manual'
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(site.url + "/")
    call = "new Promise(done => mallard('x', {callback: answer => done(answer instanceof Error)}))"
    page.evaluate("mallard('without a callback')")
    assert page.evaluate(call) is True
    assert errors == []


def test_a_callback_is_called_when_the_visitor_is_not_counted(
    page: Page, collector: Collector, site: Site
) -> None:
    page.add_init_script("localStorage.mallard_ignore = 'true'")
    page.goto(site.url + "/")
    call = "new Promise(done => mallard('x', {callback: answer => done(answer === undefined)}))"
    assert page.evaluate(call) is True
    nothing_but(page, collector, [])


@pytest.mark.parametrize("chosen_by", ["attributes", "file name"])
@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("#out", {"Outbound Link: Click": "https://other.example/x?y=1"}),
        ("#file", {"File Download": "/files/price%20list.PDF?v=2"}),
        (
            "#inner",
            {
                "Outbound Link: Click": "https://other.example/ducks.tar.gz",
                "File Download": "https://other.example/ducks.tar.gz",
            },
        ),
        ("#in", {}),
        ("#mail", {}),
        ("#page", {}),
    ],
)
def test_a_click_on_a_link_is_what_the_link_is(
    page: Page,
    collector: Collector,
    site: Site,
    chosen_by: str,
    link: str,
    expected: dict[str, str],
) -> None:
    if chosen_by == "attributes":
        site.attributes = ALL
    else:
        site.script = "script.file-downloads.form-submissions.outbound-links.js"
    site.body = LINKS
    open_page(page, collector, site)
    page.click(link)
    for name, url in expected.items():
        assert collector.event(name)["props"]["url"].removeprefix(site.url) == url
    page.evaluate("document.hasFocus = () => false")
    nothing_but(page, collector, ["pageview", *expected])


def test_links_make_no_events_unless_they_are_wanted(
    page: Page, collector: Collector, site: Site
) -> None:
    site.body = LINKS + '<form onsubmit="return false"><button>Go</button></form>'
    open_page(page, collector, site)
    for link in ("#out", "#file", "#both", "button"):
        page.click(link)
    nothing_but(page, collector, ["pageview"])


def test_the_middle_button_counts_and_the_right_one_does_not(
    page: Page, collector: Collector, site: Site
) -> None:
    site.attributes = "data-outbound"
    site.body = LINKS + "<script>addEventListener('auxclick', e => e.preventDefault())</script>"
    open_page(page, collector, site)
    page.click("#out", button="right")
    page.click("#out", button="middle")
    collector.event("Outbound Link: Click")
    nothing_but(page, collector, ["pageview", "Outbound Link: Click"])


def test_a_click_that_leaves_the_page_is_told_all_the_same(
    page: Page, collector: Collector, site: Site
) -> None:
    site.attributes = "data-outbound"
    site.body = f'<a href="http://other.example:{site.port}/there">out</a>'
    open_page(page, collector, site)
    page.click("a")
    page.wait_for_url("**/there")
    event = collector.event("Outbound Link: Click")
    assert event["url"] == site.url + "/"
    assert event["props"] == {"url": f"http://other.example:{site.port}/there"}


def test_a_submitted_form_is_an_event_of_its_page(
    page: Page, collector: Collector, site: Site
) -> None:
    site.attributes = "data-forms"
    site.body = '<form action="/thanks"><input name="secret"><button>Send</button></form>'
    open_page(page, collector, site, "/contact")
    page.fill("input", "nobody's business")
    page.click("button")
    page.wait_for_url("**/thanks**")
    event = collector.event("Form: Submission")
    assert event["url"] == site.url + "/contact"
    assert "nobody" not in str(event)


@pytest.mark.parametrize("build", ["script.js", "script.tagged-events.js", "script.compat.js"])
@pytest.mark.parametrize(
    ("html", "clicked", "name", "props"),
    [
        (
            '<b class="big plausible-event-name=Sign+Up plausible-event-plan=pro red">x</b>',
            "b",
            "Sign Up",
            {"plan": "pro"},
        ),
        (
            '<p class="plausible-event-name--Buy plausible-event-pay-by--card"><b>x</b></p>',
            "b",
            "Buy",
            {"pay-by": "card"},
        ),
        (
            '<div class="mallard-event-name=Q&amp;A"><a href="/faq#x"><b>x</b></a></div>',
            "b",
            "Q&A",
            {"url": "/faq#x"},
        ),
        (
            '<button class="plausible-event-name=Icon"><svg class="i"><path d="M0 0h9v9H0z"/></svg>'
            "</button>",
            "path",
            "Icon",
            {},
        ),
    ],
)
def test_a_click_in_a_tagged_element_is_its_event(
    page: Page,
    collector: Collector,
    site: Site,
    build: str,
    html: str,
    clicked: str,
    name: str,
    props: dict[str, str],
) -> None:
    site.script = build
    site.body = html + "<script>addEventListener('click', e => e.preventDefault())</script>"
    open_page(page, collector, site)
    page.click(clicked)
    sent = collector.event(name)["props"]
    assert {key: value.removeprefix(site.url) for key, value in sent.items()} == props
    nothing_but(page, collector, ["pageview", name])


def test_a_tagged_form_is_an_event_when_it_is_submitted_and_not_when_it_is_clicked(
    page: Page, collector: Collector, site: Site
) -> None:
    site.body = """<form class="plausible-event-name=Newsletter" onsubmit="return false">
        <input><button>Send</button></form>"""
    open_page(page, collector, site)
    page.click("input")
    nothing_but(page, collector, ["pageview"])
    page.click("button")
    collector.event("Newsletter")


def test_the_extended_script_takes_tags_from_attributes_and_props_from_its_tag(
    page: Page, collector: Collector, site: Site
) -> None:
    site.script = "script.data-attributes.pageview-props.js"
    site.attributes = 'event-author="Ada" event-plan="free"'
    site.body = '<button data-event-name="Sign+Up" data-event-plan="pro">x</button>'
    open_page(page, collector, site)
    page.click("button")
    assert collector.event("pageview")["props"] == {"author": "Ada", "plan": "free"}
    assert collector.event("Sign Up")["props"] == {"author": "Ada", "plan": "pro"}
