"""Lines to all upstreams, handed out and given back: warm ones first, new ones where there are none.

Keeps rule 7: so many at once, in all and to each; who waits for room is served in turn. (Fills never do: whoever chooses
for them knows these bounds, and they wait in an order of their own.) TLS verifies certificates and names,
always. It does not know what is asked, nor why.
"""

import asyncio
import errno
import functools
import ssl
from collections import deque

from edgecache.clusters.cluster import Pool
from edgecache.clusters.connections import Line, LineFault, named
from edgecache.clusters.fault import Fault
from edgecache.clusters.patience import Patience
from edgecache.clusters.resolving import Address, Misled, Resolver, Unresolved
from edgecache.clusters.wire import Peer

#: What is wrong here, and says nothing about whom we wanted to reach.
OUR_OWN_LACK = frozenset({errno.EMFILE, errno.ENFILE})
#: Who does not let us connect refuses; who ends it later than that had let us.
ENDS_A_HANDSHAKE = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)


class Switchboard:
    """Lines to all upstreams, so many at once, in all and to each."""

    def __init__(self, pool: Pool, resolver: Resolver, tls: ssl.SSLContext | None = None) -> None:
        self._pool = pool
        self._resolver = resolver
        self._tls = tls
        #: The warm ones, the last used last.
        self._warm: dict[Peer, list[Line]] = {}
        self._taken: dict[Peer, int] = {}
        self._in_all = 0
        self._closed = False
        self._queue: deque[tuple[Peer, asyncio.Future[None]]] = deque()
        #: Where a peer with several addresses was last reached.
        self._reached: dict[Peer, Address] = {}

    def __repr__(self) -> str:
        warm = sum(len(each) for each in self._warm.values())
        return f"<Switchboard {self._in_all} lines in use, {warm} warm, {len(self._queue)} wait>"

    async def take(self, peer: Peer, by: float, connect_s: float, *, fresh: bool = False) -> Line:
        """A line to ask on, to be given back. fresh: a new one. LineFault: there is none by then, or it can't be made."""
        if self._room(peer):
            self._count(peer, 1)
        else:
            await self._wait(peer, by)
        try:
            line = None if fresh else self._idle(peer)
            return line if line is not None else await self._connect(peer, by, connect_s)
        except BaseException:
            self._leave(peer)
            raise

    def warm(self, peer: Peer) -> Line | None:
        """A line that can be asked on now, to be given back; None: it has to be waited for."""
        line = self._idle(peer) if self._room(peer) else None
        if line is not None:
            self._count(peer, 1)
        return line

    def give_back(self, line: Line) -> None:
        """The exchange is over, however it ended."""
        if self._closed:
            line.drop()
        elif line.rest(self._pool.keep_alive_s):
            self._warm.setdefault(line.peer, []).append(line)
        self._leave(line.peer)

    def close(self) -> None:
        """Closes the warm ones; those that are out are closed when they come back."""
        self._closed = True
        warm, self._warm = self._warm, {}
        for line in [each for lines in warm.values() for each in lines]:
            line.drop()

    def _forget(self, line: Line) -> None:
        """It has ended."""
        lines = self._warm.get(line.peer, [])
        if line in lines:
            lines.remove(line)
            if not lines:
                del self._warm[line.peer]

    def _idle(self, peer: Peer) -> Line | None:
        """A warm line that nothing was heard of since."""
        lines = self._warm.get(peer, [])
        while lines:
            line = lines.pop()
            if line.fit:
                return line
            line.drop()
        return None

    # Room.

    def _room(self, peer: Peer) -> bool:
        return self._in_all < self._pool.max_connections and self._taken.get(peer, 0) < self._pool.max_per_host

    def _count(self, peer: Peer, by: int) -> None:
        self._in_all += by
        self._taken[peer] = self._taken.get(peer, 0) + by

    async def _wait(self, peer: Peer, by: float) -> None:
        """Until somebody else's room is given on."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (peer, turn)
        self._queue.append(waiting)
        try:
            async with asyncio.timeout_at(by):
                await turn
        except BaseException as error:
            if waiting in self._queue:
                self._queue.remove(waiting)
            elif turn.done() and not turn.cancelled():
                self._leave(peer)
            if isinstance(error, TimeoutError):
                raise LineFault(Fault.BUSY, "no connection to it was free in time") from error
            raise

    def _leave(self, peer: Peer) -> None:
        """Room for somebody else, the first who waits for that room."""
        self._count(peer, -1)
        if not self._taken[peer]:
            del self._taken[peer]
        for waiting in self._queue:
            theirs, turn = waiting
            if self._room(theirs) and not turn.done():
                self._queue.remove(waiting)
                self._count(theirs, 1)
                turn.set_result(None)
                return

    # Connecting.

    async def _connect(self, peer: Peer, by: float, connect_s: float) -> Line:
        """A new line: name, TCP and TLS within the connect time-out."""
        began_at = asyncio.get_running_loop().time()
        by = min(began_at + connect_s, by)
        try:
            async with Patience(by - began_at):
                if peer.address is not None:
                    addresses: tuple[Address, ...] = (Address(peer.address, peer.port),)
                else:
                    addresses = await self._resolver.resolve(peer.host, peer.port)
                line = await self._dial(peer, addresses, by)
                line.made_in_s = asyncio.get_running_loop().time() - began_at
                return line
        except TimeoutError as error:
            raise LineFault(Fault.CONNECT, "can't connect in time") from error
        except ssl.SSLError as error:
            raise LineFault(Fault.UNTRUSTED, "TLS handshake or certificate refused") from error
        except Misled as error:
            raise LineFault(Fault.MISLED, str(error)) from error
        except Unresolved as error:
            raise LineFault(Fault.CONNECT, "its name can't be resolved") from error
        except OSError as error:
            if peer.scheme == "https" and isinstance(error, ENDS_A_HANDSHAKE):
                raise LineFault(Fault.UNTRUSTED, "the TLS handshake broke off") from error
            if error.errno in OUR_OWN_LACK:
                raise LineFault(Fault.BUSY, "this edge has no descriptor left") from error
            raise LineFault(Fault.CONNECT, f"can't connect ({named(error)})") from error

    async def _dial(self, peer: Peer, addresses: tuple[Address, ...], by: float) -> Line:
        """Tries one address after the other, each for its share of the time; first the one that worked last."""
        loop = asyncio.get_running_loop()
        tls = None if peer.scheme == "http" else self._tls or verifying()
        last: OSError = Unresolved("no address")
        reached = self._reached.get(peer)
        addresses = tuple(sorted(addresses, key=lambda each: each != reached))
        for number, address in enumerate(addresses):
            now = loop.time()
            try:
                async with Patience((by - now) / (len(addresses) - number)):
                    _, line = await loop.create_connection(
                        lambda: Line(peer, self._forget),
                        *address,
                        ssl=tls,
                        server_hostname=None if tls is None else peer.host,
                    )
            except OSError as error:
                last = error
                continue
            if len(addresses) > 1:
                self._reached[peer] = address
            return line
        raise last


@functools.cache
def verifying() -> ssl.SSLContext:
    """Certificates are verified, and that they are the host's. Whom to trust is read once in a process."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # also where OpenSSL's configuration would allow less
    context.set_alpn_protocols(["http/1.1"])
    return context
