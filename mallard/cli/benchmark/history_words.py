"""What the events of `history.py` are made of: lists that DuckDB picks from.

A value that stands in a list n times is picked n times as often.
"""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def _weighted(*pairs: tuple[T, int]) -> list[T]:
    return [value for value, weight in pairs for _ in range(weight)]


_COUNTRIES = (  # noqa: SIM905 - as a list it takes a page
    "US DE GB FR IN CA NL BR ES IT PL AU JP SE CH AT MX TR BE ID NO DK PT CZ FI IE RO UA GR HU ZA "
    "AR CO CL PH MY SG TH VN KR TW HK IL AE SA EG NG KE PK BD LK NZ SK BG HR RS LT LV EE SI LU IS"
).split()
_WORDS = (  # noqa: SIM905
    "pricing privacy release install guide backup cluster query parquet storage metrics visitor "
    "session funnel report export import schema column index cache memory latency deploy docker "
    "server proxy header cookie consent region country browser mobile desktop campaign email "
    "newsletter pixel script tracker dashboard chart filter segment goal revenue currency order "
    "product review summer winter garden kitchen travel recipe coffee bicycle camera music "
    "theater history science health market finance energy climate school football weather museum "
    "interview"
).split()

# Browser, system, its version, device; newer versions of a browser are more common than older.
_AGENTS = _weighted(
    (("Chrome", 142, "Windows", "10", "Desktop"), 24),
    (("Chrome", 142, "Windows", "11", "Desktop"), 6),
    (("Chrome Mobile", 142, "Android", "10", "Mobile"), 20),
    (("Chrome Mobile", 142, "Android", "14", "Mobile"), 4),
    (("Mobile Safari", 18, "iOS", "18.6", "Mobile"), 14),
    (("Mobile Safari", 18, "iOS", "18.5", "Mobile"), 4),
    (("Mobile Safari", 17, "iOS", "17.6", "Mobile"), 2),
    (("Safari", 18, "macOS", "10.15", "Desktop"), 6),
    (("Chrome", 142, "macOS", "10.15", "Desktop"), 6),
    (("Edge", 142, "Windows", "10", "Desktop"), 5),
    (("Firefox", 145, "Windows", "10", "Desktop"), 3),
    (("Firefox", 145, "Ubuntu", None, "Desktop"), 1),
    (("Samsung Internet", 28, "Android", "10", "Mobile"), 2),
    (("Chrome", 142, "Linux", None, "Desktop"), 1),
    (("Facebook", 530, "iOS", "18.6", "Mobile"), 1),
    (("Mobile Safari", 18, "iOS", "18.6", "Tablet"), 1),
)
# Where a visit comes from: URL as stored (most sites tell their origin alone), source, channel.
_REFERRERS = _weighted(
    ((None, None, "Direct"), 34),
    (("https://www.google.com/", "Google", "Organic Search"), 32),
    (("https://www.bing.com/", "Bing", "Organic Search"), 4),
    (("https://duckduckgo.com/", "DuckDuckGo", "Organic Search"), 3),
    (("https://news.ycombinator.com/", "Hacker News", "Organic Social"), 3),
    (("https://www.reddit.com/", "Reddit", "Organic Social"), 3),
    (("https://t.co/", "Twitter", "Organic Social"), 3),
    (("https://l.facebook.com/", "Facebook", "Organic Social"), 4),
    (("https://www.linkedin.com/", "LinkedIn", "Organic Social"), 2),
    (("https://github.com/", "GitHub", "Referral"), 2),
    (("https://chatgpt.com/", "ChatGPT", "AI Assistants"), 2),
    (("https://{}.example/", "{}.example", "Referral"), 5),
    (("https://blog.{}.example/links/{}", "blog.{}.example", "Referral"), 3),
)
# Source, medium, campaign, content, term, kind of click id, channel. {}: the week.
_CAMPAIGNS = _weighted(
    (("newsletter", "email", "week-{}", None, None, None, "Email"), 10),
    (("google", "cpc", "brand", "text-a", "analytics", "gclid", "Paid Search"), 6),
    (("google", "cpc", "generic-{}", "text-b", "web statistics", "gclid", "Paid Search"), 5),
    (("facebook", "paid_social", "autumn", "carousel", None, "fbclid", "Paid Social"), 4),
    (("linkedin", "social", "launch", None, None, None, "Organic Social"), 2),
    (("partner", "referral", "directory", "logo", None, None, "Referral"), 2),
    (("bing", "cpc", "brand", None, "analytics", "msclkid", "Paid Search"), 1),
)

_LISTS: dict[str, list[object]] = {
    "words": list(_WORDS),
    "countries": list(_COUNTRIES),
    "agents": [
        dict(zip(("browser", "major", "os", "os_version", "device"), agent, strict=True))
        for agent in _AGENTS
    ],
    "referrers": [
        dict(zip(("url", "source", "channel"), referrer, strict=True)) for referrer in _REFERRERS
    ],
    "campaigns": [
        dict(
            zip(
                ("source", "medium", "campaign", "content", "term", "click", "channel"),
                campaign,
                strict=True,
            )
        )
        for campaign in _CAMPAIGNS
    ],
    "languages": ["en-us", "en-gb", "de-de", "de", "fr-fr", "fr", "es-es", "es-mx", "pt-br", "it"],
    "widths": [1920, 1536, 1440, 1366, 2560, 1280, 1680, 3840, 1600, 1512, 1728, 1470, 1707, 1024],
    "phone_widths": [390, 393, 360, 412, 414, 384, 375, 430, 402, 440, 428, 320, 411, 385],
    # Of a hundred visits the hour, in UTC, of each: a site whose people live around Europe.
    "hours": _weighted(
        *enumerate([2, 1, 1, 1, 1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 5, 5, 6, 6, 5, 4, 3])
    ),
}


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return f"[{', '.join(_literal(one) for one in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"'{key}': {_literal(one)}" for key, one in value.items()) + "}"
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


# As SQL, by the name of the macro that stands for each.
LISTS = {name: _literal(values) for name, values in _LISTS.items()}
