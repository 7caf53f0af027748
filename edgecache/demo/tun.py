"""The relay of packets: a process that joins places, each a network namespace, and holds each packet for its time.

Keeps two rules: it ends with its standard input, and everything it made ends with it, however it ends; and what it tells of
itself is what it did: how late packets arrived, and which it dropped. It does not know who sends packets, nor why.

Theory. Each place has a tun device: what its kernel routes there is read here as packets, waits on its `Way`, and is written
to the device of the place that it is for. Both kernels run their own TCP over it, so handshakes, round trips, windows and
what loss does to them are real. As long as no packet fares differently from its neighbours, TCP may hand over up to 64 KiB
at once as one: that is what makes a relay in Python fast enough. Lines of JSON come in, and each is answered by one.
"""

import ctypes
import gc
import json
import os
import select
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from edgecache.demo import namespaces
from edgecache.demo.links import ROOM_BYTES, Link, Transit, Way
from edgecache.demo.namespaces import HEAD_BYTES, Interface

#: For networks under test (RFC 2544): no VPN nor office is there. A world has 24 bits of it, of which the last number is
#: the place's; worlds side by side have different ones.
_NETWORK, _WORLDS = "198.18.", 256
_PACKET_BYTES = HEAD_BYTES + (64 << 10)
#: How many packets are read of one device before others have their turn.
_TURN_PACKETS = 32
#: How late so many packets were is remembered.
_REMEMBERED = 100_000
_PR_SET_TIMERSLACK = 29
#: Who waits for a packet must not wait for the relay.
_PRIORITY = -15
_IPV4, _SOURCE_AT, _DESTINATION_AT = 4, 12, 16
_STDIN = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """here: the place that is this process's own namespace, if one is. links: between two places, by `a b`."""

    places: Sequence[str]
    links: Mapping[str, Mapping[str, Any]]
    here: str | None = None
    mtu: int = 1500
    seed: int = 0
    room_bytes: int = ROOM_BYTES


@dataclass(slots=True)
class Place:
    """One namespace. namespace: its file; None: this process's own."""

    name: str
    address: str
    device: int
    namespace: int | None


@dataclass(slots=True)
class _World:
    """Its number is claimed by a socket's name that nobody else in this namespace can have, and that ends with us."""

    number: int
    claim: socket.socket
    places: list[Place] = field(default_factory=list)

    @property
    def network(self) -> str:
        return f"{_NETWORK}{self.number}."


def _claimed() -> _World:
    """A part of the network that nothing here uses. OSError: all are in use."""
    routed = {line.split()[1] for line in Path("/proc/net/route").read_text().splitlines()[1:]}
    for number in range(_WORLDS):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        little_endian = socket.inet_aton(f"{_NETWORK}{number}.0")[::-1].hex().upper()
        with suppress(OSError):
            claim.bind(f"\0edgecache-world-{number}")
            if little_endian not in routed:
                return _World(number, claim)
        claim.close()
    raise OSError(f"{_WORLDS} worlds are here already")


def build(plan: Plan) -> _World:
    """Everything there is. OSError: not allowed, or not possible here."""
    world = _claimed()
    for number, name in enumerate(plan.places, 1):
        address = f"{world.network}{number}"
        if name == plan.here:
            namespace, device = None, namespaces.tun(Interface(f"edgecache{world.number}", address, plan.mtu))
        else:
            namespace = namespaces.fresh()
            with namespaces.inside(f"/proc/self/fd/{namespace}"):
                device = namespaces.tun(Interface("tun0", address, plan.mtu))
        world.places.append(Place(name, address, device, namespace))
    return world


