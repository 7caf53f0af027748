"""This edge as a whole: the only file that knows all parts. It builds them, starts them in order, and takes them down.

Life: construct (no I/O), `start()`, serve, `drain()`, `close()`. Draining turns readiness off, stops accepting, and lets
streams finish within their time; what does not finish is broken off, and nothing partial is stored (rule 2).
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgecache.cache.purges import Purges
from edgecache.cache.tally import Tally
from edgecache.clock import Clock, SystemClock
from edgecache.clusters.fleet import Fleet
from edgecache.delivery.auth import OPEN, Gate, Keyring, read_keys
from edgecache.delivery.explaining import Explaining
from edgecache.delivery.http import Http, Service
from edgecache.delivery.misslane import miss_lane
from edgecache.delivery.readiness import Readiness
from edgecache.delivery.server import Server
from edgecache.dialects import speeko
from edgecache.errors import SettingsError
from edgecache.fill.edge import Edge
from edgecache.fill.fills import Fills
from edgecache.fill.sharing import Commons
from edgecache.fill.traced import Traced
from edgecache.listening import BACKLOG, Berth, Row, port_of, rows
from edgecache.measures.lag import Lag
from edgecache.ops import log, spans, startup, systemd
from edgecache.ops.admin import Admin
from edgecache.ops.daemon import NOTHING, Alone, Call, Told
from edgecache.ops.gathering import packed
from edgecache.ops.measured import Book
from edgecache.ops.pulse import Pulse, causes
from edgecache.ops.watching import Watching
from edgecache.own_redis import private_redis
from edgecache.portions import fitted
from edgecache.purging import Purging
from edgecache.reception import Parts, service
from edgecache.settings import Settings
from edgecache.store.lease import resolved
from edgecache.store.memory import MemoryTier
from edgecache.store.moving import Moving, Shelves
from edgecache.store.redis import RedisTier
from edgecache.store.tiers import Tiers

if TYPE_CHECKING:
    from edgecache.store.private import PrivateRedis

#: What is left of a stream after the drain time is broken off within this.
CLOSE_S = 0.05
#: Clients had better go elsewhere for a while if the event loop was late by so much.
STOOD_STILL_S = 1.0
DIALECTS = {"speeko": speeko.Speeko()}


class Node:
    """One edge, or one worker of it."""

    def __init__(self, settings: Settings, clock: Clock | None = None, berth: Berth | None = None) -> None:
        startup.check()
        self.settings = fitted(settings, startup.descriptors())
        self._wanted = settings.limits.connections
        self._berth = berth or Berth()
        self._rows: tuple[Row, ...] = ()
        self.clock = clock or SystemClock()
        self.readiness = Readiness(checks={"clusters": self._clusters_ready, "loop": self._loop_ready})
        self.gate = Gate(_keyring(settings))
        self.tally = Tally()
        self.lag = Lag()
        self._tracer = spans.tracer(settings.tracing, settings.node.name)
        self._pulse = Pulse(self.lag, self.clock, self.readiness)
        self._name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._fleet = Fleet(settings.clusters, settings.fleet, DIALECTS, self.clock, on_change=log.cluster_changed)
        self._fleet.on_refused = log.address_refused
        self._memory = MemoryTier(settings.cache.memory)
        self.purges = Purges()
        self._purging = Purging(settings, self.purges, self.clock, self.gate)
        self._private: PrivateRedis | None = None
        self._redis: RedisTier | None = None
        self._server: Server | None = None
        #: By the worker whose sockets they serve: its own, and those of one that died.
        self._listeners: dict[int, list[asyncio.Server]] = {}
        self._admin: Admin | None = None
        self._background: list[asyncio.Task[None]] = []
        self._began_s = self.clock.monotonic() if self._berth.began_s is None else self._berth.began_s
        self.port = self.admin_port = 0
        #: What operators may ask of this worker, by name; `ops.admin` makes one answer of all workers'.
        self.calls: dict[str, Call] = {
            "ready": self._ready,
            "status": self._status,
            "clusters": self._clusters_status,
            "drain": self._drain_asked,
            "drain cluster": self._drain_cluster,
            "accept": self._accept_for,
            "measures": self._measures,
            **self._purging.calls,
        }

    def __repr__(self) -> str:
        return f"<Node {self.settings.node.name} port {self.port}>"

    async def start(self) -> None:
        """Begins to serve. SettingsError: an address is taken or a key file is bad; nothing is left running."""
        try:
            await self._start_parts()
            await self._listen()
        except BaseException:
            await self.close()
            raise
        self.readiness.started = True

    def background(self, work: Coroutine[None, None, None]) -> None:
        """Something that goes on until the node is closed."""
        self._background.append(asyncio.create_task(work, name="background"))

    async def _start_parts(self) -> None:
        self._pulse.start()
        cache, freshness = self.settings.cache, self.settings.cache.freshness
        self._redis = await self._connect_redis()
        self.tiers = Tiers(self._memory, self._redis, freshness, self.clock, self.purges)
        await self.tiers.start()
        await self._fleet.start()
        clusters = self._fleet if self._tracer is None else Traced(self._fleet, self.clock, self._tracer)
        self.fills = Fills(
            self.settings.fills, clusters, self.tiers.keep, self.clock, self.settings.timeouts.first_byte_s
        )
        self.fills.purges = self.purges
        self.edge = Edge(cache.key, freshness, self.tiers, self.fills, self.clock)
        await self._purging.start(self._memory, self.tiers, self.fills, self.edge)
        self._pulse.causes = causes(
            self._redis, self._fleet, lambda: self.fills.pressed(self.lag.last_s), self.readiness
        )
        if self._redis is not None and self._redis.leases is not None:
            self.fills.share(Commons(self._redis.leases, self.edge.fresh, self.tiers.remember, self.fills.purged))
        shelves = Shelves(self.tiers, self._memory, self._redis, cache.key, freshness, self.clock, self.purges)
        self.calls |= Moving(self._name, shelves).calls
        longest = self.settings.limits.text_characters
        self.calls["explain"] = Explaining(self.edge, self.gate, freshness, self.settings.long_text, longest).call

    async def _connect_redis(self) -> RedisTier | None:
        access, naming = self.settings.cache.redis, self.settings.cache.key
        access = resolved(access, several_workers=self._berth.supervised)
        url = access.url if access.url not in (None, "off") else self._berth.redis_url
        if url is None and not self._berth.supervised:
            self._private, url = await private_redis(self.settings)
        self._purging.connect(url)
        return None if url is None else RedisTier(access, naming, self.clock, url=url, on_change=log.redis_changed)

    async def _listen(self) -> None:
        self._rows = self._berth.rows or rows(self.settings, {}, 1)
        reception = self._reception()
        self.sockets = reception.sockets
        self._server = Server(Http(reception).handle, self.settings.limits, reception.lane, miss_lane(reception))
        log.connections_fitted(self.settings.limits.connections, self._wanted)
        self.port = port_of(self._rows[self._berth.slot][0])
        await self._accept(self._berth.slot)
        if not self._berth.supervised:  # last: who is told there that it is ready can ask
            await self._listen_admin()

    async def _accept(self, slot: int) -> None:
        """Takes connections that wait at this worker's sockets."""
        loop = asyncio.get_running_loop()
        assert self._server is not None
        if slot not in self._listeners and not self.readiness.draining:
            self._listeners[slot] = []
            for each in self._rows[slot]:
                self._listeners[slot].append(await loop.create_server(self._server, sock=each.dup(), backlog=BACKLOG))

    def _reception(self) -> Service:
        """How clients are received."""
        return service(
            Parts(
                settings=self.settings,
                edge=self.edge,
                gate=self.gate,
                readiness=self.readiness,
                clock=self.clock,
                tally=self.tally,
                lag=self.lag,
                tracer=self._tracer,
            )
        )

    async def _listen_admin(self) -> None:
        watching = Watching(self.settings.slo, self.clock)
        self._admin = Admin(self.settings.admin, Alone(self.calls), given=self._berth.admin, watching=watching)
        await self._admin.start()
        self.admin_port = self._admin.port

    async def drain(self) -> None:
        """Stops accepting and lets what is under way finish, within the drain time."""
        self.readiness.draining = True
        self._pulse.feel()
        if not self._berth.supervised:
            systemd.notify("STOPPING=1")
        for _ in range(2):  # turns of the event loop: whoever waits in the socket is taken over
            await asyncio.sleep(0)
        self._stop_listening()
        if self._server is None:
            return
        self.sockets.leave()
        open_streams = sum(each.busy for each in self._server.connections)
        log.event(logging.INFO, "draining", streams=open_streams, fills=self.fills.under_way)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_s):
                await self._server.drain()
                await self.fills.drain()

    async def close(self) -> None:
        """Takes everything down at once; drain first to be kind."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._stop_listening()
        self._pulse.stop()
        if hasattr(self, "fills"):
            await self.fills.close()
        if self._server is not None:
            await self._server.close(CLOSE_S)
        if self._admin is not None:
            await self._admin.close()
        await self._fleet.close()
        await self._purging.close()
        if hasattr(self, "tiers"):
            await self.tiers.close()
        if self._private is not None:
            await self._private.close()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)

    def _stop_listening(self) -> None:
        for listeners in self._listeners.values():
            for each in listeners:
                each.close()
        self._listeners.clear()
        for row in self._rows:
            for opened in row:
                opened.close()

    # What operators ask, and the supervisor.

    async def _accept_for(self, asked: Told) -> Told:
        """Serves, or no longer, the sockets of another worker."""
        slot = asked["slot"]
        assert isinstance(slot, int)
        if asked["on"]:
            await self._accept(slot)
        elif slot != self._berth.slot:
            for each in self._listeners.pop(slot, []):
                each.close()
        return {}

    async def _measures(self, _: Told = NOTHING) -> Told:
        """All that this worker counts, under a name that no other process has."""
        answered = self._answered_fast()
        book = Book()
        book.requests(self.tally)
        book.memory(self._memory)
        if self._redis is not None:
            book.redis(self._redis.status())
        book.purges(self._purging.given, len(self.purges))
        book.fills(self.fills)
        book.clusters(self._fleet.status(), self._fleet.connects)
        if self._server is not None:
            book.streams(self.tally.streaming, len(self.sockets))
            book.connections(
                len(self._server.connections), self.settings.limits.connections, self._server.arrivals.parts
            )
        book.node(self.lag.spread, answered, self.edge.counters.mismatches, self.edge.counters.stale_served)
        book.standing(self._pulse.mode, self._pulse.causes_told)
        book.keys(self.gate.fault)
        book.process(len(asyncio.all_tasks()))
        errors = [msgspec.structs.asdict(each) for each in self.tally.errors]
        return {"worker": self._name, "counts": packed(book.counted.figures), "errors": errors}

    def _answered_fast(self) -> int:
        """What the fast lane has answered, all of which is counted now."""
        if self._server is None or self._server.lane is None:
            return 0
        self._server.lane.settle()
        return self._server.lane.answered

    @property
    def quiet(self) -> bool:
        """Whether nothing is being made, and nobody hears a stream."""
        return not (self.fills.under_way or any(self.tally.streaming.values()))

    def reload_keys(self) -> None:
        """Reads the keys file anew: who was taken out of it is refused from the next request on.

        A file with a mistake changes nothing; it is told what is wrong.
        """
        if self.settings.auth is None or self.settings.auth.keys_file is None:
            log.event(logging.WARNING, "no keys file to read anew; restart to read the configuration")
            return
        try:
            self.gate.ring = _keyring(self.settings)
        except SettingsError as error:
            self.gate.fault = str(error)
            log.event(logging.ERROR, "the keys file was not taken over; the keys from before hold", reason=str(error))
            return
        self.gate.fault = ""
        log.event(logging.INFO, "the keys file was read anew", keys=len(self.gate.ring.callers))

    def status(self) -> Mapping[str, object]:
        """Everything in one object, for `/status`."""
        self._answered_fast()
        tiers: dict[str, object] = {
            "memory": {"recordings": len(self._memory), "held_bytes": self._memory.held_bytes},
            "redis": "off" if self._redis is None else self._redis.status(),
        }
        return {
            "node": self.settings.node.name,
            "region": self.settings.node.region,
            "version": version("edgecache"),
            "uptime_s": round(self.clock.monotonic() - self._began_s, 1),
            "draining": self.readiness.draining,
            "keys_fault": self.gate.fault,
            "standing": {"pid": os.getpid(), **self._pulse.told()},
            "tiers": tiers,
            "purges": self._purging.status(),
            "fills": self.fills.status(),
            "record_mismatches": self.edge.counters.mismatches,
            "stale_served": self.edge.counters.stale_served,
            "requests": self.tally.told(),
            "fast_lane": "off" if self._server is None or self._server.lane is None else self._server.lane.status(),
            "sessions": 0 if self._server is None else len(self.sockets),
            "connections": 0 if self._server is None else len(self._server.connections),
        }

    async def _status(self, _: Told = NOTHING) -> Told:
        return self.status()

    async def _clusters_status(self, _: Told = NOTHING) -> Told:
        asking = {**self.fills.asking.status(), **self.fills.admission.status()}
        return {"upstreams": [each.told() for each in self._fleet.status()], "asking": asking}

    async def _drain_cluster(self, asked: Told) -> Told:
        name, drained = str(asked["cluster"]), bool(asked["drained"])
        news = any(each.drained is not drained for each in self._fleet.status() if each.cluster == name)
        known = self._fleet.drain(name, drained=drained)
        if news:
            log.event(logging.WARNING, "a cluster was drained" if drained else "a cluster was resumed", cluster=name)
        return {"known": known}

    def _loop_ready(self) -> str:
        late_s = self.lag.recent_s(self.clock.monotonic())
        return f"the event loop stood still for {late_s:.1f} s" if late_s >= STOOD_STILL_S else ""

    def _clusters_ready(self) -> str:
        if self._fleet.ready or len(self._memory):
            return ""
        return "no cluster answers, and nothing is recorded yet"

    async def _ready(self, _: Told = NOTHING) -> Told:
        return self.readiness.told()

    async def _drain_asked(self, asked: Told) -> Told:
        self.readiness.drained = bool(asked["drained"])
        self._pulse.feel()
        return {"drained": self.readiness.drained}


def _keyring(settings: Settings) -> Keyring:
    if settings.auth is None or settings.auth.keys_file is None:
        return OPEN
    return read_keys(Path(settings.auth.keys_file))
