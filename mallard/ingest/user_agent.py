"""Which browser, system and kind of device an agent is, from User-Agent and client hints.

Invariants: the agent is cut at `AGENT_LENGTH_MAX` before anything reads it, so what an agent
costs is bounded in time and in the cache's memory. Nothing here raises, and no name or version
is longer than `NAME_LENGTH_MAX`, so that no whole User-Agent can pass as one.

What browsers freeze in the User-Agent stays as they froze it, which is what peers show too:
Windows "10" is 10 or 11, macOS "10.15" that or later, Android "10" on Chrome that or later.
Where a client hint tells the truth, the hint wins.

Sources: ua-parser (uap-core's expressions in its Rust core) for names and versions; the hints as
in `sender.ClientHints`; Windows 11 is Sec-CH-UA-Platform-Version 13 and later (Microsoft).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from ua_parser.core import OS, Domain, UserAgent
from ua_parser.loaders import load_lazy_builtins
from ua_parser.regex import Resolver

from mallard.ingest.page import clean
from mallard.ingest.sender import ClientHints

AGENT_LENGTH_MAX = 512  # characters; real agents stay under 400
HINT_LENGTH_MAX = 256
NAME_LENGTH_MAX = 40
CACHED_AGENTS_MAX = 4096  # at most 4 bytes a character: under 20 MiB when each is hostile

DESKTOP = "Desktop"
MOBILE = "Mobile"
TABLET = "Tablet"

# Plausible's classes for a screen of which nothing else is known; in CSS pixels.
MOBILE_WIDTH_BELOW = 576
TABLET_WIDTH_BELOW = 992


class Agent(NamedTuple):
    """What is known of a browser; None where it is not.

    device_type: Desktop (televisions and consoles too: a large screen that stays where it is),
    Mobile or Tablet. Versions: a browser's is its major number, a system's "major" or
    "major.minor". is_proxy: a mail service that fetches an image for whoever opened a mail; the
    address is the service's too.
    """

    browser: str | None = None
    browser_version: str | None = None
    os: str | None = None
    os_version: str | None = None
    device_type: str | None = None
    is_proxy: bool = False


UNKNOWN = Agent()

_BROWSERS = {
    "Chrome Mobile": "Chrome",
    "Chrome Mobile iOS": "Chrome",
    "Chrome Mobile WebView": "Android WebView",
    "Chromium": "Chrome",
    "Mobile Safari": "Safari",
    "Mobile Safari UI/WKWebView": "iOS WebView",
    "Firefox Mobile": "Firefox",
    "Firefox iOS": "Firefox",
    "Edge Mobile": "Edge",
    "Opera Mobile": "Opera",
    "DuckDuckGo Mobile": "DuckDuckGo",
    "WeChat Browser": "WeChat",
    "IE": "Internet Explorer",
    "IE Mobile": "Internet Explorer",
}
# Sec-CH-UA brands that say more than the User-Agent, which is Chrome's for many of them.
_BRANDS = {
    "brave": "Brave",
    "microsoft edge": "Edge",
    "opera": "Opera",
    "opera gx": "Opera GX",
    "vivaldi": "Vivaldi",
    "duckduckgo": "DuckDuckGo",
    "samsung internet": "Samsung Internet",
    "yandex": "Yandex Browser",
    "yabrowser": "Yandex Browser",
    "whale": "Whale",
    "arc": "Arc",
    "avast secure browser": "Avast Secure Browser",
    "android webview": "Android WebView",
}
_BRAND = re.compile(r'"([^"]{1,64})"\s*;\s*v="(\d{1,6})')
# Browsers and in-app views that ua-parser takes for the engine under them.
_TOLD = re.compile(r"(GSA|LinkedInApp\]|KAKAOTALK|Viber|HuaweiBrowser)[/ ](\d{1,6})")
_TOLD_NAMES = {
    "GSA": "Google App",
    "LinkedInApp]": "LinkedIn",
    "KAKAOTALK": "KakaoTalk",
    "HuaweiBrowser": "Huawei Browser",
}
# They claim a browser and a system that are nobody's: Gmail's says Firefox 11 on Windows XP.
_PROXIES = {"GoogleImageProxy": "Gmail image proxy", "YahooMailProxy": "Yahoo! Mail proxy"}
_PROXY = re.compile("|".join(_PROXIES))
_SYSTEMS = {
    "Mac OS X": "macOS",
    "Web0S": "webOS",
    "Chromium OS": "Chrome OS",
    **dict.fromkeys(
        (
            *("Ubuntu", "Kubuntu", "Debian", "Fedora", "Red Hat", "CentOS", "SUSE", "openSUSE"),
            *("Linux Mint", "Arch Linux", "Gentoo", "Mandriva", "Mageia", "Slackware", "Puppy"),
        ),
        "Linux",
    ),
}
# iPadOS asks for desktop sites as a Macintosh, and its web views forget to drop "Mobile".
_IPAD_AS_MAC = re.compile(r"Macintosh.*Mobile/")
# The first that matches decides.
_DEVICES = (
    (
        re.compile(
            r"smart-?tv|\btv\b|web0s|bravia|appletv|crkey|roku|\bAFT[A-Z]|xbox|playstation|nintendo",
            re.I,
        ),
        DESKTOP,
    ),
    # "Tablet PC" is what old Internet Explorers say on any computer.
    (re.compile(r"ipad|tablet(?! pc)|\bkindle\b|\bsilk/|\bKF[A-Z]{3,}|playbook", re.I), TABLET),
    (_IPAD_AS_MAC, TABLET),
    (re.compile(r"mobi|iphone|ipod|opera mini|windows phone|blackberry|kaios", re.I), MOBILE),
    # Android without "Mobile" is a tablet, by the convention of its makers.
    (re.compile(r"android", re.I), TABLET),
    (re.compile(r"windows nt|macintosh|x11|\bcros\b|linux (?:x86_64|i686)", re.I), DESKTOP),
)
_DIGITS = re.compile(r'"?(\d{1,9})(?:\.(\d{1,9}))?')


class UserAgents:
    """Describes agents; a seen one costs a dictionary lookup."""

    def __init__(self) -> None:
        self._resolver = Resolver(load_lazy_builtins())
        self._describe = lru_cache(CACHED_AGENTS_MAX)(self._read)

    def describe(
        self, user_agent: str, hints: ClientHints | None = None, screen_width: int | None = None
    ) -> Agent:
        """Return what an agent is.

        screen_width: in CSS pixels; it decides the device only where nothing else does.
        """
        if hints is not None and _too_long(hints):
            hints = None
        agent = self._describe(user_agent[:AGENT_LENGTH_MAX], hints)
        silent = agent.device_type is None and not agent.is_proxy
        if silent and screen_width is not None and screen_width > 0:
            return agent._replace(device_type=device_of_width(screen_width))
        return agent

    def _read(self, user_agent: str, hints: ClientHints | None) -> Agent:
        if not user_agent.strip() and hints is None:
            return UNKNOWN
        # The Rust core takes UTF-8, which has no surrogates.
        text = clean(user_agent)
        proxy = _PROXY.search(text)
        if proxy:
            return Agent(browser=_PROXIES[proxy[0]], is_proxy=True)
        found = self._resolver(text, Domain.USER_AGENT | Domain.OS)
        browser, browser_version = _browser(text, found.user_agent, hints)
        system, system_version = _system(text, found.os, hints)
        return Agent(
            _name(browser),
            _name(browser_version),
            _name(system),
            _name(system_version),
            _device(text, hints),
        )


def device_of_width(width: int) -> str:
    """Return the device class of a screen, in CSS pixels, of which only the width is known."""
    if width < MOBILE_WIDTH_BELOW:
        return MOBILE
    return TABLET if width < TABLET_WIDTH_BELOW else DESKTOP


def _browser(
    text: str, found: UserAgent | None, hints: ClientHints | None
) -> tuple[str | None, str | None]:
    told = _TOLD.search(text)
    if told:
        return _TOLD_NAMES.get(told[1], told[1]), told[2]
    name = _BROWSERS.get(found.family, found.family) if found else None
    if name == "Apple Mail" and _IPAD_AS_MAC.search(text):
        name = "iOS WebView"
    version = found.major if found and name != "iOS WebView" else None
    if hints and hints.brands and name in {None, "Chrome"}:
        for brand, major in _BRAND.findall(hints.brands):
            if brand.lower() in _BRANDS:
                return _BRANDS[brand.lower()], major
            if name is None and brand in {"Google Chrome", "Chromium"}:
                version = version or major
        if name is None and version:
            name = "Chrome"
    return name, version


def _system(
    text: str, found: OS | None, hints: ClientHints | None
) -> tuple[str | None, str | None]:
    name = _SYSTEMS.get(found.family, found.family) if found else None
    version = None
    if found and found.major and name != "Linux":
        version = f"{found.major}.{found.minor}" if found.minor else found.major
    if "iPad" in text or _IPAD_AS_MAC.search(text):
        return "iPadOS", version if name == "iOS" else None
    if name is None and "PlayStation" in text:
        name = "PlayStation"
    platform = hints.platform.strip(' "') if hints and hints.platform else ""
    if name is None and platform and platform != "Unknown":
        name = _SYSTEMS.get(platform, platform)
    if hints and hints.platform_version and name in {"Windows", "macOS", "Android", "Chrome OS"}:
        version = _hinted_version(name, hints.platform_version) or version
    return name, version


def _hinted_version(system: str, raw: str) -> str | None:
    match = _DIGITS.match(raw)
    if not match:
        return None
    major, minor = int(match[1]), match[2]
    if system == "Windows":
        # 0 stands for 7, 8 and 8.1, which the User-Agent tells apart; 1 to 12 for 10.
        return "11" if major >= 13 else ("10" if major else None)
    if major == 0:
        return None
    return f"{major}.{minor}" if system == "macOS" and minor else str(major)


def _device(text: str, hints: ClientHints | None) -> str | None:
    for pattern, device in _DEVICES:
        if pattern.search(text):
            return device
    if hints and hints.mobile == "?1":
        return MOBILE
    if hints and hints.platform:
        return TABLET if "Android" in hints.platform else DESKTOP
    return None


def _too_long(hints: ClientHints) -> bool:
    for value in hints:  # noqa: SIM110 - any() of a generator takes four times as long
        if value is not None and len(value) > HINT_LENGTH_MAX:
            return True
    return False


def _name(text: str | None) -> str | None:
    return clean(text.strip())[:NAME_LENGTH_MAX] or None if text else None
