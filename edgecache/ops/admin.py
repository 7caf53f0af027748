"""The admin listener: health, status and explanations for operators and our own CLI. Loopback by default.

It is handed values and callables; it knows neither cache nor clusters. Later issues hang metrics, SLOs and purge here.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
from aiohttp import web

from edgecache.errors import SpeechError

Told = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Answers:
    """What the admin listener can tell."""

    ready: Callable[[], Mapping[str, str]]
    status: Callable[[], Told]
    clusters: Callable[[], Told]
    explain: Callable[[bytes, str | None], Awaitable[Told]]
    #: A cluster's name, and whether it is to be drained; False: there is none of that name.
    drain: Callable[[str, bool], bool]


def application(answers: Answers) -> web.Application:
    """The listener's routes."""

    async def live(_: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def ready(_: web.Request) -> web.Response:
        checks = answers.ready()
        failing = any(checks.values())
        return _json({"status": "failing" if failing else "ok", "checks": dict(checks)}, 503 if failing else 200)

    async def status(_: web.Request) -> web.Response:
        return _json(answers.status())

    async def clusters(_: web.Request) -> web.Response:
        return _json(answers.clusters())

    async def explain(request: web.Request) -> web.Response:
        try:
            return _json(await answers.explain(await request.read(), request.query.get("namespace")))
        except SpeechError as error:
            return _json({"error": {"message": error.message, "code": error.code}}, error.status)

    async def drain(request: web.Request) -> web.Response:
        name, call = request.match_info["cluster"], request.match_info["call"]
        if not answers.drain(name, call == "drain"):
            words = f"There is no cluster {name!r}; GET /clusters names them."
            return _json({"error": {"message": words, "code": "no_such_cluster"}}, 404)
        return _json({"cluster": name, "drained": call == "drain"})

    app = web.Application(client_max_size=1 << 20)
    app.add_routes(
        [
            *(web.get(path, live) for path in ("/livez", "/healthz", "/startupz")),
            web.get("/readyz", ready),
            web.get("/status", status),
            web.get("/clusters", clusters),
            web.post("/clusters/{cluster}/{call:drain|resume}", drain),
            web.post("/explain", explain),
        ]
    )
    return app


def _json(told: Told, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(told), status=status, content_type="application/json")
