"""Connections to upstreams, with what aiohttp's client is not trusted with put right.

Keeps rule 1 on the wire: a connection on which bytes came while nobody was asking is thrown away; and rule 3: a body whose
connection has ended never leaves its reader waiting. It does not know what is asked.
"""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

#: Every time-out is ours: aiohttp's defaults cut long speech after 300 s.
NO_TIMEOUTS = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
#: As many unclean connections are thrown away for one request; more than a pool has for one host by default.
MAX_UNCLEAN = 32


#: Over what this task's last request went: with a short answer its connection is given back before we see it.
went_over: ContextVar[asyncio.BaseTransport | None] = ContextVar("went_over", default=None)
#: Where Linux has the smoothed round trip in its `struct tcp_info`, in microseconds (include/uapi/linux/tcp.h).
_TCPI_RTT = struct.Struct("@68xI")


class CleanConnector(aiohttp.TCPConnector):
    """A pool that never hands out a connection on which bytes came while nobody was asking.

    aiohttp 3.14 keeps such bytes and gives them to the next request as its answer: another utterance's audio.
    """

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        for _ in range(MAX_UNCLEAN):
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is not None and not connection.protocol.should_close:
                went_over.set(connection.transport)
                return connection
            connection.close()
        raise aiohttp.ClientConnectionError("it speaks on connections before it is asked")


def tcp_rtt_s(transport: asyncio.BaseTransport | None) -> float | None:
    """The smoothed round trip as TCP itself measured it on this connection; None where the platform does not tell."""
    tcp = None if transport is None or transport.is_closing() else transport.get_extra_info("socket")
    if tcp is None or not hasattr(socket, "TCP_INFO") or tcp.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        told: bytes = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_RTT.size)
    except OSError:  # the connection went away, or the platform has no such thing
        return None
    (rtt_us,) = _TCPI_RTT.unpack(told) if len(told) == _TCPI_RTT.size else (0,)
    return float(rtt_us) / 1e6 if rtt_us else None


def session(connector: aiohttp.TCPConnector, tracing: aiohttp.TraceConfig) -> aiohttp.ClientSession:
    """A session that adds nothing of its own: no cookies, no environment, no decoding, no time-outs."""
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=NO_TIMEOUTS,
        auto_decompress=False,
        trust_env=False,
        trace_configs=[tracing],
    )


@contextmanager
def heard_of_its_end(response: aiohttp.ClientResponse) -> Iterator[None]:
    """Breaks off the body when its connection ends without the body being told.

    aiohttp 3.14 forgets the body when a later chunk is malformed: whoever reads it would wait until a time-out.
    """
    content = response.content

    def end(_: asyncio.Future[None] | None = None) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection ended in mid-body"))

    protocol = response.connection.protocol if response.connection is not None else None
    closed = protocol.closed if protocol is not None else None
    if closed is None:  # the body is already here, whole; or its connection is already gone
        end()
        yield
        return
    # The future outlives this exchange, with its connection: it keeps one callback, which only takes note of an error.
    closed.remove_done_callback(_take_note)
    closed.add_done_callback(_take_note)
    closed.add_done_callback(end)
    try:
        yield
    finally:
        closed.remove_done_callback(end)


def _take_note(closed: asyncio.Future[None]) -> None:
    if not closed.cancelled():
        closed.exception()
