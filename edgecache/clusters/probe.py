"""Measuring the way to an upstream: a small GET over a warm connection of its own, that no fill ever queues for.

Keeps: a round trip is what TCP itself measured on that connection, where the platform tells (TCP_INFO), so that an upstream
that is slow to answer does not look far away; else it is timed from the request's sending to the head of the answer. Never
over the making of a connection, and a new connection's first exchange is not a measurement. It does not know health, nor
when to probe.
"""

import asyncio
from dataclasses import dataclass

from edgecache.clock import Clock
from edgecache.clusters import wire
from edgecache.clusters.cluster import Pool, Probing
from edgecache.clusters.connections import Line, LineFault, tcp_rtt_s
from edgecache.clusters.fault import Fault
from edgecache.clusters.resolving import Resolver
from edgecache.clusters.switchboard import Switchboard
from edgecache.clusters.upstream import USER_AGENT
from edgecache.clusters.wire import Target

#: Each upstream is probed by one task, so these are bounds against mistakes.
MAX_LINES, MAX_LINES_EACH = 10_000, 4
#: An answer to a probe is read to here to keep its connection; a longer one costs the connection.
MAX_BODY_BYTES = 64 << 10
HEADERS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Probed:
    """What one probe found. rtt_s: None when nothing answered. ours: it was not made, which is not the cluster's fault."""

    alive: bool
    rtt_s: float | None = None
    detail: str = ""
    ours: bool = False


class Probes:
    """The probes' own connections."""

    def __init__(self, probing: Probing, dns_ttl_s: float, clock: Clock, resolver: Resolver | None = None) -> None:
        self._probing = probing
        self._clock = clock
        self._resolver = resolver or Resolver(dns_ttl_s, clock)
        keep_alive_s = max(60.0, 3 * probing.interval_s)
        self._board = Switchboard(Pool(MAX_LINES, MAX_LINES_EACH, keep_alive_s=keep_alive_s), self._resolver)

    async def close(self) -> None:
        """Closes them."""
        self._board.close()
        await self._resolver.close()

    async def probe(self, base_url: str, address: str | None = None) -> Probed:
        """Measures once; over a connection that was new, twice, of which the first does not count.

        address: where to connect, if not wherever the URL's host is found.
        """
        try:
            to = wire.target(base_url + self._probing.path)
        except ValueError:
            return Probed(False, detail="its URL can't be used")
        to = to if address is None else to._replace(peer=to.peer._replace(address=address))
        by = asyncio.get_running_loop().time() + self._probing.timeout_s
        try:
            probed, was_new = await self._lap(to, by)
            if was_new and probed.alive:
                probed, _ = await self._lap(to, by)
            return probed
        except TimeoutError:
            return Probed(False, detail="no answer to a probe in time")
        except LineFault as error:
            return Probed(False, detail=error.detail, ours=error.fault is Fault.BUSY)

    async def _lap(self, to: Target, by: float) -> tuple[Probed, bool]:
        line = await self._board.take(to.peer, by, self._probing.timeout_s)
        try:
            was_new = not line.used
            sent_at_s = self._clock.monotonic()
            line.ask(wire.request("GET", to, HEADERS))
            reading = await line.head(by)
            rtt_s = max(0.0, self._clock.monotonic() - sent_at_s)
            by_tcp_s = tcp_rtt_s(line.transport) if self._probing.measure == "tcp" else None
            if by_tcp_s is not None:  # TCP smooths: a path that became shorter shows in the answer first
                rtt_s = min(rtt_s, by_tcp_s)
            await _drain(line, by)
        finally:
            self._board.give_back(line)
        alive = reading.status < 500
        detail = "" if alive else f"status {reading.status} to a probe"
        return Probed(alive, rtt_s if alive else None, detail), was_new


async def _drain(line: Line, by: float) -> None:
    """Reads the body, so that the connection can be used again; gives up on a long one."""
    seen = 0
    while seen <= MAX_BODY_BYTES:
        chunk = await line.read(by)
        if not chunk:
            return
        seen += len(chunk)
