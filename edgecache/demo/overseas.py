"""A world with an ocean in it: you in Sydney, an edge there, a cluster in its region, and the central one in US-East.

As root each is a network namespace, and every packet takes its time (`regions`); else a TCP relay plays the distances, and
it is said which of both it is. It ends as every world does.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from edgecache.delivery.auth import new_key
from edgecache.demo import world
from edgecache.demo.links import Link
from edgecache.demo.regions import LOOPBACK, Atlas, OverTcp, Regions, ground, socket_in
from edgecache.demo.world import ADMIN_PORT, PORT, World, WorldError

YOU, EDGE, NEAR, CENTRAL = "you", "edge", "sydney", "us-east"
#: Round trips: what the seed of this product says of Sydney, its edge, and TTS in US-East.
ATLAS = Atlas(
    {
        (YOU, EDGE): Link(20),
        (YOU, CENTRAL): Link(350),
        (YOU, NEAR): Link(22),
        (EDGE, NEAR): Link(5),
        (EDGE, CENTRAL): Link(340),
    },
    here=YOU,
)
_TEXT = "Hello from the edge"


class Overseas(World):
    """The processes of one demonstration, each in its place."""

    def __init__(self, port: int, voice: str) -> None:
        super().__init__(port, voice)
        self._left = AsyncExitStack()
        self._places: Regions | OverTcp | None = None
        self._relay: asyncio.Task[None] | None = None

    @property
    def places(self) -> Regions | OverTcp:
        """Where its parts are."""
        assert self._places is not None, "the world has no ground yet"
        return self._places

    async def _settle(self, directory: Path) -> str:
        self._places = places = await self._left.enter_async_context(ground(ATLAS))
        if isinstance(places, Regions):
            self._relay = asyncio.create_task(self._watch_relay(places), name="watch the relay")
        near, central = await asyncio.gather(*(self._cluster(name, places.address(name)) for name in (NEAR, CENTRAL)))
        ports = {name: _port(cluster.url) for name, cluster in ((NEAR, near), (CENTRAL, central))}
        ways = {name: _url(await places.way(EDGE, name, port)) for name, port in ports.items()}
        key, line = new_key(YOU)
        (directory / "keys.txt").write_text(line + "\n")
        edge = await self._edge(directory, self._configuration(directory, ways))
        made = partial(socket_in, places, EDGE)
        try:
            clusters = await world.measured(edge["admin"], made)
            status = await world.told_by(edge["admin"], "/status", made)
        except OSError:
            await self._ended_by_itself()
        url = _url(await places.way(YOU, EDGE, _port(edge["url"]), self._port))
        far = _url(await places.way(YOU, CENTRAL, ports[CENTRAL]))
        told = {"Edge": f"{url}   rtt {ATLAS.between(YOU, EDGE).rtt_ms:g} ms from here, which is Sydney"}
        told |= {"API key": key, "Admin": self._admin(edge["admin"]), "Cache": world.told_cache(status)}
        told["Clusters"] = ("\n" + " " * 14).join(_cluster(each) for each in clusters)
        return _greeting(told | {"Voice": near.voice, "Distance": self._distance()}, url, far)

    def _command(self, name: str, *arguments: str) -> list[str]:
        return self.places.command(name, *arguments)

    async def _watch_relay(self, places: Regions) -> None:
        code = await places.process.wait()
        if not self._ending and not self._over.done():
            self._over.set_exception(WorldError(f"the relay of packets ended by itself (exit code {code})"))

    def _configuration(self, directory: Path, ways: Mapping[str, str]) -> dict[str, Any]:
        """Behind a relay any port will do; in a namespace of its own, all are free."""
        by_packets = isinstance(self.places, Regions)
        admin = ADMIN_PORT if by_packets or (self._port and world.is_free(ADMIN_PORT)) else 0
        return {
            **world.common(directory, ways),
            "node": {"name": "edge-syd-1", "region": "ap-southeast-2"},
            "listen": {"host": self.places.address(EDGE), "port": (self._port or PORT) if by_packets else 0},
            "admin": {"host": LOOPBACK, "port": admin},
            "auth": {"keys_file": str(directory / "keys.txt")},
            # TCP would tell the way to the relay that plays the distance.
            "probing": {"measure": "tcp" if by_packets else "answer"},
        }

    def _distance(self) -> str:
        if isinstance(self.places, Regions):
            return "real: each place is a network namespace, and a relay holds every packet for its time"
        return (
            f"played by a TCP relay, because packets can't travel here ({self.places.why_not}): bytes take their time,"
            "\n              but nothing is lost, and a connection is made at once; as root it is real"
        )

    def _admin(self, admin: str) -> str:
        """How its listener, which is on the loopback of its own place, is reached."""
        namespace = self.places.namespace(EDGE) if isinstance(self.places, Regions) else None
        if namespace is None:
            return f"{admin}   /dashboard /metrics /slo /status"
        return f"{admin}, in its own place: nsenter --net={namespace} {world.program()} clusters"

    async def _end(self, directory: Path) -> None:
        await super()._end(directory)
        if self._relay is not None:
            self._relay.cancel()
        await self._left.aclose()


def _cluster(told: Mapping[str, Any]) -> str:
    return f"{told['name']:<8} {told['url']}   rtt {told['rtt_ms']:.1f} ms from the edge"


def _greeting(told: Mapping[str, str], url: str, central: str) -> str:
    say = f"{world.program()} say '{_TEXT}' -o hello.wav"
    rows = "\n".join(f"  {name:<11} {words}" for name, words in told.items())
    return f"""
{rows}

  Try it; each tells how long it took to the first audio:
    {say} --url {central}   # across the ocean
    export EDGECACHE_API_KEY={told["API key"]}
    {say} --url {url}   # a miss: the edge asks the cluster in its region
    {say} --url {url}   # a hit: nobody is asked
"""


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _url(at: tuple[str, int]) -> str:
    return f"http://{at[0]}:{at[1]}"
