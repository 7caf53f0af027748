"""One exchange with one upstream: a request built new, and its answer as it comes in.

Keeps rules 1 and 2 towards clusters: nothing of a client's request is sent on but what the dialect writes; a body that
ended without HTTP saying that it is whole is marked unframed; nothing is decompressed, redirected or guessed. Every fault
has a name and a detail that is safe to log: fixed words, never what an upstream or a client wrote (rule 8).
It does not know which upstream is best, what audio is, nor what a client is told.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from functools import partial
from importlib.metadata import version
from ssl import SSLContext
from typing import Protocol

import msgspec

from edgecache.clock import Clock
from edgecache.clusters import wire
from edgecache.clusters.cluster import Pool, Timeouts
from edgecache.clusters.connections import Line, LineFault
from edgecache.clusters.deadlines import Deadlines
from edgecache.clusters.fault import Fault, UpstreamFault, retry_after_s, status_fault
from edgecache.clusters.reasons import MAX_BYTES, UNNAMED, named
from edgecache.clusters.resolving import Resolver
from edgecache.clusters.switchboard import Switchboard, verifying
from edgecache.clusters.wire import Peer, Reading, Target
from edgecache.measures.ladder import Spread
from edgecache.speech.utterance import Utterance

__all__ = ["Answer", "Dialect", "Fault", "Lines", "Outgoing", "UpstreamFault"]

#: For what is told beside the audio. Whoever hears the audio waits so much longer for its end, at worst.
MORE_S = 1.0
MORE_BYTES = 1 << 20
#: A path of the server that was asked, and no other server's: `//host/…` is none.
_PATH = re.compile(r"/(?!/)[A-Za-z0-9._~/%?&=+-]{0,255}")
_ORIGIN = re.compile(r"https?://[^/]+")
USER_AGENT = f"edgecache/{version('edgecache')}"
_MINE = {"Content-Type": "application/json", "Accept": "audio/*"}
_LAST = {"Accept-Encoding": "identity", "User-Agent": USER_AGENT}


class Outgoing(msgspec.Struct, frozen=True):
    """A request as a dialect writes it. more_in: the header of the answer that says where more is told, if any does."""

    url: str
    headers: Mapping[str, str]
    body: bytes | None
    more_in: str = ""


class Dialect(Protocol):
    """A wire API, as far as asking a cluster goes."""

    def ask(self, base_url: str, api_key: str | None, utterance: Utterance, /) -> Outgoing: ...


class Answer:
    """A status 200 and its body, as it comes in. framed: HTTP itself says where the body ends.

    headers: by their names in lower case.
    """

    __slots__ = (
        "_deadlines",
        "_line",
        "_more",
        "cluster",
        "content_length",
        "framed",
        "headers",
        "media_type",
        "status",
    )

    def __init__(
        self, cluster: str, line: Line, reading: Reading, deadlines: Deadlines, more: Callable[[], Awaitable[bytes]]
    ) -> None:
        self._more = more
        self.cluster = cluster
        self.status = reading.status
        self.headers: Mapping[str, str] = reading.headers
        self.media_type = _media_type(reading.headers)
        self.content_length = reading.length
        self.framed = reading.framed
        self._line = line
        self._deadlines = deadlines

    def __repr__(self) -> str:
        return f"<Answer {self.cluster} {self.status} {'framed' if self.framed else 'unframed'}>"

    async def pour(self, take: Callable[[bytes], None]) -> None:
        """Hands over the body to its end, each part in the turn of the event loop in which it came. What that wakes runs
        before this ends. UpstreamFault: it did not end as it should, or not in time; and whatever `take` raises ends it."""
        try:
            await self._line.pour(take, self._deadlines)
        except TimeoutError as error:
            raise UpstreamFault(*self._missed()) from error
        except LineFault as error:
            raise UpstreamFault(Fault.BROKEN, self.cluster, error.detail) from error

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body's bytes as they are asked for, for who may be slow. UpstreamFault: as with `pour`."""
        now, deadlines = asyncio.get_running_loop().time, self._deadlines
        while True:
            # A time-out for each read, never one around a yield: that would strike whoever is reading.
            try:
                if deadlines.over(now()):
                    raise TimeoutError
                chunk = await self._line.read(deadlines.due_at)
            except TimeoutError as error:
                raise UpstreamFault(*self._missed()) from error
            except LineFault as error:
                raise UpstreamFault(Fault.BROKEN, self.cluster, error.detail) from error
            if not chunk:
                return
            yield chunk
            deadlines.came(now())

    def _missed(self) -> tuple[Fault, str, str]:
        fault, detail = self._deadlines.missed()
        return fault, self.cluster, detail

    async def more(self) -> bytes:
        """What the cluster tells beside the audio, once that was read to its end; empty if nothing, or not in time."""
        return await self._more()


