"""What the processes of a soak hold, looked at again and again: memory, descriptors, tasks, connections."""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bench.soak.slopes import Line, line
from bench.soak.world import World

#: What is read off a scrape, and what it is called here. Each adds up all its labels.
SCRAPED: Mapping[str, str] = {
    "edgecache_asyncio_tasks": "tasks",
    "edgecache_http_connections": "connections",
    "edgecache_fills_in_flight": "fills in flight",
    "edgecache_fill_held_bytes": "bytes held",
    "edgecache_redis_pending_bytes": "bytes for Redis",
    "edgecache_cache_mismatches_total": "mismatches",
}
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Reading = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Look:
    """Everything at one moment of the run, by name: `worker 0 MiB`, `worker 0 descriptors`, `tasks`."""

    at_s: float
    values: Reading


@dataclass(slots=True)
class Watch:
    """All looks of a run."""

    world: World
    now: Callable[[], float]
    looks: list[Look] = field(default_factory=list)

    async def run(self, every_s: float) -> None:
        """Looks until it is cancelled."""
        while True:
            self.looks.append(Look(self.now(), await self.look()))
            await asyncio.sleep(every_s)

    async def look(self) -> Reading:
        """Once. What can't be seen just now, as a process is being started, is left out."""
        values: dict[str, float] = {}
        with suppress(aiohttp.ClientError, TimeoutError):
            await self.world.see_workers()
            values |= scraped(await self.world.metrics())
        for name, pid in self.world.processes().items():
            with suppress(OSError, IndexError):
                values |= held(name, pid)
        return values

    def series(self, name: str, from_s: float = 0.0) -> list[tuple[float, float]]:
        """One of them over time."""
        return [(each.at_s, each.values[name]) for each in self.looks if name in each.values and each.at_s >= from_s]

    def lines(self, from_s: float) -> dict[str, Line]:
        """How each goes on from that moment on."""
        names = sorted({name for each in self.looks for name in each.values})
        found = {name: line(self.series(name, from_s)) for name in names}
        return {name: each for name, each in found.items() if each is not None}


def held(name: str, pid: int) -> Reading:
    """Memory and descriptors of a process; nothing of one that was killed a moment ago. OSError: it is gone."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    if not pages:
        return {}
    return {f"{name} MiB": pages * _PAGE_BYTES / (1 << 20), f"{name} descriptors": len(os.listdir(f"/proc/{pid}/fd"))}


def scraped(text: str) -> dict[str, float]:
    """The figures of a scrape that are looked at."""
    found: dict[str, float] = {}
    for each in text.splitlines():
        name = SCRAPED.get(each.partition("{")[0].partition(" ")[0])
        if name is not None:
            found[name] = found.get(name, 0.0) + float(each.rpartition(" ")[2])
    return found
