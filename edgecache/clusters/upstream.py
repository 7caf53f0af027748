"""One exchange with one upstream, over aiohttp: a request built new, and its answer as it comes in.

Keeps rules 1 and 2 towards clusters: nothing of a client's request is sent on but what the dialect writes; a body that
ended without HTTP saying that it is whole is marked unframed; nothing is decompressed, redirected or guessed. Every fault
has a name and a detail that is safe to log: fixed words, never what an upstream or a client wrote (rule 8).
It does not know which upstream is best, what audio is, nor what a client is told.
"""

import asyncio
import errno
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, Protocol

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict

from edgecache.clock import Clock
from edgecache.clusters.cluster import Pool, Timeouts
from edgecache.clusters.connections import CleanConnector, heard_of_its_end, session
from edgecache.clusters.fault import Fault, UpstreamFault, retry_after_s, status_fault
from edgecache.speech.utterance import Utterance

__all__ = ["Answer", "Dialect", "Fault", "Lines", "Outgoing", "UpstreamFault"]

USER_AGENT = f"edgecache/{version('edgecache')}"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A POST as a dialect writes it."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Dialect(Protocol):
    """A wire API, as far as asking a cluster goes."""

    def ask(self, base_url: str, api_key: str | None, utterance: Utterance, /) -> Outgoing: ...


def explain(error: Exception) -> tuple[Fault, str]:
    """The name and a detail for what aiohttp raised. The error's own words stay here: they may quote the upstream."""
    match error:
        case aiohttp.ClientSSLError():
            return Fault.CONNECT, "TLS handshake or certificate refused"
        case aiohttp.ClientConnectorDNSError():
            return Fault.CONNECT, "its name can't be resolved"
        case aiohttp.ClientConnectorError():
            return Fault.CONNECT, f"can't connect ({_errno(error.os_error)})"
        case aiohttp.ServerDisconnectedError():
            return Fault.BROKEN, "closed the connection before an answer"
        case aiohttp.ClientPayloadError():
            return Fault.BROKEN, "the body broke off or is badly framed"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return Fault.PROTOCOL, "the head of the answer is malformed or too large"
        case aiohttp.InvalidURL():
            return Fault.CONNECT, "its URL can't be used"
        case OSError():
            return Fault.BROKEN, f"the connection broke ({_errno(error)})"
        case _:
            return Fault.BROKEN, f"the connection broke ({type(error).__name__})"