def _media_type(headers: Mapping[str, str]) -> str:
    """The Content-Type as it was sent; what could not be sent on as it is counts as absent."""
    raw = headers.get("content-type", "")
    return raw if raw.isascii() and raw.isprintable() else ""


#: Given an answer whose head is whole; what it gives is handed the body.
Hear = Callable[[Answer], Callable[[bytes], None]]


class Asking(AbstractAsyncContextManager[Answer]):
    """One exchange; its connection is given back with the end of the block. A body not read to its end costs it."""

    __slots__ = (
        *("_address", "_answer", "_cluster", "_deadlines", "_failure", "_forwarding", "_hear", "_line", "_lines"),
        *("_outgoing", "_peer", "_request"),
    )

    def __init__(
        self, lines: "Lines", cluster: str, outgoing: Outgoing, forwarding: Mapping[str, str], address: str | None
    ) -> None:
        self._lines = lines
        self._cluster = cluster
        self._outgoing = outgoing
        self._forwarding = forwarding
        self._address = address
        self._line: Line | None = None
        # From when it is begun.
        self._request = b""
        self._peer: Peer | None = None
        self._deadlines: Deadlines | None = None
        # When its head was whole, where somebody hears it from there on.
        self._hear: Hear | None = None
        self._answer: Answer | None = None
        self._failure: Exception | None = None

    def begin(self, hear: Hear | None = None) -> None:
        """Asks now, if a warm line is there; if not, entering does. hear: told of the answer in the turn in which its head
        was whole; what it or that raises is for who enters. UpstreamFault: nobody can be asked so."""
        try:
            to = wire.target(self._outgoing.url)
        except ValueError as error:
            raise self._fault(Fault.CONNECT, "its URL can't be used") from error
        self._hear = hear
        self._peer = to.peer if self._address is None else to.peer._replace(address=self._address)
        self._request = self._lines.written(to, self._outgoing, self._forwarding)
        line = self._line = self._lines.board.warm(self._peer)
        if line is not None:
            line.ask(self._request, self._headed)
        self._deadlines = Deadlines(self._lines.timeouts, asyncio.get_running_loop().time())

    async def __aenter__(self) -> Answer:
        try:
            if self._deadlines is None:
                self.begin()
            assert self._deadlines is not None
            reading = await self._head(self._deadlines.due_at)
            if self._failure is not None:
                raise self._failure
            if self._answer is not None:
                return self._answer
            await self._check_status(reading)
            return self._answered(reading)
        except LineFault as error:
            self.give_back()
            raise self._fault(error.fault, error.detail) from error
        except TimeoutError as error:
            self.give_back()
            raise self._fault(Fault.FIRST_BYTE_TIMEOUT, "no answer in time") from error
        except BaseException:
            self.give_back()
            raise

    async def __aexit__(self, *_: object) -> None:
        self.give_back()

    def _headed(self, reading: Reading) -> None:
        """The head is whole."""
        hear, self._hear = self._hear, None
        if hear is None or self._line is None or status_fault(reading.status) is not None:
            return  # whoever enters is told, and may read on
        try:
            answer = self._answered(reading)
            assert self._deadlines is not None
            self._line.hand_to(hear(answer), self._deadlines)
            self._answer = answer
        except Exception as error:  # for whoever enters
            self._failure = error

    def _answered(self, reading: Reading) -> Answer:
        """UpstreamFault: it is none whose body can be taken as it is."""
        self._check(reading)
        assert self._line is not None
        assert self._deadlines is not None
        where = reading.headers.get(self._outgoing.more_in, "")
        return Answer(self._cluster, self._line, reading, self._deadlines, partial(self._more, where))

    async def _more(self, where: str) -> bytes:
        """A second request, to a path of the same server. Whatever goes wrong with it is no fault: the audio is whole."""
        if not _PATH.fullmatch(where):
            return b""
        self.give_back()
        origin = _ORIGIN.match(self._outgoing.url)
        assert origin is not None
        asked = Outgoing(origin[0] + where, self._outgoing.headers, None)
        told = bytearray()
        try:
            async with (
                asyncio.timeout(MORE_S),
                self._lines.ask(self._cluster, asked, self._forwarding, self._address) as answer,
                aclosing(answer.chunks()) as chunks,
            ):
                async for chunk in chunks:
                    told += chunk
                    if len(told) > MORE_BYTES:
                        return b""
                return bytes(told) if answer.framed else b""
        except (UpstreamFault, TimeoutError):
            return b""

    async def _head(self, by: float) -> Reading:
        """The answer's head, asked for again once if an idle connection had died unnoticed."""
        assert self._peer is not None
        board, connect_s = self._lines.board, self._lines.timeouts.connect_s
        line = self._line
        if line is None:
            line = self._ask(await board.take(self._peer, by, connect_s))
        try:
            return await line.head(by)
        except LineFault:
            # Most likely nobody has read the request: to ask once more on a new connection is safe enough.
            if not (line.used and line.unheard):
                raise
        self._return_line()
        line = self._ask(await board.take(self._peer, by, connect_s, fresh=True))
        return await line.head(by)

    async def _check_status(self, reading: Reading) -> None:
        """UpstreamFault: not a 200."""
        fault = status_fault(reading.status)
        if fault is not None:
            wait_s = retry_after_s(reading.headers.get("retry-after"), self._lines.clock.wall())
            why = named(await self._rest()) if fault is Fault.REFUSED else UNNAMED
            raise UpstreamFault(fault, self._cluster, f"status {reading.status}", reading.status, wait_s, why)

    def _check(self, reading: Reading) -> None:
        """UpstreamFault: a 200 whose body can't be taken as it is."""
        headers, encodings = reading.headers, reading.headers.get("content-encoding")
        if encodings is not None and any(each.strip() not in ("", "identity") for each in encodings.lower().split(",")):
            raise UpstreamFault(Fault.ENCODED, self._cluster, "the body is encoded though identity was asked for", 200)
        if "transfer-encoding" in headers and not reading.chunked:
            raise UpstreamFault(Fault.PROTOCOL, self._cluster, "a transfer encoding other than chunked", 200)

    async def _rest(self) -> bytes:
        """The body of a refusal, if it comes soon; else nothing, which is no fault. Read to its end it costs no line."""
        told, by = bytearray(), asyncio.get_running_loop().time() + MORE_S
        assert self._line is not None
        with suppress(LineFault, TimeoutError):
            while len(told) <= MAX_BYTES:
                part = await self._line.read(by)
                if not part:
                    return bytes(told)
                told += part
        return b""

    def _ask(self, line: Line) -> Line:
        self._line = line
        if not line.used:
            self._lines.connects.setdefault(self._cluster, Spread()).add(line.made_in_s)
        line.ask(self._request, self._headed)
        return line

    def _fault(self, fault: Fault, detail: str) -> UpstreamFault:
        return UpstreamFault(fault, self._cluster, detail)

    def give_back(self) -> None:
        """It is over, however it ended."""
        self._hear = None
        self._return_line()

    def _return_line(self) -> None:
        if self._line is not None:
            self._lines.board.give_back(self._line)
            self._line = None


