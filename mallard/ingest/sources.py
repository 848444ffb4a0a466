"""The sources of visits that have a name: their hosts, apps and spellings.

A table of our own, of the sources that make up nearly all visits: the kept lists there are
(snowplow's and Matomo's) come in no kept Python package. A source that is not here
shows as its host, which is a good name too.

Invariant: hosts are matched on label boundaries, the longest first, so that "t.co" is not in
"reddit.com" and "news.google.com" is not "google.com". "google.*" stands for the name directly
under any country's registry: google.de, google.co.uk, google.com.br; never google.example.com.
"""

from __future__ import annotations

import re
from enum import StrEnum

from mallard.ingest.page import without_www


class Kind(StrEnum):
    """What a source is; channels are made of it."""

    SEARCH = "search"
    SOCIAL = "social"
    VIDEO = "video"
    SHOPPING = "shopping"
    EMAIL = "email"
    AI = "ai"
    OTHER = "other"


# Name, its hosts, and how else utm_source spells it (the name itself need not be repeated).
TABLE: dict[Kind, tuple[tuple[str, str, str], ...]] = {
    Kind.SEARCH: (
        ("Google", "google.* com.google.android.googlequicksearchbox",
         "adwords googleads google-ads google_ads"),
        ("Google News", "news.google.com", "google-news googlenews"),
        ("Bing", "bing.com msn.com", "bing-ads bingads bing_ads"),
        ("DuckDuckGo", "duckduckgo.com duck.com com.duckduckgo.mobile.android", "ddg"),
        ("Yahoo!", "yahoo.*", "yahoo"),
        ("Brave", "search.brave.com", ""),
        ("Ecosia", "ecosia.org com.ecosia.android", ""),
        ("Qwant", "qwant.com", ""),
        ("Startpage", "startpage.com ixquick.com", ""),
        ("Kagi", "kagi.com", ""),
        ("Yandex", "yandex.* ya.ru", ""),
        ("Baidu", "baidu.com", ""),
        ("Naver", "naver.com", ""),
        ("Daum", "daum.net", ""),
        ("Seznam", "seznam.cz", ""),
        ("Sogou", "sogou.com", ""),
        ("360 Search", "so.com", ""),
        ("Mojeek", "mojeek.com", ""),
        ("Swisscows", "swisscows.com", ""),
        ("MetaGer", "metager.org metager.de", ""),
        ("AOL", "aol.com", ""),
        ("Ask", "ask.com", ""),
        ("Lycos", "lycos.com", ""),
        ("Presearch", "presearch.com presearch.org", ""),
        ("Rambler", "rambler.ru", ""),
        ("Coc Coc", "coccoc.com", ""),
    ),
    Kind.SOCIAL: (
        ("Facebook", "facebook.com fb.com fb.me com.facebook.katana messenger.com "
         "m.me com.facebook.orca com.facebook.lite",
         "fb facebook-ads facebook_ads facebookads fbads fb-ads facebook_mobile"),
        ("Instagram", "instagram.com com.instagram.android", "ig instagram-ads ig_ads igshopping"),
        ("Threads", "threads.net threads.com com.instagram.barcelona", ""),
        ("Twitter", "twitter.com x.com t.co com.twitter.android", "x twitter-ads tweet"),
        ("LinkedIn", "linkedin.com lnkd.in com.linkedin.android", "linkedin-ads li linkedin_ads"),
        ("Reddit", "reddit.com redd.it com.reddit.frontpage", "reddit-ads"),
        ("Pinterest", "pinterest.* pin.it com.pinterest", ""),
        ("TikTok", "tiktok.com com.zhiliaoapp.musically", "tiktok-ads tiktokads tt"),
        ("Snapchat", "snapchat.com com.snapchat.android", "snapchat-ads"),
        ("WhatsApp", "whatsapp.com wa.me com.whatsapp", ""),
        ("Telegram", "telegram.org telegram.me t.me org.telegram.messenger", ""),
        ("Discord", "discord.com discordapp.com discord.gg com.discord", ""),
        ("Mastodon", "mastodon.social mastodon.online mstdn.social fosstodon.org hachyderm.io "
         "mas.to mastodon.world joinmastodon.org org.joinmastodon.android", ""),
        ("Bluesky", "bsky.app bsky.social xyz.blueskyweb.app", "bsky"),
        ("Hacker News", "news.ycombinator.com hckrnews.com", "hackernews hn"),
        ("Lobsters", "lobste.rs", ""),
        ("Quora", "quora.com", ""),
        ("Medium", "medium.com", ""),
        ("Substack", "substack.com", ""),
        ("Tumblr", "tumblr.com umblr.com", ""),
        ("Product Hunt", "producthunt.com", "producthunt product_hunt"),
        ("GitHub", "github.com", ""),
        ("Stack Overflow", "stackoverflow.com", "stackoverflow"),
        ("DEV", "dev.to", ""),
        ("VK", "vk.com vk.ru com.vkontakte.android", "vkontakte"),
        ("Odnoklassniki", "ok.ru", ""),
        ("Weibo", "weibo.com weibo.cn", ""),
        ("WeChat", "weixin.qq.com wechat.com com.tencent.mm", ""),
        ("LINE", "line.me", ""),
        ("XING", "xing.com", ""),
        ("Flipboard", "flipboard.com", ""),
        ("Slashdot", "slashdot.org", ""),
        ("Lemmy", "lemmy.world lemmy.ml", ""),
        ("Nextdoor", "nextdoor.com", ""),
        ("Disqus", "disqus.com", ""),
        ("Meetup", "meetup.com", ""),
        ("Slack", "slack.com com.slack", ""),
        ("Microsoft Teams", "teams.microsoft.com statics.teams.cdn.office.net", "teams"),
        ("Viber", "viber.com com.viber.voip", ""),
    ),
    Kind.VIDEO: (
        ("YouTube", "youtube.com youtu.be com.google.android.youtube", "yt youtube-ads"),
        ("Vimeo", "vimeo.com", ""),
        ("Twitch", "twitch.tv", ""),
        ("Dailymotion", "dailymotion.com", ""),
        ("Bilibili", "bilibili.com", ""),
        ("Rumble", "rumble.com", ""),
        ("Netflix", "netflix.com", ""),
        ("TED", "ted.com", ""),
        ("Niconico", "nicovideo.jp", ""),
        ("PeerTube", "joinpeertube.org", ""),
    ),
    Kind.SHOPPING: (
        ("Google Shopping", "shopping.google.com", "google-shopping google_shopping"),
        ("Amazon", "amazon.* amzn.to a.co", "amazon_ads amazon-ads"),
        ("eBay", "ebay.*", ""),
        ("Etsy", "etsy.com", ""),
        ("AliExpress", "aliexpress.com", ""),
        ("Alibaba", "alibaba.com", ""),
        ("Walmart", "walmart.com", ""),
        ("Shopify", "shopify.com shop.app", "shop_app"),
        ("Mercado Libre", "mercadolibre.* mercadolivre.com.br", ""),
        ("Rakuten", "rakuten.co.jp rakuten.com", ""),
        ("IDEALO", "idealo.*", ""),
        ("Temu", "temu.com", ""),
        ("Zalando", "zalando.*", ""),
    ),
    Kind.EMAIL: (
        ("Gmail", "mail.google.com inbox.google.com com.google.android.gm", ""),
        ("Outlook.com", "outlook.live.com mail.live.com outlook.com outlook.office.com "
         "outlook.office365.com com.microsoft.office.outlook", "outlook hotmail"),
        ("Yahoo! Mail", "mail.yahoo.* com.yahoo.mobile.client.android.mail", ""),
        ("Proton Mail", "proton.me protonmail.com ch.protonmail.android",
         "protonmail"),
        ("Fastmail", "fastmail.com", ""),
        ("GMX", "gmx.net gmx.de gmx.com", ""),
        ("WEB.DE", "web.de", ""),
        ("AOL Mail", "mail.aol.com", ""),
        ("Zoho Mail", "mail.zoho.com mail.zoho.eu", ""),
        ("Yandex Mail", "mail.yandex.*", ""),
        ("Mail.ru", "mail.ru", ""),
        ("iCloud Mail", "icloud.com", ""),
    ),
    Kind.AI: (
        ("ChatGPT", "chatgpt.com chat.openai.com openai.com com.openai.chatgpt",
         "chat.openai.com openai"),
        ("Claude", "claude.ai com.anthropic.claude", "claude.ai anthropic"),
        ("Perplexity", "perplexity.ai ai.perplexity.app.android", "perplexity.ai"),
        ("Gemini", "gemini.google.com bard.google.com com.google.android.apps.bard", ""),
        ("Copilot", "copilot.microsoft.com copilot.cloud.microsoft com.microsoft.copilot", ""),
        ("DeepSeek", "deepseek.com", ""),
        ("Grok", "grok.com", ""),
        ("Meta AI", "meta.ai", "meta-ai"),
        ("Mistral", "mistral.ai", ""),
        ("You.com", "you.com", ""),
        ("Phind", "phind.com", ""),
        ("Poe", "poe.com", ""),
        ("Kimi", "kimi.com kimi.moonshot.cn", ""),
        ("NotebookLM", "notebooklm.google.com", ""),
        ("Duck.ai", "duck.ai", ""),
    ),
    Kind.OTHER: (
        ("Wikipedia", "wikipedia.org", ""),
        ("Google Docs", "docs.google.com drive.google.com", ""),
        ("Google Translate", "translate.google.com translate.goog", ""),
        ("Google Ads network", "googlesyndication.com doubleclick.net", ""),
        ("Google Maps", "maps.google.com", ""),
        ("Feedly", "feedly.com", ""),
        ("Notion", "notion.so notion.site", ""),
        ("Trello", "trello.com", ""),
        ("Mailchimp", "mailchi.mp mailchimp.com", ""),
    ),
}  # fmt: skip

