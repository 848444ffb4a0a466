"""Automated visitors, and those who only look like them."""

from __future__ import annotations

import pytest
from crawleruseragents import CRAWLER_USER_AGENTS_DATA
from hypothesis import given

from mallard.ingest.bots import MAIL_PROXIES, PREVIEW_APPS, SERVER_CLIENTS, Bots
from tests.ingest.texts import any_url

BOTS = Bots()
KIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    "user_agent",
    [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        f"Mozilla/5.0 {KIT}; compatible; GPTBot/1.1; +https://openai.com/gptbot",
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
        "Mozilla/5.0 (compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
        "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
        "Mozilla/5.0 (compatible; Yahoo! Slurp; http://help.yahoo.com/help/us/ysearch/slurp)",
        "WhatsApp/2.23.20.0",
        "Scrapy/2.11 (+https://scrapy.org)",
        "Mozilla/4.5 (compatible; HTTrack 3.0x; Windows 98)",
        "WGETbot/1.0 (+http://wget.alanreed.org)",
        "httpx - Open-source project (github.com/projectdiscovery/httpx)",
        "2Bone_LinkChkr/1.0 libwww-perl/6.03",
        "OurOwnBot/1.0",
        "acme-crawler python-requests/2.31.0",
    ],
)
def test_who_crawls_previews_or_watches_is_a_bot(user_agent: str) -> None:
    assert BOTS.reason(user_agent) == "bot"


@pytest.mark.parametrize(
    "user_agent",
    [
        f"Mozilla/5.0 (X11; Linux x86_64) {KIT} HeadlessChrome/120.0.0.0 Safari/537.36",
        f"Mozilla/5.0 (X11; Linux x86_64) {KIT} Cypress/13.6.0 Chrome/114.0 Electron/25.8",
        f"Mozilla/5.0 (X11; Linux x86_64) {KIT} Nightmare/2.10.0 Chrome/56.0 Electron/1.8",
        "Mozilla/5.0 (Unknown; Linux x86_64) AppleWebKit/538.1 PhantomJS/2.1.1 Safari/538.1",
        f"Mozilla/5.0 (X11; Linux x86_64) {KIT} Chrome/120.0.0.0 Safari/537.36 Puppeteer",
    ],
)
def test_a_browser_that_a_program_drives_is_automation(user_agent: str) -> None:
    assert BOTS.reason(user_agent) == "automation"


@pytest.mark.parametrize(
    "user_agent",
    [
        "curl/8.5.0",
        "Wget/1.21.4",
        "HTTPie/3.2.2",
        "python-requests/2.31.0",
        "Python-urllib/3.11",
        "python-httpx/0.27.0",
        "Python/3.11 aiohttp/3.9.5",
        "Go-http-client/2.0",
        "okhttp/4.12.0",
        "axios/1.7.2",
        "node",
        "undici",
        "node-fetch/1.0 (+https://github.com/bitinn/node-fetch)",
        "got (https://github.com/sindresorhus/got)",
        "Apache-HttpClient/4.5.14 (Java/17.0.9)",
        "Java-http-client/17.0.9",
        "Jersey/2.25.1 (HttpUrlConnection 1.8.0_141)",
        "GuzzleHttp/6.5.5 curl/7.68.0 PHP/7.4.3",
        "Symfony HttpClient/Curl",
        "Faraday v2.9.0",
        "Ruby",
        "libwww-perl/6.67",
        "Dart/3.3 (dart:io)",
        "reqwest/0.12",
        "PostmanRuntime/7.37.3",
        "Mozilla/5.0 Umami/20.11.0",
        "plausible-python/1.0",
        "",
    ],
)
def test_a_back_end_that_sends_events_is_not_a_bot(user_agent: str) -> None:
    assert BOTS.reason(user_agent) is None


@pytest.mark.parametrize(
    "user_agent",
    [
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {KIT} Chrome/124.0.0.0 Safari/537.36",
        f"Mozilla/5.0 (Linux; Android 11; CUBOT X50) {KIT} Chrome/116.0.0.0 Mobile Safari/537.36",
        f"Mozilla/5.0 (Linux; Android 9; CUBOT_NOTE_S) {KIT} Chrome/83.0 Mobile Safari/537.36",
        f"Mozilla/5.0 (Linux; Android 13; CUBOT) {KIT} Chrome/116.0.0.0 Mobile Safari/537.36",
        f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) {KIT} WhatsApp/24.8.85",
        f"Mozilla/5.0 (Linux; Android 14; SM-G991B; wv) {KIT} Chrome/124.0.1.2 Viber/22.4",
        f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) {KIT} Instagram 334.0.4.32.98",
        f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) {KIT} [Pinterest/iOS]",
        f"Mozilla/5.0 (Windows NT 10.0) {KIT} discord/1.0 Chrome/120.0.6 Electron/28.2 Safari/5",
        "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0",
        "Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8 Build/UQ1A)",
        "MyApp/1 CFNetwork/1494.0.7 Darwin/23.4.0",
    ],
)
def test_a_person_is_not_a_bot(user_agent: str) -> None:
    assert BOTS.reason(user_agent) is None


@pytest.mark.parametrize(
    "user_agent",
    [
        "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
        "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
    ],
)
def test_opening_a_mail_is_not_a_bot(user_agent: str) -> None:
    assert BOTS.reason(user_agent) is None


def test_every_exception_we_make_still_stands_in_the_list() -> None:
    listed = {entry["pattern"] for entry in CRAWLER_USER_AGENTS_DATA}
    assert listed >= SERVER_CLIENTS | PREVIEW_APPS | MAIL_PROXIES


def test_every_sample_of_the_list_is_a_bot_but_for_the_exceptions() -> None:
    missed = {
        entry["pattern"]
        for entry in CRAWLER_USER_AGENTS_DATA
        for sample in entry["instances"]
        if BOTS.reason(sample) is None
    }
    assert missed <= SERVER_CLIENTS | MAIL_PROXIES


@given(any_url)
def test_whatever_is_sent_there_is_an_answer(user_agent: str) -> None:
    assert BOTS.reason(user_agent) in {None, "bot", "automation"}