def _errno(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """When an exchange must have come how far, on the event loop's clock."""

    first_byte_at: float
    between_s: float
    total_at: float

    @classmethod
    def of(cls, timeouts: Timeouts, began_at: float) -> "Deadlines":
        """For an exchange that begins now."""
        return cls(began_at + timeouts.first_byte_s, timeouts.between_bytes_s, began_at + timeouts.total_s)

    def next_read_at(self, now: float, *, first: bool) -> float:
        """By when the next read must have given something."""
        return min(self.first_byte_at if first else now + self.between_s, self.total_at)

    def missed(self, due_at: float, *, first: bool) -> tuple[Fault, str]:
        """What a read that gave nothing by then is called. Not asked of the clock: timers may come a tick too soon."""
        if due_at >= self.total_at:
            return Fault.TOTAL_TIMEOUT, "the whole answer took too long"
        if first:
            return Fault.FIRST_BYTE_TIMEOUT, "no first byte in time"
        return Fault.STALLED, "stalled in mid-body"


class Answer:
    """A status 200 and its body, as it comes in. framed: HTTP itself says where the body ends."""

    __slots__ = ("_deadlines", "_response", "cluster", "content_length", "framed", "headers", "media_type", "status")

    def __init__(self, cluster: str, response: aiohttp.ClientResponse, deadlines: Deadlines) -> None:
        length = response.headers.get("Content-Length")
        self.cluster = cluster
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.media_type = _media_type(response)
        self.content_length = int(length) if length is not None else None
        self.framed = length is not None or _chunked(response)
        self._response = response
        self._deadlines = deadlines

    def __repr__(self) -> str:
        return f"<Answer {self.cluster} {self.status} {'framed' if self.framed else 'unframed'}>"

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body's bytes as they arrive. UpstreamFault: it did not end as it should, or not in time."""
        loop = asyncio.get_running_loop()
        first = True
        while True:
            # A time-out for each read, never one around a yield: that would strike whoever is reading.
            due_at = self._deadlines.next_read_at(loop.time(), first=first)
            try:
                async with asyncio.timeout_at(due_at):
                    chunk = await self._response.content.readany()
            except TimeoutError as error:
                fault, detail = self._deadlines.missed(due_at, first=first)
                raise UpstreamFault(fault, self.cluster, detail) from error
            except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
                raise UpstreamFault(Fault.BROKEN, self.cluster, explain(error)[1]) from error
            if not chunk:
                return
            first = False
            yield chunk


def _media_type(response: aiohttp.ClientResponse) -> str:
    """The Content-Type as it was sent; what could not be sent on as it is counts as absent."""
    raw = response.headers.get("Content-Type", "")
    return raw if raw.isascii() and raw.isprintable() else ""


def _chunked(response: aiohttp.ClientResponse) -> bool:
    """Whether the body ends with a last chunk (RFC 9112 §7.1); HTTP/1.0 has no such thing."""
    coding = response.headers.get("Transfer-Encoding", "").strip().lower()
    return coding == "chunked" and response.version is not None and response.version >= aiohttp.HttpVersion11


class Phase(Enum):
    """How far a request is on its way."""

    QUEUED = "queued"  # waits for the pool
    CONNECTING = "connecting"
    ASKED = "asked"


class Trail:
    """What aiohttp's tracing says of one request, and the time-out that follows from it."""

    __slots__ = ("_connect_s", "_first_byte_at", "_patience", "phase", "reused")

    def __init__(self, patience: asyncio.Timeout, first_byte_at: float, connect_s: float) -> None:
        self.phase = Phase.QUEUED
        self.reused = False
        self._patience = patience
        self._first_byte_at = first_byte_at
        self._connect_s = connect_s

    def connecting(self) -> None:
        """A new connection is made: name, TCP and TLS together have the connect time-out."""
        connected_at = asyncio.get_running_loop().time() + self._connect_s
        self._enter(Phase.CONNECTING, min(connected_at, self._first_byte_at))

    def connected(self, *, reused: bool) -> None:
        """The request goes out."""
        self.reused = reused
        self._enter(Phase.ASKED, self._first_byte_at)

    def _enter(self, phase: Phase, deadline_at: float) -> None:
        self.phase = phase
        if not self._patience.expired():
            self._patience.reschedule(deadline_at)

    def missed(self) -> tuple[Fault, str]:
        """What a request that took too long is called."""
        match self.phase:
            case Phase.QUEUED:
                return Fault.BUSY, "no connection to it was free in time"
            case Phase.CONNECTING:
                return Fault.CONNECT, "can't connect in time"
            case Phase.ASKED:
                return Fault.FIRST_BYTE_TIMEOUT, "no answer in time"

    def died_idle(self, error: Exception) -> bool:
        """Whether the connection was an old one that was closed before it gave a single byte of an answer.

        Then the upstream most likely never read the request: asking once more on a new connection is safe enough.
        """
        if not self.reused:
            return False
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return isinstance(error.message, str)  # otherwise it carries the head that had begun
        return True


def _tracing() -> aiohttp.TraceConfig:
    async def connecting(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.connecting()

    async def connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.connected(reused=False)

    async def reused(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.connected(reused=True)

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_start.append(connecting)
    tracing.on_connection_create_end.append(connected)
    tracing.on_connection_reuseconn.append(reused)
    return tracing


class Lines:
    """The connections to all upstreams: a warm pool, and new ones for a request whose old connection had died."""

    def __init__(self, timeouts: Timeouts, pool: Pool, clock: Clock) -> None:
        self._timeouts = timeouts
        self._pool = pool
        self._clock = clock
        self._warm: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Opens the pool; connections are made as they are needed."""
        pool = self._pool
        limits: dict[str, Any] = {
            "limit": pool.max_connections,
            "limit_per_host": pool.max_per_host,
            "ttl_dns_cache": int(pool.dns_ttl_s),
        }
        tracing = _tracing()
        self._warm = session(CleanConnector(keepalive_timeout=pool.keep_alive_s, **limits), tracing)
        self._fresh = session(CleanConnector(force_close=True, **limits), tracing)

    async def close(self) -> None:
        """Closes every connection."""
        for each in (self._warm, self._fresh):
            if each is not None:
                await each.close()
        self._warm = self._fresh = None

    @asynccontextmanager
    async def ask(self, cluster: str, outgoing: Outgoing, forwarding: Mapping[str, str]) -> AsyncIterator[Answer]:
        """One exchange. UpstreamFault: there is no answer to be read. A body not read to its end costs the connection."""
        deadlines = Deadlines.of(self._timeouts, asyncio.get_running_loop().time())
        response = await self._send(cluster, outgoing, forwarding, deadlines)
        try:
            self._check(cluster, response)
            with heard_of_its_end(response):
                yield Answer(cluster, response, deadlines)
        finally:
            response.close()  # no more than a mark if the body was read to its end: then the pool has the connection

    async def _send(
        self, cluster: str, outgoing: Outgoing, forwarding: Mapping[str, str], deadlines: Deadlines
    ) -> aiohttp.ClientResponse:
        """The answer's head, asked for again once if an idle connection had died unnoticed."""
        assert self._warm is not None, "Lines is not started"
        assert self._fresh is not None
        headers = _headers(outgoing, forwarding)
        first_byte_at = min(deadlines.first_byte_at, deadlines.total_at)
        trail: Trail | None = None
        try:
            async with asyncio.timeout_at(first_byte_at) as patience:
                trail = Trail(patience, first_byte_at, self._timeouts.connect_s)
                try:
                    return await _post(self._warm, outgoing, headers, trail)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                    if not trail.died_idle(error):
                        raise
                return await _post(self._fresh, outgoing, headers, trail)
        except TimeoutError as error:
            assert trail is not None
            raise _fault(cluster, trail.missed()) from error
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            raise _fault(cluster, explain(error)) from error

    def _check(self, cluster: str, response: aiohttp.ClientResponse) -> None:
        """UpstreamFault: not a 200 whose body can be taken as it is."""
        fault = status_fault(response.status)
        if fault is not None:
            wait_s = retry_after_s(response.headers.get("Retry-After"), self._clock.wall())
            raise UpstreamFault(fault, cluster, f"status {response.status}", response.status, wait_s)
        if any(
            each.strip().lower() not in ("", "identity") for each in response.headers.getall("Content-Encoding", ())
        ):
            raise UpstreamFault(Fault.ENCODED, cluster, "the body is encoded though identity was asked for", 200)
        codings = response.headers.getall("Transfer-Encoding", ())
        if any(each.strip().lower() != "chunked" for each in codings) or len(codings) > 1:
            raise UpstreamFault(Fault.PROTOCOL, cluster, "a transfer encoding other than chunked", 200)


def _fault(cluster: str, named: tuple[Fault, str]) -> UpstreamFault:
    return UpstreamFault(named[0], cluster, named[1])


def _headers(outgoing: Outgoing, forwarding: Mapping[str, str]) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    headers["Content-Type"] = "application/json"
    headers["Accept"] = "audio/*"
    headers.update(outgoing.headers)
    headers["Accept-Encoding"] = "identity"
    headers["User-Agent"] = USER_AGENT
    headers.update(forwarding)
    return headers


async def _post(
    over: aiohttp.ClientSession, outgoing: Outgoing, headers: CIMultiDict[str], trail: Trail
) -> aiohttp.ClientResponse:
    return await over.post(
        outgoing.url, data=outgoing.body, headers=headers, allow_redirects=False, trace_request_ctx=trail
    )
