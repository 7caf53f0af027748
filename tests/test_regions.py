"""Places that are far from each other: the distance TCP measures, what is lost on the way, and that nothing is left."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgecache.demo import tone
from edgecache.demo.links import Link
from edgecache.demo.namespaces import tcp_rtt_ms
from edgecache.demo.regions import LOOPBACK, Atlas, Ground, Impossible, OverTcp, Regions, over_tcp, socket_in
from tests.worlds import any_distance, far_apart

pytestmark = pytest.mark.net

USER, EDGE, CENTRAL = "user", "edge", "central"
HANG_S = 30.0


def atlas(here: str | None = None, mtu: int = 1500, **links: Link) -> Atlas:
    """user-edge and user-central, unless said otherwise."""
    ways = {(USER, EDGE): links.get("near", Link(20)), (USER, CENTRAL): links.get("far", Link(300))}
    return Atlas(ways, here=here, mtu=mtu)


@asynccontextmanager
async def echo(places: Ground, place: str) -> AsyncIterator[int]:
    """A server in that place that sends back what it hears; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    listening = socket_in(places, place)
    listening.bind((places.address(place), 0))
    server = await asyncio.start_server(serve, sock=listening)
    try:
        yield listening.getsockname()[1]
    finally:
        server.close()


async def round_trips(places: Regions, place: str, port: int, count: int = 8) -> float:
    """TCP's own round trip from the user, after so many; in milliseconds."""
    loop = asyncio.get_running_loop()
    with socket_in(places, USER) as asking:
        await loop.sock_connect(asking, (places.address(place), port))
        for _ in range(count):
            await loop.sock_sendall(asking, b"?")
            await loop.sock_recv(asking, 1)
        return tcp_rtt_ms(asking)


@pytest.mark.parametrize(("place", "rtt_ms"), [(EDGE, 20), (CENTRAL, 300)])
async def test_tcp_measures_the_distance(place: str, rtt_ms: float) -> None:
    async with far_apart(atlas()) as places, asyncio.timeout(HANG_S), echo(places, place) as port:
        # A loaded machine makes it longer, so the shortest of a few counts; nothing makes it shorter.
        measured = [await round_trips(places, place, port) for _ in range(4)]
        assert rtt_ms <= min(measured) < rtt_ms * 1.5 + 20


async def test_distance_changes_while_it_is_used() -> None:
    async with far_apart(atlas()) as places, asyncio.timeout(HANG_S), echo(places, EDGE) as port:
        near_ms = await round_trips(places, EDGE, port)
        await places.change({(USER, EDGE): Link(120)})
        far_ms = await round_trips(places, EDGE, port)
    assert near_ms < 120 <= far_ms


async def test_jitter_makes_some_later_and_none_sooner() -> None:
    shaky = atlas(near=Link(10, jitter_ms=40))
    async with far_apart(shaky) as places, asyncio.timeout(HANG_S), echo(places, EDGE) as port:
        loop, took_s = asyncio.get_running_loop(), []
        with socket_in(places, USER) as asking:
            await loop.sock_connect(asking, (places.address(EDGE), port))
            for _ in range(20):
                began_s = loop.time()
                await loop.sock_sendall(asking, b"?")
                await loop.sock_recv(asking, 1)
                took_s.append(loop.time() - began_s)
    assert min(took_s) >= 0.010
    assert max(took_s) - min(took_s) > 0.010


async def carried(places: Ground, port: int, place: str, sent: bytes) -> bytes:
    """What comes back of it, over one connection of the user's."""
    at = await places.way(USER, place, port)
    asking = socket_in(places, USER)
    await asyncio.get_running_loop().sock_connect(asking, at)
    reader, writer = await asyncio.open_connection(sock=asking)
    writing = asyncio.create_task(_written(writer, sent))
    heard = await reader.readexactly(len(sent))
    await writing
    writer.close()
    return heard


async def _written(writer: asyncio.StreamWriter, sent: bytes) -> None:
    writer.write(sent)
    await writer.drain()


ROUGH = {
    "clean": (Link(4), 1500),
    "loss": (Link(4, loss=0.05), 1500),
    "reorder": (Link(4, jitter_ms=6, reorder=True), 1500),
    "small packets": (Link(4, loss=0.01), 600),
}


@pytest.mark.parametrize(("link", "mtu"), ROUGH.values(), ids=ROUGH)
async def test_every_byte_arrives_whatever_becomes_of_packets(link: Link, mtu: int) -> None:
    sent = tone.audio({"text": "x", "format": "pcm", "demo": {"bytes": 300_000}})
    async with far_apart(atlas(near=link, mtu=mtu)) as places, asyncio.timeout(HANG_S):
        async with echo(places, EDGE) as port:
            assert await carried(places, port, EDGE, sent) == sent
        fared = (await places.told())["ways"][f"{USER} {EDGE}"]
    assert fared["bytes"] > len(sent)
    assert (fared["lost"] > 0) == (link.loss > 0)
    if link.chooses:
        assert fared["bytes"] / fared["packets"] <= mtu


