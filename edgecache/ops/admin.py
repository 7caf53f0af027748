"""The admin listener: what operators and our own command line ask of the whole daemon. Loopback by default.

Elsewhere it serves only who has the token, except that health is told to anyone. It is handed routes and a daemon; it
knows neither cache nor clusters, nor how many workers there are.
"""

import hmac
import re
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from edgecache.ops import moving, overview, purge
from edgecache.ops.access import AdminAccess
from edgecache.ops.addresses import address_errors
from edgecache.ops.daemon import Daemon, NoWorker, Route, Routes, refusal
from edgecache.ops.watching import Watching, kept

#: Every route of the listener: a file of routes adds its own here.
ROUTES: Routes = (*overview.ROUTES, *purge.ROUTES, *moving.ROUTES)
MAX_BODY_BYTES = 1 << 20
#: Of `{call:drain|resume}` a person reads the words.
_PATTERN = re.compile(r"\{\w+:([^}]+)\}")
Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """The listener of one daemon."""

    def __init__(
        self,
        access: AdminAccess,
        daemon: Daemon,
        routes: Routes = ROUTES,
        given: socket.socket | None = None,
        watching: Watching | None = None,
    ) -> None:
        """given: a socket that listens already."""
        self._access = access
        self._given = given
        app = application(daemon, (*routes, *(watching.routes if watching else ())), access.token)
        if watching is not None:
            app.cleanup_ctx.append(kept(watching, daemon))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        self.port = 0

    async def start(self) -> None:
        """Begins to serve. SettingsError: the address can't be had."""
        await self._runner.setup()
        site: web.BaseSite = (
            web.TCPSite(self._runner, self._access.host, self._access.port)
            if self._given is None
            else web.SockSite(self._runner, self._given)
        )
        with address_errors("admin", self._access.host, self._access.port):
            await site.start()
        addresses = self._runner.addresses
        self.port = addresses[0][1] if addresses and isinstance(addresses[0], tuple) else self._access.port

    async def close(self) -> None:
        """Serves no more."""
        await self._runner.cleanup()


def application(daemon: Daemon, routes: Routes = ROUTES, token: str | None = None) -> web.Application:
    """The listener's routes. token: what all but the open ones ask for."""
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_in_words(routes)])
    for route in routes:
        app.router.add_route(route.method, route.path, _guarded(daemon, route, None if route.open else token))
    return app


def _in_words(routes: Routes) -> Middleware:
    """What no route answers is told as every other error is, with what there is."""
    there = _PATTERN.sub(r"\1", ", ".join(dict.fromkeys(f"{route.method} {route.path}" for route in routes)))

    @web.middleware
    async def answer(request: web.Request, handler: Answering) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return refusal(404, "not_found", f"There is no {request.path} here; there are {there}.")
        except web.HTTPMethodNotAllowed as error:
            methods = ", ".join(sorted(error.allowed_methods))
            refused = refusal(405, "method_not_allowed", f"{request.path} takes {methods}, not {request.method}.")
            refused.headers["Allow"] = methods
            return refused
        except web.HTTPRequestEntityTooLarge:
            return refusal(413, "body_too_large", f"A body may have {MAX_BODY_BYTES} bytes here.")

    return answer


def _guarded(daemon: Daemon, route: Route, token: str | None) -> Answering:
    due = None if token is None else token.encode()

    async def answer(request: web.Request) -> web.StreamResponse:
        if due is not None and not hmac.compare_digest(_brought(request), due):
            refused = refusal(401, "no_token", "Admin calls need the token: Authorization: Bearer TOKEN.")
            refused.headers["WWW-Authenticate"] = "Bearer"
            return refused
        try:
            return await route.answer(daemon, request)
        except NoWorker as error:
            refused = refusal(503, "no_worker", str(error))
            refused.headers["Retry-After"] = "1"
            return refused

    return answer


def _brought(request: web.Request) -> bytes:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""
