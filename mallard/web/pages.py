"""Serves the tracker: one build of the script, made up for the features its file name asks for.

`/js/script.js` is the full script, whose features the page chooses by attributes. The same path
with words in it, `/js/script.hash.outbound-links.js`, is how Plausible's pages choose them; any
order does. tracker/README.md lists both.

Invariants: what is served depends on the build, the event path and the set of features alone, so
each variant is made once and keeps its ETag. There are as many variants as sets of known words,
under 200 of about 3 kB: that bounds the cache. An unknown word is an error and never a script
that does less than its name says.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mallard.config import TrackerConfig
from mallard.errors import ConfigError, NotFound

BUILDS_FOLDER = Path(__file__).parent / "tracker" / "dist"

# Words of a file name, Plausible's and ours, to the script's own word for the feature.
_FEATURES = {
    "hash": "hash",
    "local": "local",
    "manual": "manual",
    "outbound": "outbound",
    "outbound-links": "outbound",
    "files": "files",
    "file-downloads": "files",
    "forms": "forms",
    "form-submissions": "forms",
}
_EXTENDED = frozenset({"exclusions", "pageview-props", "compat", "data-attributes"})
# What Plausible has as an extra is in every build: these words ask for nothing.
_ALWAYS = frozenset({"tagged-events", "revenue", "pageleave", "404"})
_PAGEVIEWS = "pageviews"
_NOT_IN_PAGEVIEWS = (
    _EXTENDED
    | {"tagged-events", "pageleave"}
    | {name for name, word in _FEATURES.items() if word in {"outbound", "files", "forms"}}
)
KNOWN_WORDS = (*sorted({*_FEATURES, *_EXTENDED, *_ALWAYS, _PAGEVIEWS}),)

# A day: an updated script is everywhere soon, and a visitor's second page asks for nothing. The
# server keeps answering older scripts, so longer would do no harm but delay what is changed.
_CACHE_CONTROL = "public, max-age=86400"


@dataclass(frozen=True, slots=True)
class Script:
    """One variant of the tracker, ready to send. digest: hex, of the plain bytes."""

    plain: bytes
    compressed: bytes
    digest: str


class Tracker:
    """The builds of the script, and the variants made of them so far."""

    def __init__(self, event_path: str, folder: Path = BUILDS_FOLDER) -> None:
        """Read the builds. Raises ConfigError when they are missing or are no builds of ours."""
        self._event_path = event_path
        self._builds = {name: _read_build(folder, name) for name in ("", _PAGEVIEWS, "extended")}
        self._variants: dict[tuple[str, frozenset[str]], Script] = {}

    def script(self, words: frozenset[str]) -> Script:
        """Return the script with the features that these words of a file name ask for.

        Raises NotFound, naming the known ones, for a word that asks for nothing we have.
        """
        build = _build_for(words)
        features = frozenset(_FEATURES[word] for word in words if word in _FEATURES)
        script = self._variants.get((build, features))
        if script is None:
            script = self._variants[build, features] = self._make(build, features)
        return script

    def _make(self, build: str, features: frozenset[str]) -> Script:
        text = self._builds[build].replace('"%ENDPOINT%"', json.dumps(self._event_path))
        for feature in features:
            # What asks for the attribute is always true. `!0` and not `1`, which would grow
            # together with a `return` before it.
            text = _asks_for(feature).sub("!0", text)
        plain = text.encode()
        digest = hashlib.sha256(plain).hexdigest()[:16]
        return Script(plain, gzip.compress(plain, 9, mtime=0), digest)


def routes(config: TrackerConfig, folder: Path = BUILDS_FOLDER) -> list[Route]:
    """Return the routes that serve the tracker, under each of the configured script paths.

    The script posts to the first of the event paths. folder: where the builds lie. Raises
    ConfigError when they are not there, or a script path has braces in it.
    """
    tracker = Tracker(config.event_paths[0], folder)

    async def serve(request: Request) -> Response:
        features = request.path_params.get("features")
        return _answer(request, tracker.script(frozenset(features.split(".") if features else ())))

    return [Route(path, serve) for path in script_routes(config)]


def script_routes(config: TrackerConfig) -> list[str]:
    """Return the paths of the script, with `{features}` where its name takes some.

    Raises ConfigError when a script path has braces in it.
    """
    found = []
    for path in config.script_paths:
        if "{" in path or "}" in path:
            raise ConfigError(
                f"tracker.script_paths: {path} has braces, which no path needs.",
                field="tracker.script_paths",
            )
        found.append(path)
        if path.endswith(".js"):
            found.append(path.removesuffix(".js") + ".{features}.js")
    return found


def _read_build(folder: Path, name: str) -> str:
    path = folder / ".".join(filter(None, ("script", name, "js")))
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"The tracker is not built: {path} is missing. `make install` builds it."
        ) from None
    left_out = {"outbound", "files", "forms"} if name == _PAGEVIEWS else set()
    expected = set(_FEATURES.values()) - left_out
    if '"%ENDPOINT%"' not in text or not all(_asks_for(word).search(text) for word in expected):
        raise ConfigError(
            f"{path} is no build of this version's tracker. `make install` builds it anew."
        )
    return text


def _asks_for(feature: str) -> re.Pattern[str]:
    """Return what finds `"feature"in settings`, however the minifier calls the settings."""
    return re.compile(rf'"{feature}"in [\w$]+')


def _build_for(words: frozenset[str]) -> str:
    if unknown := sorted(words.difference(KNOWN_WORDS)):
        raise NotFound(
            f"The tracker has no feature {unknown[0]!r}.",
            field="path",
            rule=f"words parted by dots, of {', '.join(KNOWN_WORDS)}",
        )
    if _PAGEVIEWS in words:
        if beyond := sorted(words & _NOT_IN_PAGEVIEWS):
            raise NotFound(
                f"The tracker for pageviews leaves {beyond[0]!r} out.",
                field="path",
                rule=f"a file name without {_PAGEVIEWS!r} for that",
            )
        return _PAGEVIEWS
    return "extended" if words & _EXTENDED else ""


def _answer(request: Request, script: Script) -> Response:
    zipped = _accepts_gzip(request.headers.get("accept-encoding", ""))
    # A strong ETag names the bytes, and compressed ones are other bytes.
    etag = f'"{script.digest}-gzip"' if zipped else f'"{script.digest}"'
    headers = {
        "Content-Type": "application/javascript; charset=utf-8",
        "Cache-Control": _CACHE_CONTROL,
        "ETag": etag,
        "Vary": "Accept-Encoding",
        # Pages of any origin load the script, also those that isolate themselves or check its
        # integrity.
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
    }
    if _names(request.headers.get("if-none-match", ""), etag):
        del headers["Content-Type"]
        return Response(status_code=304, headers=headers)
    body = script.compressed if zipped else script.plain
    if zipped:
        headers["Content-Encoding"] = "gzip"
    headers["Content-Length"] = str(len(body))
    return Response(b"" if request.method == "HEAD" else body, headers=headers)


def _accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header takes gzip (RFC 9110, 12.5.3)."""
    weights: dict[str, float] = {}
    for entry in header.lower().split(","):
        coding, _, parameter = (part.strip() for part in entry.partition(";"))
        name, _, value = parameter.partition("=")
        try:
            weights[coding] = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            weights[coding] = 0.0
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _names(header: str, etag: str) -> bool:
    """Whether an If-None-Match header names an ETag, weakly compared (RFC 9110, 13.1.2)."""
    tags = [tag.strip() for tag in header.split(",")]
    return "*" in tags or etag in [tag.removeprefix("W/") for tag in tags]
