"""Places that are far from each other, on one machine: each a network namespace, joined by a relay of packets.

Where that is not allowed, what lies between two places is a TCP relay (`distance`) on loopback: bytes then take their time,
but a connection is made at once, nothing is lost, and distances stay as they are. Keeps the rule that all of it is gone when
the block ends, or this process does. It does not know what runs in a place.
"""

import asyncio
import json
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from edgecache.demo import namespaces
from edgecache.demo.distance import Relay
from edgecache.demo.leash import tied
from edgecache.demo.links import Link, spelled
from edgecache.demo.tun import Plan

LOOPBACK = "127.0.0.1"
#: What the relay may take to answer, and to end.
_PATIENCE_S = 5.0
#: How a tied process is started elsewhere: the first argument is the namespace.
_TIED_ELSEWHERE = (
    "import sys; from edgecache.demo import leash, namespaces; namespaces.enter(sys.argv.pop(1)); leash.tie(); "
    "from edgecache.cli import main; main()"
)

Pair = tuple[str, str]


class Impossible(Exception):
    """Why packets can't travel here, or what a relay can't do."""


@dataclass(frozen=True, slots=True)
class Atlas:
    """Who is how far from whom; where nothing is said, there is no way. here: the place that this machine itself is."""

    links: Mapping[Pair, Link]
    here: str | None = None
    mtu: int = 1500
    seed: int = 0

    @property
    def places(self) -> tuple[str, ...]:
        """Each of them once."""
        return tuple(dict.fromkeys(place for pair in self.links for place in pair))

    def between(self, here: str, there: str) -> Link:
        """The link of two places."""
        return self.links.get((here, there)) or self.links.get((there, here)) or Link(cut=True)


class Ground(Protocol):
    """Where a world stands. why_not: what keeps packets from travelling; empty: they do."""

    atlas: Atlas
    why_not: str

    def address(self, place: str) -> str:
        """What a server in that place listens at."""
        ...

    async def way(self, here: str, there: str, port: int, near_port: int = 0) -> tuple[str, int]:
        """Where those who are `here` reach that port of `there`. near_port: is tried first where a port has to be found."""
        ...

    def command(self, place: str, *arguments: str) -> list[str]:
        """What runs `edgecache` with these arguments in that place, on a leash (see `leash`)."""
        ...

    def inside(self, place: str) -> AbstractContextManager[None]:
        """Sockets that this thread makes in the block are in that place. Nothing may await in it."""
        ...


class Regions:
    """Places between which packets travel. `start()`, and what it made ends with `close()`."""

    why_not = ""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas
        self._process: Process | None = None
        self._addresses: dict[str, str] = {}
        self._namespaces: dict[str, str] = {}
        self._asking = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Regions {self._addresses} pid {self._process.pid if self._process else None}>"

    @property
    def process(self) -> Process:
        """The relay's."""
        assert self._process is not None, "Regions are not started"
        return self._process

    async def start(self) -> None:
        """Places and ways are there. Impossible: they can't be, and why."""
        links = {" ".join(pair): spelled(link) for pair, link in self.atlas.links.items()}
        plan = Plan(self.atlas.places, links, self.atlas.here, self.atlas.mtu, self.atlas.seed)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgecache.demo.tun"), stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        try:
            told = await self._ask(asdict(plan))
        except BaseException:
            await self.close()
            raise
        for place, where in told["places"].items():
            self._addresses[place] = where["address"]
            if where["namespace"] is not None:
                self._namespaces[place] = f"/proc/{told['pid']}/fd/{where['namespace']}"

    async def close(self) -> None:
        """Nothing of it is left."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.returncode is None:
            process.kill()  # its files close, and that is all it has to do
        await process.communicate()

    def address(self, place: str) -> str:
        """Of all its servers."""
        return self._addresses[place]

    def namespace(self, place: str) -> str | None:
        """For `nsenter --net=…`; None: the machine's own."""
        return self._namespaces.get(place)

    async def way(self, here: str, there: str, port: int, near_port: int = 0) -> tuple[str, int]:
        """The kernel knows it."""
        return self.address(there), port

    def command(self, place: str, *arguments: str) -> list[str]:
        """It enters the namespace before anything else."""
        if place not in self._namespaces:
            return tied(*arguments)
        return [sys.executable, "-c", _TIED_ELSEWHERE, self._namespaces[place], *arguments]

    def inside(self, place: str) -> AbstractContextManager[None]:
        """This thread, for the time of the block."""
        return namespaces.inside(self._namespaces[place]) if place in self._namespaces else nullcontext()

    async def change(self, links: Mapping[Pair, Link]) -> None:
        """From now on; packets under way keep their time."""
        await self._ask({"links": {" ".join(pair): spelled(link) for pair, link in links.items()}})

    async def told(self) -> dict[str, Any]:
        """What the relay tells of itself: see `tun.Relay.told`."""
        return await self._ask({"tell": True})

    async def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Impossible: it says what is wrong, or says nothing any more."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        async with self._asking, asyncio.timeout(_PATIENCE_S):
            stdin.write(json.dumps(question).encode() + b"\n")
            line = await stdout.readline()
        told: dict[str, Any] = json.loads(line or b'{"error": "the relay has ended"}')
        if "error" in told:
            raise Impossible(told["error"])
        return told