# Spellings of e-mail and text messages in utm_source, which name no company.
_EMAIL_SPELLINGS = ("email", "e-mail", "e_mail", "e mail", "newsletter")

BY_HOST: dict[str, str] = {}
KIND_BY_NAME: dict[str, Kind] = {}
_BY_SPELLING: dict[str, str] = {}
for _kind, _sources in TABLE.items():
    for _name, _hosts, _spellings in _sources:
        KIND_BY_NAME[_name] = _kind
        BY_HOST.update(dict.fromkeys(_hosts.split(), _name))
        _BY_SPELLING.update(dict.fromkeys([_name.lower(), *_spellings.split()], _name))

# What follows the name in "google.*". "co" and "com" are the only second levels that matter.
_REGISTRY = re.compile(r"\.(?:com|[a-z]{2}|(?:com|co)\.[a-z]{2})\Z")
_LABELS_MAX = 8  # of a host, from its end; more is somebody's tunnel


def source_of_host(host: str) -> str | None:
    """Return the name of the source a host (or an Android package) belongs to, if it has one."""
    labels = host.split(".")[-_LABELS_MAX:]
    for start in range(len(labels)):
        ending = ".".join(labels[start:])
        name = BY_HOST.get(ending) or BY_HOST.get(_REGISTRY.sub(".*", ending, count=1))
        if name is not None:
            return name
    return None


def source_of_tag(tag: str) -> str:
    """Return the name of what utm_source, source or ref says: a known one, or the text as sent."""
    spelling = tag.lower()
    return _BY_SPELLING.get(spelling) or source_of_host(without_www(spelling)) or tag


def kind_of(source: str | None) -> Kind | None:
    """Return what a named source is; None for one that is not in the table."""
    if source is None:
        return None
    kind = KIND_BY_NAME.get(source)
    if kind is None and source.lower() in _EMAIL_SPELLINGS:
        return Kind.EMAIL
    return kind
