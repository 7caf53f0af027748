"""The admin listener: who may call, and what it says when nobody is there to answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO

import aiohttp
import pytest
from aiohttp import web

from edgecache.ops.access import AdminAccess
from edgecache.ops.admin import ROUTES, Admin
from edgecache.ops.daemon import NOTHING, Alone, Daemon, NoWorker, Route, Told, json_answer

pytestmark = pytest.mark.net

TOKEN = "an-admin-token"
OPEN = {"/livez", "/healthz", "/startupz", "/readyz"}


@asynccontextmanager
async def listening(daemon: Daemon, token: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    async def echo(asked: Daemon, request: web.Request) -> web.Response:
        return json_answer(await asked.ask("echo", {"said": (await request.read()).decode()}))

    admin = Admin(AdminAccess(port=0, token=token), daemon, (*ROUTES, Route("POST", "/echo", echo)))
    await admin.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{admin.port}") as client:
            yield client
    finally:
        await admin.close()


async def told(asked: Told = NOTHING) -> Told:
    return dict(asked)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        (None, 401),
        ("Bearer", 401),
        (f"Basic {TOKEN}", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Bearer \u00e9", 401),
    ],
)
async def test_only_who_brings_the_token_is_answered(authorization: str | None, status: int) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with (
        listening(Alone({"echo": told}), TOKEN) as client,
        client.post("/echo", data=b"hello", headers=headers) as answer,
    ):
        assert answer.status == status
        said = await answer.json()
    if status == 200:
        assert said == [{"said": "hello"}]
    else:
        assert said["error"]["code"] == "no_token"
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_every_route_asks_for_the_token_but_those_for_health() -> None:
    assert {route.path for route in ROUTES if route.open} == OPEN
    async with listening(Alone({"ready": told}), TOKEN) as client:
        for route in ROUTES:
            path = route.path.replace("{cluster}", "c").replace("{key}", "k").replace("{call:drain|resume}", "drain")
            async with client.request(route.method, path) as answer:
                assert (answer.status == 401) == (not route.open), route.path


WRONG = [
    ("GET", "/statu", 404, "not_found", ("/statu", "GET /status", "POST /purge", "POST /drain|resume")),
    ("GET", "/explain", 405, "method_not_allowed", ("/explain takes POST, not GET",)),
    ("POST", "/echo", 413, "body_too_large", ("1048576 bytes",)),
]


@pytest.mark.parametrize(("method", "path", "status", "code", "words"), WRONG, ids=[row[1] for row in WRONG])
async def test_what_is_no_call_is_told_with_what_there_is(
    method: str, path: str, status: int, code: str, words: tuple[str, ...]
) -> None:
    async with (
        listening(Alone({"echo": told})) as client,
        client.request(method, path, data=BytesIO(bytes((1 << 20) + 1)) if method == "POST" else None) as answer,
    ):
        error = (await answer.json())["error"]
    assert (answer.status, error["code"]) == (status, code)
    assert [word for word in words if word not in error["message"]] == []
    assert answer.headers.get("Allow") == ("POST" if status == 405 else None)


class Nobody:
    """A daemon whose workers are all gone."""

    async def ask(self, call: str, argument: Told = NOTHING) -> list[Told]:
        raise NoWorker("no worker answers")

    async def ask_one(self, call: str, argument: Told = NOTHING) -> Told:
        raise NoWorker("no worker answers")

    def workers(self) -> list[Told]:
        return []

    def replace(self) -> str:
        return "this edge is stopping"


async def test_without_a_worker_it_is_alive_not_ready_and_can_not_tell() -> None:
    async with (
        listening(Nobody()) as client,
        client.get("/livez") as live,
        client.get("/readyz") as ready,
        client.get("/status") as status,
    ):
        assert (live.status, ready.status, status.status) == (200, 503, 503)
        assert (await ready.json())["checks"] == {"workers": "no worker answers"}
        assert status.headers["Retry-After"] == "1"
