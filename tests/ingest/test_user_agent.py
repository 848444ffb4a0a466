"""Real agents and what they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mallard.ingest.sender import ClientHints
from mallard.ingest.user_agent import (
    AGENT_LENGTH_MAX,
    NAME_LENGTH_MAX,
    UNKNOWN,
    Agent,
    UserAgents,
    device_of_width,
)
from tests.ingest.texts import any_url, is_storable

AGENTS = UserAgents()
GMAIL_PROXY = (
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
)
KIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
Known = tuple[str | None, str | None, str | None, str | None, str | None]
IOS_KIT = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
IPHONE = f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) {IOS_KIT}"
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
WINDOWS_CHROME = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {KIT} Chrome/124.0.0.0 Safari/537.36"
ANDROID_CHROME = f"Mozilla/5.0 (Linux; Android 10; K) {KIT} Chrome/124.0.0.0 Mobile Safari/537.36"


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (WINDOWS_CHROME, ("Chrome", "124", "Windows", "10", "Desktop")),
        (f"{WINDOWS_CHROME} Edg/124.0.0.0", ("Edge", "124", "Windows", "10", "Desktop")),
        (f"{WINDOWS_CHROME} OPR/110.0.0.0", ("Opera", "110", "Windows", "10", "Desktop")),
        (f"{WINDOWS_CHROME} Vivaldi/6.7", ("Vivaldi", "6", "Windows", "10", "Desktop")),
        (
            "Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko",
            ("Internet Explorer", "11", "Windows", "7", "Desktop"),
        ),
        (
            "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; Trident/4.0; Tablet PC 2.0)",
            ("Internet Explorer", "8", "Windows", "7", "Desktop"),
        ),
        (
            f"{MAC} {IOS_KIT} Version/17.4.1 Safari/605.1.15",
            ("Safari", "17", "macOS", "10.15", "Desktop"),
        ),
        (
            "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0",
            ("Firefox", "125", "Linux", None, "Desktop"),
        ),
        (
            f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {KIT} Chrome/124.0.0.0 Safari/537.36",
            ("Chrome", "124", "Chrome OS", "14541.0", "Desktop"),
        ),
        (ANDROID_CHROME, ("Chrome", "124", "Android", "10", "Mobile")),
        (
            f"Mozilla/5.0 (Linux; Android 14; Pixel Tablet) {KIT} Chrome/124.0.0.0 Safari/537.36",
            ("Chrome", "124", "Android", "14", "Tablet"),
        ),
        (
            f"Mozilla/5.0 (Linux; Android 10; K) {KIT} SamsungBrowser/24.0 Chrome/117.0.0.0 "
            "Mobile Safari/537.36",
            ("Samsung Internet", "24", "Android", "10", "Mobile"),
        ),
        (
            f"{IPHONE} Version/17.4 Mobile/15E148 Safari/604.1",
            ("Safari", "17", "iOS", "17.4", "Mobile"),
        ),
        (
            f"{IPHONE} CriOS/124.0.6367.88 Mobile/15E148 Safari/604.1",
            ("Chrome", "124", "iOS", "17.4", "Mobile"),
        ),
        (
            f"{IPHONE} FxiOS/125.0 Mobile/15E148 Safari/605.1.15",
            ("Firefox", "125", "iOS", "17.4", "Mobile"),
        ),
        (
            f"{IPHONE} Version/17.4 Mobile/15E148 DuckDuckGo/7 Safari/605.1.15",
            ("DuckDuckGo", "7", "iOS", "17.4", "Mobile"),
        ),
        (
            f"Mozilla/5.0 (iPad; CPU OS 17_4 like Mac OS X) {IOS_KIT} Version/17.4 Mobile/15E148 "
            "Safari/604.1",
            ("Safari", "17", "iPadOS", "17.4", "Tablet"),
        ),
        (
            f"Mozilla/5.0 (Linux; Android 11; KFTRWI) {KIT} Silk/124.3.2 like Chrome/124.0.6367.82 "
            "Safari/537.36",
            ("Amazon Silk", "124", "Android", "11", "Tablet"),
        ),
        (
            f"Mozilla/5.0 (Web0S; Linux/SmartTV) {KIT} Chrome/94.0.4606.128 Safari/537.36",
            ("Chrome", "94", "webOS", None, "Desktop"),
        ),
        (
            f"Mozilla/5.0 (PlayStation; PlayStation 5/6.50) {IOS_KIT} Version/15.4 Safari/605.1.15",
            ("Safari", "15", "PlayStation", None, "Desktop"),
        ),
        (
            "Opera/9.80 (Android; Opera Mini/36.2/119.132; U; en) Presto/2.12.423 Version/12.16",
            ("Opera Mini", "36", "Android", None, "Mobile"),
        ),
        (
            "Mozilla/5.0 (Mobile; Nokia 2720; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5.2",
            ("Firefox", "48", "KaiOS", "2.5", "Mobile"),
        ),
    ],
)
def test_browsers_are_known(user_agent: str, expected: Known) -> None:
    assert AGENTS.describe(user_agent) == Agent(*expected)


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (
            f"{IPHONE} Mobile/15E148 Instagram 334.0.4.32.98 (iPhone14,5; iOS 17_4; en_US)",
            ("Instagram", "334", "iOS", "17.4", "Mobile"),
        ),
        (
            f"{IPHONE} Mobile/21F90 [FBAN/FBIOS;FBAV/465.0.0.30.107;FBBV/1;FBDV/iPhone14,5]",
            ("Facebook", "465", "iOS", "17.4", "Mobile"),
        ),
        (
            f"{IPHONE} Mobile/15E148 [LinkedInApp]/9.29.7",
            ("LinkedIn", "9", "iOS", "17.4", "Mobile"),
        ),
        (
            f"{IPHONE} GSA/312.0.61 Mobile/15E148 Safari/604.1",
            ("Google App", "312", "iOS", "17.4", "Mobile"),
        ),
        (f"{IPHONE} Mobile/15E148", ("iOS WebView", None, "iOS", "17.4", "Mobile")),
        (f"{MAC} {IOS_KIT} Mobile/15E148", ("iOS WebView", None, "iPadOS", None, "Tablet")),
        (
            f"Mozilla/5.0 (Linux; Android 14; SM-S918B; wv) {KIT} Version/4.0 Chrome/124.0.6367.82 "
            "Mobile Safari/537.36",
            ("Android WebView", "124", "Android", "14", "Mobile"),
        ),
    ],
)
def test_apps_that_show_pages_are_known(user_agent: str, expected: Known) -> None:
    assert AGENTS.describe(user_agent) == Agent(*expected)


def test_a_mail_proxy_is_named_and_says_nothing_of_who_opened_the_mail() -> None:
    agent = AGENTS.describe(GMAIL_PROXY, screen_width=1)
    assert agent == Agent(browser="Gmail image proxy", is_proxy=True)


def brands(*names: str) -> str:
    return ", ".join(f'"{name}";v="{version}"' for name, version in (n.split("=") for n in names))


@pytest.mark.parametrize(
    ("sent", "browser", "version"),
    [
        (brands("Chromium=124", "Brave=124", "Not-A.Brand=99"), "Brave", "124"),
        (brands("Not/A)Brand=8", "Chromium=126", "Opera=112"), "Opera", "112"),
        (brands("Google Chrome=124", "Chromium=124"), "Chrome", "124"),
        ("not a list", "Chrome", "124"),
    ],
)
def test_a_brand_says_more_than_an_agent_that_looks_like_chrome(
    sent: str, browser: str, version: str
) -> None:
    agent = AGENTS.describe(WINDOWS_CHROME, ClientHints(brands=sent))
    assert (agent.browser, agent.browser_version) == (browser, version)


def test_a_brand_does_not_hide_the_app_that_shows_the_page() -> None:
    agent = AGENTS.describe(
        f"{IPHONE} Mobile/15E148 Instagram 334.0.4.32.98", ClientHints(brands=brands("Brave=1"))
    )
    assert agent.browser == "Instagram"


@pytest.mark.parametrize(
    ("platform_version", "expected"),
    [
        ('"15.0.0"', "11"),
        ('"13.0.0"', "11"),
        ('"10.0.0"', "10"),
        ('"0.3.0"', "10"),
        ('""', "10"),
        (None, "10"),
    ],
)
def test_windows_11_is_told_by_its_platform_version(
    platform_version: str | None, expected: str
) -> None:
    hints = ClientHints(platform='"Windows"', platform_version=platform_version)
    assert AGENTS.describe(WINDOWS_CHROME, hints).os_version == expected


def test_a_hint_says_which_macos_and_android_it_is() -> None:
    mac = AGENTS.describe(
        f"{MAC} {KIT} Chrome/124.0.0.0 Safari/537.36",
        ClientHints(platform='"macOS"', platform_version='"14.4.1"'),
    )
    assert (mac.os, mac.os_version) == ("macOS", "14.4")
    android = AGENTS.describe(ANDROID_CHROME, ClientHints(platform_version='"14.0.0"'))
    assert (android.os, android.os_version) == ("Android", "14")


def test_hints_alone_describe_a_browser_that_sends_no_agent() -> None:
    hints = ClientHints(brands=brands("Google Chrome=124"), mobile="?1", platform='"Android"')
    assert AGENTS.describe("", hints) == Agent("Chrome", "124", "Android", None, "Mobile")


@pytest.mark.parametrize(
    ("width", "device"),
    [(1, "Mobile"), (575, "Mobile"), (576, "Tablet"), (991, "Tablet"), (992, "Desktop")],
)
def test_width_tells_the_device_where_the_agent_does_not(width: int, device: str) -> None:
    assert device_of_width(width) == device
    assert AGENTS.describe("MyReader/1.0", screen_width=width).device_type == device


def test_width_does_not_overrule_the_agent() -> None:
    assert AGENTS.describe(WINDOWS_CHROME, screen_width=400).device_type == "Desktop"


def test_no_agent_is_unknown_and_a_library_has_no_device() -> None:
    assert AGENTS.describe("") == AGENTS.describe("  ") == UNKNOWN
    assert AGENTS.describe("curl/8.5.0").device_type is None


def test_an_agent_is_cut_before_it_is_read() -> None:
    padding = "x" * AGENT_LENGTH_MAX
    assert AGENTS.describe(padding + WINDOWS_CHROME) == AGENTS.describe(padding)


def test_hints_too_long_to_be_true_are_ignored() -> None:
    hints = ClientHints(brands=brands("Brave=1") + " " * 1000)
    assert AGENTS.describe(WINDOWS_CHROME, hints).browser == "Chrome"


@given(any_url, any_url, any_url, st.integers())
def test_whatever_is_sent_only_short_storable_names_come_out(
    user_agent: str, one: str, other: str, width: int
) -> None:
    hints = ClientHints(brands=f'"{one}";v="1"', platform=other, platform_version=one)
    *texts, is_proxy = AGENTS.describe(user_agent, hints, width)
    assert is_proxy is False
    for text in texts:
        assert is_storable(text)
        assert text is None or 0 < len(text) <= NAME_LENGTH_MAX