class OverTcp:
    """All places are loopback, and each way is a relay of its own. Links have a distance and nothing else."""

    def __init__(self, atlas: Atlas, why_not: str) -> None:
        self.atlas = atlas
        self.why_not = why_not
        self._relays: list[Relay] = []

    def __repr__(self) -> str:
        return f"<OverTcp {self._relays}>"

    async def close(self) -> None:
        """Drops every connection."""
        for relay in self._relays:
            await relay.close()
        self._relays = []

    def address(self, place: str) -> str:
        """The same for all."""
        return LOOPBACK

    async def way(self, here: str, there: str, port: int, near_port: int = 0) -> tuple[str, int]:
        """A relay listens there. Impossible: there is no such way."""
        link = self.atlas.between(here, there)
        if link.cut:
            raise Impossible(f"there is no way between {here} and {there}")
        relay = Relay((LOOPBACK, port), link.one_way_s, LOOPBACK, near_port)
        try:
            await relay.start()
        except OSError:
            relay = Relay((LOOPBACK, port), link.one_way_s)
            await relay.start()
        self._relays.append(relay)
        return relay.host, relay.port

    def command(self, place: str, *arguments: str) -> list[str]:
        """All run here."""
        return tied(*arguments)

    def inside(self, place: str) -> AbstractContextManager[None]:
        """It is everywhere."""
        return nullcontext()


@asynccontextmanager
async def regions(atlas: Atlas) -> AsyncIterator[Regions]:
    """Packets travel. Impossible: they can't here, and why."""
    places = Regions(atlas)
    await places.start()
    try:
        yield places
    finally:
        await places.close()


@asynccontextmanager
async def over_tcp(atlas: Atlas, why_not: str = "TCP was asked for") -> AsyncIterator[OverTcp]:
    """Bytes travel."""
    places = OverTcp(atlas, why_not)
    try:
        yield places
    finally:
        await places.close()


@asynccontextmanager
async def ground(atlas: Atlas) -> AsyncIterator[Regions | OverTcp]:
    """Packets travel if that is possible here, else bytes do."""
    places = Regions(atlas)
    try:
        await places.start()
    except Impossible as error:
        async with over_tcp(atlas, str(error)) as instead:
            yield instead
        return
    try:
        yield places
    finally:
        await places.close()


def socket_in(places: Ground, place: str) -> socket.socket:
    """A TCP socket of that place, for event loops."""
    with places.inside(place):
        made = socket.socket()
    made.setblocking(False)
    return made
