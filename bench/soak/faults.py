"""Faults, carried out: each is begun and ended by a table, and told with the times at which it really was.

It does not know what they do to anyone.
"""

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress

import redis

from bench.soak.plan import KILLED, PURGED_VOICE, Fault, Manner, Planned
from bench.soak.verdicts import Happened, Past, Purge
from bench.soak.world import REDIS_BYTES, Cluster, World, until

#: What a cluster's knobs are turned to.
KNOBS: Mapping[Fault, Mapping[str, object]] = {
    Fault.ERRORS: {"error_rate": 0.8},
    Fault.BUSY: {"status": 503, "retry_after_s": 1},
    Fault.STALL: {"stall_after_bytes": 20_000},
    Fault.CUT: {"cut_after_bytes": 15_000},
    Fault.RESET: {"cut_after_bytes": 9_000, "reset": True},
    Fault.LIES: {"lie": True},
    Fault.EMPTY: {"empty": True},
    Fault.SLOW: {"rtf": 0.9, "first_byte_ms": 300.0},
}
#: How everyone listens while that lasts.
MANNERS: Mapping[Fault, Manner] = {Fault.SLOW_READERS: Manner.SLOW, Fault.LEAVERS: Manner.LEAVE}
_TINY_BYTES = 1 << 20

Step = Callable[[], Awaitable[None]]


class Faults:
    """Those of one run. `past` grows."""

    def __init__(self, world: World, now: Callable[[], float]) -> None:
        self._world = world
        self._now = now
        self.past = Past()
        self.manner: Manner | None = None
        #: A fault may last longer than planned; the next one of the same thing waits for it.
        self._ill: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self, planned: Sequence[Planned]) -> None:
        """All of them, each at its time."""
        async with asyncio.TaskGroup() as group:
            for each in planned:
                group.create_task(self._carry_out(each))

    async def _carry_out(self, planned: Planned) -> None:
        await asyncio.sleep(max(0.0, planned.at_s - self._now()))
        async with AsyncExitStack() as ill:
            for each in self._befallen(planned):
                await ill.enter_async_context(self._ill[each])
            happened = Happened(planned.fault, planned.target, self._now())
            self.past.happened.append(happened)
            begin, end = self._steps(planned)
            await begin()
            await asyncio.sleep(max(0.0, happened.at_s + planned.until_s - planned.at_s - self._now()))
            await end()
            happened.until_s = self._now()

    def _befallen(self, planned: Planned) -> list[str]:
        """The things that have it, always in the same order."""
        if planned.fault is Fault.ALL_DOWN:
            return [each.part.name for each in self._world.clusters]
        return [planned.target]

    def _steps(self, planned: Planned) -> tuple[Step, Step]:
        world, fault = self._world, planned.fault
        if fault in KNOBS:
            cluster = self._cluster(planned)
            return _call(cluster.turn, **KNOBS[fault]), _call(cluster.turn)
        if fault in MANNERS:
            return self._listening(MANNERS[fault]), self._listening(None)
        redis_part = world.redis.part
        match fault:
            case Fault.DOWN:
                cluster = self._cluster(planned)
                return _ended(cluster), cluster.start
            case Fault.FROZEN:
                part = self._cluster(planned).part
                return _call(part.send, signal.SIGSTOP), _call(part.send, signal.SIGCONT)
            case Fault.ALL_DOWN:
                return _all(_ended(each) for each in world.clusters), _all(each.start for each in world.clusters)
            case Fault.REDIS_STOPPED:
                return _call(redis_part.send, signal.SIGSTOP), _call(redis_part.send, signal.SIGCONT)
            case Fault.REDIS_KILLED:
                return _died(redis_part.end), world.redis.start
            case Fault.REDIS_FLUSHED:
                return self._flush, _nothing
            case Fault.REDIS_FULL:
                full = _call(world.redis.set_limit, _TINY_BYTES, "noeviction")
                return full, _call(world.redis.set_limit, REDIS_BYTES, "allkeys-lfu")
            case Fault.PURGED_ALL:
                return self._purge(None), _nothing
            case Fault.PURGED_VOICE:
                return self._purge(PURGED_VOICE), _nothing
            case Fault.WORKER_STOPPED:
                return self._signal_worker(signal.SIGSTOP), self._signal_worker(signal.SIGCONT)
            case Fault.WORKER_KILLED:
                return self._kill_worker, self._worker_is_back
        raise AssertionError(fault)

    def _cluster(self, planned: Planned) -> Cluster:
        return self._world.clusters[int(planned.target.split()[1])]

    def _listening(self, manner: Manner | None) -> Step:
        async def change() -> None:
            self.manner = manner

        return change

    async def _flush(self) -> None:
        with self._world.redis.client() as client, suppress(redis.RedisError):
            client.flushall()

    def _purge(self, voice: str | None) -> Step:
        async def purge() -> None:
            sent_s = self._now()
            if await self._world.purge({"all": True} if voice is None else {"voice": voice}):
                self.past.purges.append(Purge(sent_s, self._now(), voice))

        return purge

    def _signal_worker(self, number: signal.Signals) -> Step:
        async def send() -> None:
            if number is not signal.SIGCONT:
                await self._world.see_workers()
            if KILLED in self._world.workers:
                os.kill(self._world.workers[KILLED], number)

        return send

    async def _kill_worker(self) -> None:
        await self._signal_worker(signal.SIGKILL)()

    async def _worker_is_back(self) -> None:
        await until(self._world.all_serve, "a killed worker is back")


def _call(function: Callable[..., object], *arguments: object, **named: object) -> Step:
    async def step() -> None:
        function(*arguments, **named)

    return step


def _died(end: Callable[[], Awaitable[object]]) -> Step:
    async def step() -> None:
        await end()

    return step


def _ended(cluster: Cluster) -> Step:
    return _died(cluster.part.end)


def _all(steps: Iterable[Step]) -> Step:
    each = list(steps)

    async def step() -> None:
        await asyncio.gather(*(one() for one in each))

    return step


async def _nothing() -> None:
    return
