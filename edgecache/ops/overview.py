"""Admin routes that every edge has: health, status, clusters, explanations.

Health is told without a token: probes of a platform have none, and it says nothing but whether clients should come.
"""

import asyncio
import os
import signal
from typing import Any, cast

from aiohttp import web

from edgecache.ops import whole
from edgecache.ops.daemon import Daemon, NoWorker, Route, json_answer, refusal

#: An answer has left by then.
ANSWERED_S = 0.05


async def _live(_: Daemon, __: web.Request) -> web.Response:
    return json_answer({"status": "ok"})


async def _ready(daemon: Daemon, _: web.Request) -> web.Response:
    try:
        checks = whole.checks(cast("list[dict[str, str]]", await daemon.ask("ready")))
    except NoWorker as error:
        checks = {"workers": str(error)}
    failing = any(checks.values())
    return json_answer({"status": "failing" if failing else "ok", "checks": checks}, 503 if failing else 200)


async def _status(daemon: Daemon, _: web.Request) -> web.Response:
    return json_answer(whole.status(await daemon.ask("status")))


async def _clusters(daemon: Daemon, _: web.Request) -> web.Response:
    told = cast("list[dict[str, Any]]", await daemon.ask("clusters"))
    upstreams = whole.upstreams(row for each in told for row in each["upstreams"])
    return json_answer({"upstreams": upstreams, "asking": whole.merged([each["asking"] for each in told])})


async def _drain_cluster(daemon: Daemon, request: web.Request) -> web.Response:
    name, drained = request.match_info["cluster"], request.match_info["call"] == "drain"
    told = await daemon.ask("drain cluster", {"cluster": name, "drained": drained})
    if not any(each["known"] for each in told):
        return refusal(404, "no_such_cluster", f"There is no cluster {name!r}; GET /clusters names them.")
    return json_answer({"cluster": name, "drained": drained})


async def _drain(daemon: Daemon, request: web.Request) -> web.Response:
    drained = request.match_info["call"] == "drain"
    told = await daemon.ask("drain", {"drained": drained})
    return json_answer({"drained": drained, "workers": len(told)})


async def _stop(_: Daemon, __: web.Request) -> web.Response:
    """As SIGTERM, once this is answered. This process is the one that signals go to."""
    asyncio.get_running_loop().call_later(ANSWERED_S, os.kill, os.getpid(), signal.SIGTERM)
    return json_answer({"stopping": True}, 202)


async def _explain(daemon: Daemon, request: web.Request) -> web.Response:
    whose = {"namespace": request.query.get("namespace"), "api_key": request.headers.get("X-API-Key")}
    argument = {"body": await request.read(), **whose}
    told = cast("dict[str, Any]", await daemon.ask_one("explain", argument))
    if "refused" in told:
        return refusal(**told["refused"])
    return json_answer(told)


async def _workers(daemon: Daemon, _: web.Request) -> web.Response:
    return json_answer({"workers": daemon.workers()})


async def _replace(daemon: Daemon, _: web.Request) -> web.Response:
    refused = daemon.replace()
    return (
        refusal(409, "not_replaced", f"The workers are not replaced: {refused}.") if refused else json_answer({}, 202)
    )


ROUTES = (
    *(Route("GET", path, _live, open=True) for path in ("/livez", "/healthz", "/startupz")),
    Route("GET", "/readyz", _ready, open=True),
    Route("GET", "/status", _status),
    Route("GET", "/clusters", _clusters),
    Route("POST", "/clusters/{cluster}/{call:drain|resume}", _drain_cluster),
    Route("POST", "/{call:drain|resume}", _drain),
    Route("POST", "/stop", _stop),
    Route("POST", "/explain", _explain),
    Route("GET", "/workers", _workers),
    Route("POST", "/workers/replace", _replace),
)
