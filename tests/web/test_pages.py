from __future__ import annotations

import asyncio
import gzip
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from mallard.config import TrackerConfig
from mallard.errors import ConfigError, NotFound
from mallard.web.pages import BUILDS_FOLDER, KNOWN_WORDS, Tracker, routes

AUTOMATIC = "hash.outbound-links.file-downloads.form-submissions.tagged-events.pageleave.revenue"


def get(
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    config: TrackerConfig | None = None,
) -> httpx.Response:
    async def ask() -> httpx.Response:
        app = Starlette(routes=routes(config or TrackerConfig()))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://mallard") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())


def gzipped_bytes(script: bytes) -> int:
    return len(gzip.compress(script, 9, mtime=0))


@pytest.mark.parametrize("path", ["/js/script.js", f"/js/script.{AUTOMATIC}.js"])
def test_the_full_script_is_under_1000_bytes_with_every_automatic_feature(path: str) -> None:
    answer = get(path)
    assert gzipped_bytes(answer.content) < 1000
    assert int(answer.headers["content-length"]) < 1000  # as it travels


@pytest.mark.parametrize("path", ["/js/script.pageviews.js", "/js/script.pageviews.hash.local.js"])
def test_the_script_for_pageviews_is_under_700_bytes(path: str) -> None:
    answer = get(path)
    assert gzipped_bytes(answer.content) < 700
    assert int(answer.headers["content-length"]) < 700


def test_the_builds_differ_and_hold_what_their_names_say() -> None:
    full, pageviews, extended = (
        get(f"/js/script{words}.js").text for words in ("", ".pageviews", ".exclusions")
    )
    assert len(pageviews) < len(full) < len(extended)
    assert "engagement" in full
    assert "engagement" not in pageviews
    assert "exclude" in extended
    assert "exclude" not in full


def test_a_script_is_served_as_javascript_that_any_page_may_load_and_keep_for_a_day() -> None:
    answer = get("/js/script.js")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=86400"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, deflate, br, zstd", "gzip"),
        ("br;q=1.0, *;q=0.5", "gzip"),
        ("GZIP", "gzip"),
        ("gzip; q=0.1", "gzip"),
        ("br", None),
        ("gzip;q=0, *", None),
        ("gzip;q=x", None),
        ("identity", None),
        ("", None),
    ],
)
def test_a_script_is_compressed_for_those_who_take_gzip(
    accepted: str, encoding: str | None
) -> None:
    answer = get("/js/script.js", {"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding") == encoding
    assert answer.text.startswith("{let ")


def test_each_encoding_has_its_own_etag_which_stays_the_same() -> None:
    tags = [
        get("/js/script.js", {"Accept-Encoding": encoding}).headers["etag"]
        for encoding in ("gzip", "identity", "gzip")
    ]
    assert tags[0] == tags[2] != tags[1]


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
def test_a_script_that_the_browser_has_is_not_sent_again(form: str) -> None:
    etag = get("/js/script.js").headers["etag"]
    answer = get("/js/script.js", {"If-None-Match": form.format(etag)})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == etag
    assert answer.headers["cache-control"] == "public, max-age=86400"


def test_a_script_of_another_version_is_sent_in_full() -> None:
    answer = get("/js/script.js", {"If-None-Match": '"another"'})
    assert answer.status_code == 200


def test_head_answers_with_the_headers_alone() -> None:
    whole, head = get("/js/script.js"), get("/js/script.js", method="HEAD")
    assert head.content == b""
    assert head.headers == whole.headers


@pytest.mark.parametrize("path", ["/js/script.js", "/mallard.js", "/mallard.hash.js"])
def test_every_script_path_serves_and_takes_features(path: str) -> None:
    assert get(path).status_code == 200


def test_script_and_event_paths_are_the_configured_ones_also_without_an_ending() -> None:
    config = TrackerConfig(script_paths=("/assets/lib",), event_paths=("/assets/x", "/api/event"))
    answer = get("/assets/lib", config=config)
    assert '"/assets/x"' in answer.text
    assert "/api/event" not in answer.text
    assert get("/js/script.js", config=config).status_code == 404


def test_the_order_and_the_spelling_of_features_do_not_matter() -> None:
    scripts = {
        get(f"/js/script.{words}.js").headers["etag"]
        for words in ("outbound-links.hash", "hash.outbound", "hash.hash.outbound.revenue")
    }
    assert len(scripts) == 1
    assert scripts != {get("/js/script.js").headers["etag"]}


def test_every_known_word_alone_gives_a_script() -> None:
    for word in KNOWN_WORDS:
        assert get(f"/js/script.{word}.js").status_code == 200, word


@pytest.mark.parametrize("words", ["nonsense", "hash.nonsense", "hash.", "hash..local", "HASH"])
def test_an_unknown_feature_is_an_error_that_names_the_known_ones(words: str) -> None:
    with pytest.raises(NotFound) as caught:
        get(f"/js/script.{words}.js")
    assert "outbound-links" in str(caught.value.rule)


@pytest.mark.parametrize("word", ["outbound-links", "files", "tagged-events", "exclusions"])
def test_a_feature_that_the_small_build_leaves_out_is_an_error(word: str) -> None:
    with pytest.raises(NotFound, match=word):
        get(f"/js/script.pageviews.{word}.js")


def test_a_chosen_feature_no_longer_asks_for_its_attribute() -> None:
    assert '"forms"in' in get("/js/script.js").text
    assert '"forms"in' not in get("/js/script.forms.js").text


def test_a_variant_is_made_once() -> None:
    tracker = Tracker("/api/event")
    first = tracker.script(frozenset({"hash", "outbound"}))
    assert tracker.script(frozenset({"outbound-links", "hash", "404"})) is first


def test_a_missing_build_stops_the_start_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make install"):
        routes(TrackerConfig(), tmp_path)


def test_a_build_of_another_version_stops_the_start(tmp_path: Path) -> None:
    for build in BUILDS_FOLDER.iterdir():
        (tmp_path / build.name).write_text(build.read_text().replace('"forms"in', '"form"in'))
    with pytest.raises(ConfigError, match="make install"):
        routes(TrackerConfig(), tmp_path)


def test_a_script_path_with_braces_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="braces") as caught:
        routes(TrackerConfig(script_paths=("/js/{name}.js",)))
    assert caught.value.field == "tracker.script_paths"  # which has its line in the file told
