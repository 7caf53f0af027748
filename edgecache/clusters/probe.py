"""Measuring the way to an upstream: a small GET over a warm connection of its own, that no fill ever queues for.

Keeps: a round trip is what TCP itself measured on that connection, where the platform tells (TCP_INFO), so that an upstream
that is slow to answer does not look far away; else it is timed from the request's sending to the head of the answer. Never
over the making of a connection, and a new connection's first exchange is not a measurement. It does not know health, nor
when to probe.
"""

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from edgecache.clock import Clock
from edgecache.clusters.cluster import Probing
from edgecache.clusters.connections import CleanConnector, session, tcp_rtt_s, went_over
from edgecache.clusters.upstream import USER_AGENT, explain

#: An answer to a probe is read to here to keep its connection; a longer one costs the connection.
MAX_BODY_BYTES = 64 << 10
HEADERS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Probed:
    """What one probe found. rtt_s: None when nothing answered."""

    alive: bool
    rtt_s: float | None = None
    detail: str = ""


class Lap:
    """One exchange of a probe, as aiohttp's tracing sees it."""

    __slots__ = ("_clock", "new_connection", "sent_at_s")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.new_connection = False
        self.sent_at_s = clock.monotonic()

    def connecting(self) -> None:
        """A new connection is made for it."""
        self.new_connection = True

    def sending(self) -> None:
        """The request goes out now."""
        self.sent_at_s = self._clock.monotonic()


def _tracing() -> aiohttp.TraceConfig:
    async def connecting(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.connecting()

    async def sending(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.sending()

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_start.append(connecting)
    tracing.on_request_headers_sent.append(sending)
    return tracing


class Probes:
    """The probes' own connections."""

    def __init__(self, probing: Probing, dns_ttl_s: float, clock: Clock) -> None:
        self._probing = probing
        self._dns_ttl_s = dns_ttl_s
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Opens them if they are not; a connection is made by the first probe of its upstream."""
        if self._session is None:
            # Each upstream is probed by one task, so this is a bound against mistakes.
            connector = CleanConnector(
                limit=0,
                limit_per_host=4,
                ttl_dns_cache=int(self._dns_ttl_s),
                keepalive_timeout=max(60.0, 3 * self._probing.interval_s),
            )
            self._session = session(connector, _tracing())

    async def close(self) -> None:
        """Closes them."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def probe(self, address: str) -> Probed:
        """Measures once; over a connection that was new, twice, of which the first does not count."""
        assert self._session is not None, "Probes are not open"
        url = address + self._probing.path
        try:
            async with asyncio.timeout(self._probing.timeout_s):
                probed, was_new = await self._lap(self._session, url)
                if was_new and probed.alive:
                    probed, _ = await self._lap(self._session, url)
                return probed
        except TimeoutError:
            return Probed(False, detail="no answer to a probe in time")
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            return Probed(False, detail=explain(error)[1])

    async def _lap(self, over: aiohttp.ClientSession, url: str) -> tuple[Probed, bool]:
        lap = Lap(self._clock)
        response = await over.get(url, headers=HEADERS, allow_redirects=False, trace_request_ctx=lap)
        rtt_s = max(0.0, self._clock.monotonic() - lap.sent_at_s)
        by_tcp_s = tcp_rtt_s(went_over.get()) if self._probing.measure == "tcp" else None
        if by_tcp_s is not None:  # TCP smooths: a path that became shorter shows in the answer first
            rtt_s = min(rtt_s, by_tcp_s)
        try:
            await _drain(response)
        finally:
            response.close()
        alive = response.status < 500
        detail = "" if alive else f"status {response.status} to a probe"
        return Probed(alive, rtt_s if alive else None, detail), lap.new_connection


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Reads the body, so that the connection can be used again; gives up on a long one."""
    seen = 0
    while seen <= MAX_BODY_BYTES:
        chunk = await response.content.readany()
        if not chunk:
            return
        seen += len(chunk)
