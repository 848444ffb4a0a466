"""The first page that a newcomer sees: what to paste into a site, and where to look next."""

from __future__ import annotations

import html
import re

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from mallard.config import TrackerConfig

_HOST = re.compile(r"[A-Za-z0-9.\-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Mallard</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto }}
pre {{ background: #f2f2f0; color: #111; padding: 1rem; white-space: pre-wrap;
  overflow-wrap: anywhere }}
</style>
<h1>Mallard is running</h1>
<p>Paste this into the pages of your site, with its own name in <code>data-domain</code>:</p>
<pre>{snippet}</pre>
<p>To try it on localhost, which is not counted otherwise, add <code>data-local</code>.</p>
<p>Or send an event from a back end:</p>
<pre>{command}</pre>
<p>See what is stored, on the server itself:</p>
<pre>mallard shell -c "SELECT timestamp, site_id, event_name, pathname FROM events"</pre>
<p>Is it well? <a href="/health/ready">/health/ready</a> says so, and
<a href="/metrics">/metrics</a> counts what was accepted, refused and dropped.</p>
</html>
"""


def routes(config: TrackerConfig) -> list[Route]:
    """Return the routes: `/` and `/robots.txt`. config: where script and events are served."""

    async def welcome(request: Request) -> Response:
        base = _base(request)
        script, event = config.script_paths[0], config.event_paths[0]
        snippet = f'<script defer data-domain="example.com" src="{base}{script}"></script>'
        command = (
            f"curl {base}{event} -H 'Content-Type: application/json' \\\n"
            """  -d '{"d": "example.com", "n": "signup", "u": "https://example.com/signup"}'"""
        )
        page = _PAGE.format(snippet=html.escape(snippet), command=html.escape(command))
        return HTMLResponse(page, headers={"cache-control": "no-store"})

    return [Route("/", welcome), Route("/robots.txt", _robots)]


async def _robots(request: Request) -> Response:
    """Tell crawlers that nothing here is for them."""
    return PlainTextResponse("User-agent: *\nDisallow: /\n")


def _base(request: Request) -> str:
    """Return this server's origin as its caller knows it; only shown, never trusted."""
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        host = "your-server.example"
    forwarded = request.headers.get("x-forwarded-proto", "")
    scheme = forwarded if forwarded in ("http", "https") else request.url.scheme
    return f"{scheme}://{host}"