class Relay:
    """Carries packets until standard input ends."""

    def __init__(self, world: _World, plan: Plan) -> None:
        self._devices = [place.device for place in world.places]
        self._network = socket.inet_aton(f"{world.network}0")[:3]
        self._numbers = {place.name: number for number, place in enumerate(world.places)}
        self._ways = {
            (here, there): Way(Link(cut=True), f"{plan.seed} {here} {there}", plan.room_bytes)
            for here in self._numbers.values()
            for there in self._numbers.values()
            if here != there
        }
        self._transit = Transit(self._ways)
        self._late_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._refused = 0
        self._heard = b""
        self.set(plan.links)

    def __repr__(self) -> str:
        return f"<Relay of {', '.join(self._numbers)}: {self._transit}>"

    def set(self, links: Mapping[str, Mapping[str, Any]]) -> None:
        """From now on. ValueError, KeyError: no such link, no such place."""
        for pair, fields in links.items():
            here, there = (self._numbers[name] for name in pair.split())
            self._ways[here, there].link = self._ways[there, here].link = Link(**fields)
        segments = not any(way.link.chooses for way in self._ways.values())
        for device in self._devices:
            namespaces.offload(device, segments=segments)

    def told(self) -> dict[str, Any]:
        """What became of packets, by `a b` for what went from a to b; and how late those arrived that did."""
        late_s = sorted(self._late_s)
        names = list(self._numbers)
        self._late_s.clear()
        return {
            "ways": {f"{names[a]} {names[b]}": asdict(way.fared) for (a, b), way in self._ways.items()},
            "late_ms": {str(share): _quantile_ms(late_s, share) for share in (0.5, 0.95, 0.99, 1.0)},
            "refused": self._refused,
        }

    def carry(self) -> None:
        """Returns when standard input ends."""
        reading = [_STDIN, *self._devices]
        numbers = {device: number for number, device in enumerate(self._devices)}
        while True:
            self._deliver()
            due_s = self._transit.next_due_s
            wait_s = None if due_s is None else max(0.0, due_s - monotonic())
            for file in select.select(reading, (), (), wait_s)[0]:  # unlike epoll, not rounded to milliseconds
                if file != _STDIN:
                    self._collect(file, numbers[file])
                elif not self._obey():
                    return

    def _deliver(self) -> None:
        now = monotonic()
        for due_s, whither, packet in self._transit.arrived(now):
            try:
                os.write(self._devices[whither], packet)
            except OSError:
                self._refused += 1  # a kernel may refuse what another one made: a packet lost, no reason to end
            self._late_s.append(monotonic() - due_s)

    def _collect(self, device: int, whence: int) -> None:
        for _ in range(_TURN_PACKETS):
            try:
                packet = os.read(device, _PACKET_BYTES)
            except BlockingIOError:
                return
            # IPv6 speaks up by itself on every new device; there is nobody to hear it.
            if packet[HEAD_BYTES] >> 4 == _IPV4:
                to = packet[HEAD_BYTES + _DESTINATION_AT : HEAD_BYTES + _DESTINATION_AT + 4]
                if to[:3] == self._network:
                    self._transit.leaves(whence, to[3] - 1, packet, monotonic())

    def _obey(self) -> bool:
        """Answers what was asked; False: there is no more to come."""
        heard = os.read(_STDIN, 1 << 16)
        *lines, self._heard = (self._heard + heard).split(b"\n")
        for line in lines:
            try:
                asked = json.loads(line)
                self.set(asked.get("links", {}))
                _say({"ok": True, **(self.told() if asked.get("tell") else {})})
            except (ValueError, KeyError, TypeError) as error:
                _say({"error": f"{type(error).__name__}: {error}"})
        return bool(heard)


def _quantile_ms(ordered: Sequence[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 4) if ordered else 0.0


def _say(told: Mapping[str, Any]) -> None:
    with suppress(BrokenPipeError):  # who started us is gone; standard input says so too
        print(json.dumps(told), flush=True)


def _hurry() -> None:
    """Timers as exact as the system has them, and a turn as soon as a packet is due, as far as that is allowed."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with suppress(OSError):
        os.nice(_PRIORITY)
    gc.disable()  # no cycles are made here, and a collection is a millisecond


def main() -> None:
    """The process: a plan comes in as the first line, and what came of it goes out."""
    with open(_STDIN, "rb", buffering=0, closefd=False) as line_by_line:  # what follows is for `select`
        plan = Plan(**json.loads(line_by_line.readline()))
    try:
        world = build(plan)
    except OSError as error:
        _say({"error": f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror or error}"})
        return
    _hurry()
    relay = Relay(world, plan)
    places = {each.name: {"address": each.address, "namespace": each.namespace} for each in world.places}
    _say({"places": places, "pid": os.getpid()})
    relay.carry()


if __name__ == "__main__":
    main()