async def test_where_nothing_is_said_there_is_no_way() -> None:
    async with far_apart(atlas()) as places, asyncio.timeout(HANG_S), echo(places, CENTRAL) as port:
        loop = asyncio.get_running_loop()
        with socket_in(places, EDGE) as asking, pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await loop.sock_connect(asking, (places.address(CENTRAL), port))
        told = await places.told()
    assert told["ways"][f"{EDGE} {CENTRAL}"]["cut"] > 0


@pytest.mark.parametrize("wrong", [{(USER, "moon"): Link(1)}, {(USER, EDGE): "rough"}], ids=["place", "link"])
async def test_a_change_that_cannot_be_is_refused_and_the_world_goes_on(wrong: dict[tuple[str, str], Link]) -> None:
    async with far_apart(atlas()) as places, asyncio.timeout(HANG_S):
        with pytest.raises((Impossible, TypeError)):
            await places.change(wrong)
        assert (await places.told())["ok"]


async def test_two_worlds_do_not_meet() -> None:
    async with far_apart(atlas(here=EDGE)) as one, far_apart(atlas(here=EDGE)) as other:
        assert not {one.address(place) for place in one.atlas.places} & {
            other.address(place) for place in other.atlas.places
        }


def devices() -> set[str]:
    """The network devices of this namespace."""
    return {name for _, name in socket.if_nameindex()}


async def until_gone(*pids: int) -> None:
    async with asyncio.timeout(HANG_S):
        while any(map(_runs, pids)):
            await asyncio.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


#: A process with a world, who tells the pids of the relay and of a server in it and its address, and waits for its end.
_OWNER = """
import asyncio
from asyncio.subprocess import PIPE
from edgecache.demo.links import Link
from edgecache.demo.regions import Atlas, regions

async def main():
    async with regions(Atlas({("user", "edge"): Link(20)}, here="user")) as places:
        words = ("origin", "--knob", "voice=tone", "--port", "0", "--host", places.address("edge"))
        cluster = await asyncio.create_subprocess_exec(*places.command("edge", *words), stdin=PIPE, stdout=PIPE)
        await cluster.stdout.readline()
        print(places.process.pid, cluster.pid, places.address("user"), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("who", ["owner", "relay"])
async def test_nothing_is_left_after_a_kill(who: str) -> None:
    async with far_apart(atlas()):
        pass  # packets can travel here
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", _OWNER, stdout=PIPE)
    try:
        assert owner.stdout is not None
        async with asyncio.timeout(HANG_S):
            *pids, address = (await owner.stdout.readline()).decode().split()
        relay, cluster = map(int, pids)
        device = f"edgecache{address.split('.')[2]}"
        assert device in devices()
        if who == "relay":
            os.kill(relay, signal.SIGKILL)
            await until_gone(relay)
            assert device not in devices()
        owner.kill()
        await until_gone(relay, cluster)
    finally:
        if owner.returncode is None:
            owner.kill()
        await owner.communicate()
    assert device not in devices()


async def test_over_tcp_bytes_take_their_time_and_it_says_why() -> None:
    sent = b"x" * 100_000
    async with over_tcp(atlas(near=Link(40)), "no root") as places, asyncio.timeout(HANG_S):
        assert places.why_not == "no root"
        assert places.address(EDGE) == LOOPBACK
        async with echo(places, EDGE) as port:
            began_s = asyncio.get_running_loop().time()
            assert await carried(places, port, EDGE, sent) == sent
            # The handshake, and there and back.
            assert asyncio.get_running_loop().time() - began_s >= 2 * 0.040
        with pytest.raises(Impossible, match="no way between edge and central"):
            await places.way(EDGE, CENTRAL, port)


async def test_bytes_arrive_over_any_ground() -> None:
    async with any_distance(atlas(near=Link(4))) as places, asyncio.timeout(HANG_S), echo(places, EDGE) as port:
        assert await carried(places, port, EDGE, b"hello" * 1000) == b"hello" * 1000


async def test_a_relay_without_tun_says_so_in_a_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As it is without root: the process that would carry packets may not."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nread plan; echo \'{"error": "unshare: Operation not permitted"}\'\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    async with any_distance(atlas()) as places:
        assert isinstance(places, OverTcp)
        assert places.why_not == "unshare: Operation not permitted"
