"""`/api/sites` and `/api/keys`: what people say of sites, and who may ask, in JSON.

All of it takes a key with the scope `admin`. One that is for some sites manages those; sites and
keys as such are the business of a key for all sites.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mallard.accounts import checks, shapes
from mallard.accounts.access import Scope
from mallard.accounts.accounts import Accounts
from mallard.errors import InvalidInput, NotFound
from mallard.ingest.json_reader import read_json
from mallard.web.auth import Guard
from mallard.web.body import BodyReader

BODY_BYTES_MAX = 64 * 1024

_NEW_SITE = ("site_id", "kind", "timezone", "currency")
_NUMBER = re.compile("[0-9]{1,9}")

_Handler = Callable[[Request], Awaitable[Response]]


class Admin:
    """Answers the management API."""

    def __init__(self, accounts: Accounts, guard: Guard, bodies: BodyReader) -> None:
        self._accounts = accounts
        self._guard = guard
        self._bodies = bodies

    def routes(self) -> list[Route]:
        """Return the routes."""
        site = "/api/sites/{site_id}"
        return [
            _route("/api/sites", GET=self.list_sites, POST=self.add_site),
            _route(site, GET=self.get_site, PATCH=self.set_site, DELETE=self.remove_site),
            _route(f"{site}/goals", GET=self.list_goals, POST=self.add_goal),
            _route(f"{site}/goals/{{goal_id}}", PUT=self.put_goal, DELETE=self.remove_goal),
            _route(f"{site}/segments", GET=self.list_segments, POST=self.add_segment),
            _route(
                f"{site}/segments/{{segment_id}}",
                PUT=self.put_segment,
                DELETE=self.remove_segment,
            ),
            _route("/api/keys", GET=self.list_keys, POST=self.create_key),
            _route("/api/keys/{key_id}", DELETE=self.revoke_key),
        ]

    # --- sites ---

    async def list_sites(self, request: Request) -> Response:
        """Answer with the sites that were added, of those that the key is for."""
        principal = await self._guard.principal(request)
        principal.require(Scope.ADMIN, min(principal.sites) if principal.sites else None)
        found = await self._accounts.read(lambda control: control.sites.all())
        mine = [site for site in found if principal.may(Scope.ADMIN, site.site_id)]
        return _answer({"sites": [shapes.site(site) for site in mine]})

    async def add_site(self, request: Request) -> Response:
        """Add a site."""
        principal = await self._guard.principal(request)
        principal.require(Scope.ADMIN)
        document = dict(checks.known_fields(await self._read(request), _NEW_SITE))
        site_id = checks.site_id(document.pop("site_id", None))
        site = await self._accounts.change(lambda control: control.sites.add(site_id, document))
        return _answer(shapes.site(site), 201)

    async def get_site(self, request: Request) -> Response:
        """Answer with a site, or the defaults where nobody has added it."""
        site_id = await self._site(request)
        site = await self._accounts.read(lambda control: control.sites.get(site_id))
        return _answer(shapes.site(site))

    async def set_site(self, request: Request) -> Response:
        """Change what the body names, and add the site where nobody has."""
        site_id = await self._site(request)
        document = await self._read(request)
        site = await self._accounts.change(lambda control: control.sites.set(site_id, document))
        return _answer(shapes.site(site))

    async def remove_site(self, request: Request) -> Response:
        """Forget what was said of a site; its events stay."""
        site_id = await self._site(request)
        await self._accounts.change(lambda control: control.sites.remove(site_id))
        return Response(status_code=204)

    # --- goals ---

    async def list_goals(self, request: Request) -> Response:
        """Answer with a site's goals."""
        site_id = await self._site(request)
        found = await self._accounts.read(lambda control: control.goals.of(site_id))
        return _answer({"goals": [shapes.goal(goal) for goal in found]})

    async def add_goal(self, request: Request) -> Response:
        """Add a goal."""
        site_id = await self._site(request)
        document = await self._read(request)
        goal = await self._accounts.change(lambda control: control.goals.add(site_id, document))
        return _answer(shapes.goal(goal), 201)

    async def put_goal(self, request: Request) -> Response:
        """Make a goal what the body says."""
        site_id, goal_id = await self._site(request), _number(request, "goal_id")
        document = await self._read(request)
        goal = await self._accounts.change(
            lambda control: control.goals.replace(site_id, goal_id, document)
        )
        return _answer(shapes.goal(goal))

    async def remove_goal(self, request: Request) -> Response:
        """Remove a goal."""
        site_id, goal_id = await self._site(request), _number(request, "goal_id")
        await self._accounts.change(lambda control: control.goals.remove(site_id, goal_id))
        return Response(status_code=204)

    # --- segments ---

    async def list_segments(self, request: Request) -> Response:
        """Answer with a site's segments."""
        site_id = await self._site(request)
        found = await self._accounts.read(lambda control: control.segments.of(site_id))
        return _answer({"segments": [shapes.segment(segment) for segment in found]})

    async def add_segment(self, request: Request) -> Response:
        """Add a segment."""
        site_id = await self._site(request)
        document = await self._read(request)
        segment = await self._accounts.change(
            lambda control: control.segments.add(site_id, document)
        )
        return _answer(shapes.segment(segment), 201)

    async def put_segment(self, request: Request) -> Response:
        """Make a segment what the body says."""
        site_id, segment_id = await self._site(request), _number(request, "segment_id")
        document = await self._read(request)
        segment = await self._accounts.change(
            lambda control: control.segments.replace(site_id, segment_id, document)
        )
        return _answer(shapes.segment(segment))

    async def remove_segment(self, request: Request) -> Response:
        """Remove a segment."""
        site_id, segment_id = await self._site(request), _number(request, "segment_id")
        await self._accounts.change(lambda control: control.segments.remove(site_id, segment_id))
        return Response(status_code=204)

    # --- keys ---

    async def list_keys(self, request: Request) -> Response:
        """Answer with every key, the revoked ones too, without its token."""
        (await self._guard.principal(request)).require(Scope.ADMIN)
        found = await self._accounts.read(lambda control: control.keys.all())
        return _answer({"keys": [shapes.key(key) for key in found]})

    async def create_key(self, request: Request) -> Response:
        """Make a key; its token is in this answer and in no other."""
        (await self._guard.principal(request)).require(Scope.ADMIN)
        document = await self._read(request)
        key, token = await self._accounts.change(lambda control: control.keys.create(document))
        return _answer({**shapes.key(key), "token": token}, 201)

    async def revoke_key(self, request: Request) -> Response:
        """Make a key worthless; the next request that uses it is refused."""
        (await self._guard.principal(request)).require(Scope.ADMIN)
        key_id = _number(request, "key_id")
        await self._accounts.change(lambda control: control.keys.revoke(key_id))
        return Response(status_code=204)

    async def _site(self, request: Request) -> str:
        """Return the path's site, which the caller may manage."""
        principal = await self._guard.principal(request)
        site_id = checks.site_id(request.path_params["site_id"])
        principal.require(Scope.ADMIN, site_id)
        return site_id

    async def _read(self, request: Request) -> object:
        """Return the JSON of a request's body."""
        headers = dict(request.scope["headers"])
        body = await self._bodies.read(headers, request.receive, BODY_BYTES_MAX)
        if body is None:
            raise InvalidInput("The body did not arrive.")
        return read_json(body)


def _route(path: str, **handlers: _Handler) -> Route:
    """Return one route for all methods of a path, so that a 405 names each of them."""

    async def answer(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await handlers[method](request)

    return Route(path, answer, methods=[*handlers])


def _number(request: Request, name: str) -> int:
    text = request.path_params[name]
    if not _NUMBER.fullmatch(text):
        raise NotFound("There is nothing of that number.")
    return int(text)


def _answer(shape: shapes.Shape, status: int = 200) -> Response:
    return JSONResponse(shape, status, {"cache-control": "no-store"})
