"""When the daemon may not or can not serve it says why in a line and ends; and what it needs of aiohttp is there."""

import asyncio
import inspect
import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp import http_parser, web

from edgecache.delivery.full import Full
from edgecache.errors import SettingsError
from edgecache.ops.addresses import address_errors
from edgecache.ops.startup import check
from tests.daemon import LOOPBACK, Daemon, config, daemons, servers_in


@pytest.mark.net
@pytest.mark.redis
@pytest.mark.parametrize("where", ["listen", "admin"])
async def test_a_port_in_use_is_one_clear_line(where: str) -> None:
    async with daemons() as start:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port, directory = taken.getsockname()[1], start.directory / "private"
            settings = {where: {**LOOPBACK, "port": port}, "cache": {"redis": {"private_directory": str(directory)}}}
            daemon = await start.begin(config("http://127.0.0.1:9", **settings))
            assert await daemon.ended() == 2
        assert daemon.lines[-1] == (
            f"error: {where}: 127.0.0.1:{port} is already in use; "
            f"set {where}.port to another, or stop who has it (ss -ltnp)"
        )
        assert not [line for line in daemon.lines[:-1] if not line.startswith("{")]
        assert servers_in(directory) == set()


def test_what_the_system_says_of_a_name_is_told_with_where_it_was_set() -> None:
    with pytest.raises(SettingsError) as refused, address_errors("listen", "nosuch", 80):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert str(refused.value) == "listen: nosuch:80 can't be listened at: Name or service not known; see listen.host"


UNUSABLE: list[tuple[str, dict[str, Any], dict[str, str], str]] = [
    ("keys file missing", {"auth": {"keys_file": "/nowhere/keys.txt"}}, {}, "auth.keys_file"),
    ("keys file unreadable", {"auth": {"keys_file": "/"}}, {}, "auth.keys_file"),
    ("no C parser", {}, {"AIOHTTP_NO_EXTENSIONS": "1"}, "unset AIOHTTP_NO_EXTENSIONS"),
    ("hashes can be foretold", {}, {"PYTHONHASHSEED": "0"}, "PYTHONHASHSEED=0"),
]


@pytest.mark.parametrize(
    ("changed", "environ", "told"), [row[1:] for row in UNUSABLE], ids=[row[0] for row in UNUSABLE]
)
async def test_what_can_not_serve_says_why_and_ends(
    changed: dict[str, Any], environ: dict[str, str], told: str
) -> None:
    async with daemons() as start:
        daemon = await start.begin(config("http://127.0.0.1:9", **changed), environ)
        assert await daemon.ended() == 2
        assert told in daemon.output
        assert "Traceback" not in daemon.output


@pytest.mark.net
async def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    daemon = await Daemon.begun(tmp_path / "absent.yaml", {})
    assert await daemon.ended() == 2
    assert "absent.yaml" in daemon.output
    assert "Traceback" not in daemon.output


@pytest.mark.parametrize("version", ["3.14.2", "3.9.5", "2.99"])
def test_an_aiohttp_with_known_holes_may_not_serve(version: str) -> None:
    with pytest.raises(SettingsError, match=r"pip install -U 'aiohttp>=3\.14\.3'"):
        check(version)


@pytest.mark.parametrize("version", ["3.14.3", "3.15.0b1", "4.0"])
def test_an_aiohttp_without_them_may(version: str) -> None:
    check(version)


def test_the_parser_in_python_may_not_serve() -> None:
    with pytest.raises(SettingsError, match="reinstall aiohttp from a wheel"):
        check(parser=http_parser.HttpRequestParserPy)


# What we need of others.

OVERRIDDEN = {
    "force_close": ["self"],
    "handle_error": ["self", "request", "status", "exc", "message"],
}


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_we_override_is_what_aiohttp_calls(name: str) -> None:
    theirs, ours = getattr(web.RequestHandler, name), getattr(Full, name)
    assert ours is not theirs
    assert list(inspect.signature(theirs).parameters) == OVERRIDDEN[name]
    assert list(inspect.signature(ours).parameters) == OVERRIDDEN[name]


CALLED = {
    "connection_made": ["self", "transport"],
    "data_received": ["self", "data"],
    "connection_lost": ["self", "exc"],
    "pause_writing": ["self"],
    "resume_writing": ["self"],
    "close": ["self"],
}


@pytest.mark.parametrize("name", CALLED)
def test_what_is_called_of_aiohttp_is_there(name: str) -> None:
    assert list(inspect.signature(getattr(web.RequestHandler, name)).parameters) == CALLED[name]
    assert list(inspect.signature(web.Server.shutdown).parameters) == ["self", "timeout"]


def test_nothing_of_aiohttp_ends_a_connection_by_itself() -> None:
    """A client's end of its side is no end: our protocol sees to it, so aiohttp's need not be told."""
    assert inspect.getsource(web.RequestHandler.eof_received).split(":\n")[1].strip() == "pass"


@pytest.mark.net
async def test_aiohttp_waits_for_a_request_with_a_future_that_we_may_look_at() -> None:
    """The private attributes that a lost connection goes by: a new aiohttp may change them."""
    seen: list[object] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.protocol._waiter)
        return web.Response()

    server = web.Server(answer)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", listening.sockets[0].getsockname()[1])
    while not server.connections or server.connections[0]._waiter is None:
        await asyncio.sleep(0)
    (connection,) = server.connections
    assert isinstance(connection._waiter, asyncio.Future)
    assert not connection._waiter.done()
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    assert seen == [None]
    assert isinstance(connection._task_handler, asyncio.Task)
    connection.force_close()
    assert connection._waiter is None or connection._waiter.done()
    writer.close()
    listening.close()
    await server.shutdown(1)
