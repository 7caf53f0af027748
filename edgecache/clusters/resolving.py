"""Names into addresses: asked of the system behind, kept, and kept on when DNS has a bad day.

Keeps: the event loop never waits for DNS, and neither does whoever asks about a name that was once resolved: an answer that
is too old is given at once and asked for anew behind. What DNS last said well is believed until it says something else
(faults.md row 24); a failed, empty or late answer changes nothing, and nor does one that leads where no cluster should be
(`addresses`). It does not know what an address is wanted for.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edgecache.clock import Clock
from edgecache.clusters.addresses import networks, objection

#: Addresses of one name that are believed; no cluster has more, a forged answer may.
MAX_ADDRESSES = 16
#: After a look-up that failed, the next one for a name that is known waits so long.
RETRY_S = 1.0
#: A look-up that takes longer is given up by whoever waits for it, if its own deadline is not sooner.
TIMEOUT_S = 5.0

#: As `loop.getaddrinfo` answers.
Answers = Sequence[tuple[Any, ...]]
LookUp = Callable[[str, int], Awaitable[Answers]]


class Address(NamedTuple):
    """Where to connect. host: an IPv4 or IPv6 address, the latter with its scope where it needs one."""

    host: str
    port: int


class Unresolved(OSError):
    """No address is known for the name."""


class Misled(Unresolved):
    """All that DNS says is refused. Its words are safe for logs."""


@dataclass(slots=True)
class _Name:
    """What is known of one name."""

    addresses: tuple[Address, ...] = ()
    #: Until when they are believed without asking.
    fresh_until_s: float = 0.0
    #: The look-up under way; all who need it wait for the same one.
    asking: asyncio.Task[None] | None = None
    why: str = field(default="", repr=False)
    #: What is refused of DNS's last answer, and why; empty: nothing.
    refused: str = ""


class Resolver:
    """Every name that was asked for. Names come from the configuration, so there are few."""

    def __init__(
        self, ttl_s: float, clock: Clock, look_up: LookUp | None = None, allow_networks: Sequence[str] = ()
    ) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._look_up = look_up or _system
        self._allowed = networks(allow_networks)
        #: Told of (name, what is refused of its addresses) whenever that changes.
        self.on_refused: Callable[[str, str], None] = lambda host, why: None
        self._names: dict[tuple[str, int], _Name] = {}

    def __repr__(self) -> str:
        known = sum(bool(each.addresses) for each in self._names.values())
        return f"<Resolver {known} of {len(self._names)} names known>"

    async def resolve(self, host: str, port: int) -> tuple[Address, ...]:
        """Its addresses, the system's favourite first; never none. Unresolved: there is none, or not in time."""
        if literal(host):
            return (Address(host, port),)
        name = self._names.setdefault((host, port), _Name())
        if name.asking is None and self._clock.monotonic() >= name.fresh_until_s:
            name.asking = asyncio.create_task(self._ask(name, host, port), name=f"resolve {host}")
        if not name.addresses and name.asking is not None:
            await asyncio.wait(
                [name.asking], timeout=TIMEOUT_S
            )  # whoever is cancelled leaves the look-up to the others
        if not name.addresses:
            if name.refused:
                raise Misled(name.refused)
            raise Unresolved(name.why or "no answer in time")
        return name.addresses

    def known(self, host: str, port: int) -> tuple[Address, ...]:
        """What is known without asking; maybe none."""
        if literal(host):
            return (Address(host, port),)
        name = self._names.get((host, port))
        return () if name is None else name.addresses

    async def close(self) -> None:
        """Gives up what is asked."""
        asking = [each.asking for each in self._names.values() if each.asking is not None]
        for each in asking:
            each.cancel()
        if asking:
            await asyncio.wait(asking)

    async def _ask(self, name: _Name, host: str, port: int) -> None:
        try:
            addresses = self._believed(name, host, _told(await self._look_up(host, port)))
        except (OSError, UnicodeError) as error:  # UnicodeError: no name that DNS could know
            addresses, name.why = (), type(error).__name__
        finally:
            name.asking = None
        now = self._clock.monotonic()
        if addresses:
            name.addresses, name.fresh_until_s, name.why = addresses, now + self._ttl_s, ""
        else:
            name.why = name.why or "no address"
            name.fresh_until_s = now + RETRY_S if name.addresses else now

    def _believed(self, name: _Name, host: str, told: tuple[Address, ...]) -> tuple[Address, ...]:
        """Those of the addresses where a cluster may be."""
        objections = {each: objection(host, each.host, self._allowed) for each in told}
        refused = ", ".join(f"{each.host} ({why})" for each, why in objections.items() if why)
        why = f"its name leads to {refused}: not in pool.allow_networks" if refused else ""
        if why != name.refused:
            name.refused = why
            if why:
                self.on_refused(host, why)
        return tuple(each for each, why in objections.items() if not why)


def literal(host: str) -> bool:
    """Whether this is an address itself."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _system(host: str, port: int) -> Answers:
    """The system's resolver, in a thread; only families that this machine has addresses of."""
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)


def _told(answers: Answers) -> tuple[Address, ...]:
    """The addresses in an answer, each once, in its order."""
    found: dict[Address, None] = {}
    for family, _, _, _, where in answers:
        if family == socket.AF_INET:
            found[Address(where[0], where[1])] = None
        elif family == socket.AF_INET6:
            scoped = f"{where[0]}%{where[3]}" if where[3] and "%" not in where[0] else where[0]
            found[Address(scoped, where[1])] = None
    return tuple(found)[:MAX_ADDRESSES]