class Lines:
    """Asking all upstreams, over warm lines; over a new one if a warm one had died unnoticed."""

    def __init__(
        self,
        timeouts: Timeouts,
        pool: Pool,
        clock: Clock,
        resolver: Resolver | None = None,
        tls: SSLContext | None = None,
    ) -> None:
        self.timeouts = timeouts
        self.clock = clock
        self._resolver = resolver or Resolver(pool.dns_ttl_s, clock, allow_networks=pool.allow_networks)
        self.board = Switchboard(pool, self._resolver, tls)
        #: How long connections took to make, by cluster.
        self.connects: dict[str, Spread] = {}
        #: By URL: what was asked for there last, but for the body; and of which headers that is.
        self._written: dict[str, tuple[Mapping[str, str], Mapping[str, str], bytes]] = {}

    async def start(self) -> None:
        """Reads whom TLS may trust; connections are made as they are needed."""
        verifying()

    async def close(self) -> None:
        """Closes every connection that is not in use, and the others with their exchange."""
        self.board.close()
        await self._resolver.close()

    def written(self, to: Target, outgoing: Outgoing, forwarding: Mapping[str, str]) -> bytes:
        """The bytes that ask. Of the same headers (the very same, for they are not looked at) all but the body is spelled
        out once. ValueError: a header would not end with its line."""
        if outgoing.body is None:
            return wire.request("GET", to, _headers(outgoing, forwarding))
        known = self._written.get(outgoing.url)
        if known is None or known[0] is not outgoing.headers or known[1] is not forwarding:
            head = wire.opening("POST", to, _headers(outgoing, forwarding))
            known = self._written[outgoing.url] = outgoing.headers, forwarding, head
        return b"%bContent-Length: %d\r\n\r\n%b" % (known[2], len(outgoing.body), outgoing.body)

    def ask(
        self, cluster: str, outgoing: Outgoing, forwarding: Mapping[str, str], address: str | None = None
    ) -> Asking:
        """One exchange, to be entered. UpstreamFault: there is no answer to be read.

        address: where to connect, if not wherever the URL's host is found.
        """
        return Asking(self, cluster, outgoing, forwarding, address)


def _headers(outgoing: Outgoing, forwarding: Mapping[str, str]) -> dict[str, str]:
    """All but those that HTTP itself needs; the dialect's own go over ours, whatever their case."""
    theirs = {name.title(): text for name, text in outgoing.headers.items()}
    return {**_MINE, **theirs, **_LAST, **forwarding}
