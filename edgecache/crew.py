"""The workers of one daemon as their supervisor sees them: starting, asking, replacing and burying them.

Keeps two promises. What is counted never goes back: what a worker told last is kept when it dies. And no connection is lost
that waits at a dead worker's sockets: another takes them until its successor serves. It does not know what is asked.
"""

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

import edgecache
from edgecache.errors import SettingsError
from edgecache.listening import Row
from edgecache.ops import log
from edgecache.ops.channel import Channel, ChannelBroken
from edgecache.ops.daemon import NOTHING, STANDING, NoWorker, Told
from edgecache.ops.restarts import Restarts
from edgecache.ops.whole import KEPT
from edgecache.portions import portion
from edgecache.serving import unwatched
from edgecache.settings import Settings

#: From the start of a process until it serves; a machine under load gets some more.
START_S = 30.0
#: Between two looks at every worker.
PULSE_S = 1.0
#: Looks in a row without an answer, after which a worker is killed. They count time in which we ran too, so that a machine
#: that was suspended is not taken for a worker that hangs.
HUNG_LOOKS = 15
ANSWER_S = 2.0
#: These are asked of workers that take connections; everything else of all.
OF_THE_SERVING = frozenset({"ready", "explain"})


class State(Enum):
    """How far a worker is."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    GONE = "gone"


class Event(Enum):
    """What happens to it."""

    SERVES = "serves"
    STOP = "stop"
    END = "end"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.STARTING, Event.SERVES): State.SERVING,
    (State.STARTING, Event.STOP): State.DRAINING,
    (State.STARTING, Event.END): State.GONE,
    (State.SERVING, Event.STOP): State.DRAINING,
    (State.SERVING, Event.END): State.GONE,
    (State.DRAINING, Event.SERVES): State.DRAINING,
    (State.DRAINING, Event.STOP): State.DRAINING,
    (State.DRAINING, Event.END): State.GONE,
}


@dataclass(frozen=True, slots=True)
class Launch:
    """What every worker is started with. settings: the daemon's. began_s: when the daemon began."""

    settings: Settings
    workers: int
    rows: tuple[Row, ...]
    redis_url: str | None
    began_s: float


class Worker:
    """One process."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.state = State.STARTING
        self.began_s = time.monotonic()
        self.pid = 0
        #: Why it would not serve, in its own words.
        self.refusal = ""
        #: What it told last, by call.
        self.told: dict[str, Told] = {}
        self.missed = 0
        #: Set when it serves, or will never.
        self.begun = asyncio.Event()
        self._channel = Channel(_nothing_to_answer, self._hear)
        self._process: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"<Worker {self.slot} pid {self.pid} {self.state.value}>"

    async def start(self, launch: Launch) -> None:
        """Starts the process and tells it what to do."""
        ours, theirs = socket.socketpair()
        descriptors = [[each.fileno() for each in row] for row in launch.rows]
        command = (sys.executable, "-P", "-m", "edgecache.worker", str(theirs.fileno()))
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=sorted({theirs.fileno(), *(each for row in descriptors for each in row)}),
                env=_environment(),
                start_new_session=True,  # a Ctrl-C is for the supervisor
            )
        self.pid = self._process.pid
        await self._channel.open(ours)
        settings = msgspec.to_builtins(portion(launch.settings, launch.workers))
        order = {"settings": settings, "slot": self.slot, "sockets": descriptors}
        self._channel.tell("serve", {**order, "redis_url": launch.redis_url, "began_s": launch.began_s})

    def move(self, event: Event) -> None:
        """Something happened to it."""
        self.state = TRANSITIONS[self.state, event]
        if event is not Event.STOP:
            self.begun.set()

    async def ask(self, call: str, argument: Told) -> Told | None:
        """What it tells; None: nothing in time."""
        try:
            told = await self._channel.call(call, argument, ANSWER_S)
        except ChannelBroken:
            return None
        if call in KEPT:
            self.told[call] = told
        return told

    def signal(self, number: signal.Signals) -> None:
        """Sends it, if there is still somebody."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def ended(self) -> int:
        """How it ended."""
        assert self._process is not None
        code = await self._process.wait()
        # What it said last is in the socket still.
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await self._channel.ended.wait()
        await self._channel.close()
        return code

    def _hear(self, word: str, told: Told) -> None:
        match word:
            case "started":
                self.move(Event.SERVES)
            case "refused":
                self.refusal = str(told["message"])
            case "last":
                self.told |= {name: each for name, each in told.items() if isinstance(each, dict)}


async def _nothing_to_answer(call: str, _: Told) -> Told:
    raise NoWorker(f"a supervisor answers no calls, such as {call!r}")


def _environment() -> dict[str, str]:
    """Ours, and where this very package is: another on the path of the working directory is none of ours."""
    where = str(Path(edgecache.__file__).parent.parent)
    inherited = unwatched()
    return {**inherited, "PYTHONPATH": ":".join(filter(None, (where, inherited.get("PYTHONPATH", ""))))}


class Crew:
    """All workers: each has a slot, and a slot has one worker, or for a while two."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._slots: list[Worker | None] = [None] * launch.workers
        self._all: set[Worker] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._restarts = [Restarts() for _ in range(launch.workers)]
        self._tasks: set[asyncio.Task[None]] = set()
        #: What the dead have counted, by call.
        self._departed: dict[str, Told] = {}
        #: What operators ordered that holds for workers to come.
        self._orders: dict[tuple[str, object], Told] = {}
        self._replacing = False
        self._standing_in = asyncio.Lock()
        self.stopping = False

    def __repr__(self) -> str:
        return f"<Crew {self._slots!r}>"

    # Life.

    async def start(self) -> None:
        """Starts a worker for each slot. SettingsError: one can't serve."""
        first = [self._begin(slot) for slot in range(self._launch.workers)]
        for worker in await asyncio.gather(*first):
            if worker.state is not State.SERVING:
                raise SettingsError(worker.refusal or "a worker did not start; what it said is above")
            self._slots[worker.slot] = worker
        self._background(self._feel_pulses(), "feel the workers' pulses")

    def signal(self, number: signal.Signals) -> None:
        """To every worker. SIGTERM: it drains, and is not started again."""
        for worker in self._all:
            if number is signal.SIGTERM:
                self._retire(worker)
            else:
                worker.signal(number)

    async def drain(self) -> None:
        """Every worker finishes what is under way, within its time."""
        self.stopping = True
        self.signal(signal.SIGTERM)
        await self._empty.wait()

    async def close(self, within_s: float = 3.0) -> None:
        """Ends all at once."""
        self.stopping = True
        self.signal(signal.SIGTERM)  # a second one: whoever drains breaks off
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        for worker in self._all:
            worker.signal(signal.SIGKILL)
        await self._empty.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _begin(self, slot: int) -> Worker:
        """A process that serves, or has ended."""
        worker = Worker(slot)
        self._all.add(worker)
        self._empty.clear()
        await worker.start(self._launch)
        self._background(self._watch(worker), f"watch worker {slot}")
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await worker.begun.wait()
        if not worker.begun.is_set():
            worker.refusal = f"a worker did not serve within {START_S:g} s"
            worker.signal(signal.SIGKILL)
        for (call, _), argument in list(self._orders.items()):
            await worker.ask(call, argument)
        return worker

    async def _watch(self, worker: Worker) -> None:
        code = await worker.ended()
        self._bury(worker)
        drained = worker.state is State.DRAINING
        worker.move(Event.END)
        self._all.discard(worker)
        if not self._all:
            self._empty.set()
        if self._slots[worker.slot] is not worker:
            return  # it had a successor, or never served
        self._slots[worker.slot] = None
        if not self.stopping:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            if not drained:
                log.event(logging.ERROR, "a worker died", worker=worker.slot, pid=worker.pid, how=how)
            await self._succeed(worker)

    def _bury(self, worker: Worker) -> None:
        """What it has counted stays counted."""
        for call, told in worker.told.items():
            earlier = [self._departed[call]] if call in self._departed else []
            self._departed[call] = KEPT[call]([*earlier, told])

    async def _succeed(self, dead: Worker) -> None:
        """Another worker in its place; until then a neighbour takes what waits at its sockets."""
        await self._stand_in(dead.slot, on=True)
        began_s = dead.began_s
        while not self.stopping:
            await asyncio.sleep(self._restarts[dead.slot].died(time.monotonic() - began_s))
            began_s = time.monotonic()
            worker = await self._begin(dead.slot)
            if worker.state is State.SERVING:
                if self._slots[dead.slot] is not None:  # it was replaced meanwhile
                    return self._retire(worker)
                self._slots[dead.slot] = worker
                log.event(logging.WARNING, "a worker took its place", worker=worker.slot, pid=worker.pid)
                return await self._stand_in(dead.slot, on=False)
            log.event(logging.ERROR, "a worker did not start", worker=dead.slot, reason=worker.refusal)
        return None

    def _retire(self, worker: Worker) -> None:
        worker.move(Event.STOP)
        worker.signal(signal.SIGTERM)

    async def _stand_in(self, slot: int, *, on: bool) -> None:
        """Others serve a slot's sockets while nobody does. In order: each word is heard before the next is said."""
        async with self._standing_in:
            if on == (self._slots[slot] is None):  # else it has changed again meanwhile
                others = [each for each in self._slots if each is not None and each.slot != slot]
                await asyncio.gather(*(each.ask("accept", {"slot": slot, "on": on}) for each in others))

    async def _feel_pulses(self) -> None:
        """Knows what each has counted, and ends who hangs."""
        while True:
            await asyncio.sleep(PULSE_S)
            for worker in list(self._all):
                if worker.state is State.SERVING:
                    self._background(self._feel(worker), "feel a pulse")

    async def _feel(self, worker: Worker) -> None:
        answers = [await worker.ask(call, NOTHING) for call in KEPT]
        worker.missed = 0 if None not in answers else worker.missed + 1
        if worker.missed == HUNG_LOOKS:
            log.event(logging.ERROR, "a worker hangs and is killed", worker=worker.slot, pid=worker.pid)
            worker.signal(signal.SIGKILL)

    def _background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What operators ask.

    async def ask(self, call: str, argument: Told = NOTHING) -> list[Told]:
        """What each worker told, and what the dead have counted. NoWorker: none answered."""
        if call == "ready" and self.stopping:
            return [{"draining": "this edge is stopping"}]
        asked = self._answering(call)
        answers = await asyncio.gather(*(worker.ask(call, argument) for worker in asked))
        # Of one that does not answer now, what it told before: counts do not go back.
        told = [told or worker.told.get(call) for worker, told in zip(asked, answers, strict=True)]
        found = [each for each in told if each is not None]
        if not found:
            raise NoWorker("No worker answers; one is being started.")
        if call in STANDING and any(each.get("known", True) for each in found):
            self._orders[call, argument.get(STANDING[call])] = argument
        return [*found, self._departed[call]] if call in self._departed else found

    async def ask_one(self, call: str, argument: Told = NOTHING) -> Told:
        """What the first told that answers. NoWorker: none did."""
        for worker in self._answering(call):
            told = await worker.ask(call, argument)
            if told is not None:
                return told
        raise NoWorker("No worker answers; one is being started.")

    def _answering(self, call: str) -> list[Worker]:
        states = (State.SERVING,) if call in OF_THE_SERVING else (State.SERVING, State.DRAINING)
        return sorted((each for each in self._all if each.state in states), key=lambda each: each.slot)

    def workers(self) -> list[Told]:
        """Every process: its slot, how far it is, for how long, and how often its slot had to be filled again."""
        now_s = time.monotonic()
        return [
            {
                "worker": each.slot,
                "pid": each.pid,
                "state": each.state.value,
                "uptime_s": round(now_s - each.began_s, 1),
                "restarts": self._restarts[each.slot].count,
            }
            for each in sorted(self._all, key=lambda each: (each.slot, each.began_s))
        ]

    def replace(self) -> str:
        """Begins to replace all workers, one by one. Why not, if not."""
        if self.stopping or self._replacing:
            return "this edge is stopping" if self.stopping else "workers are being replaced already"
        self._replacing = True
        self._background(self._replace(), "replace all workers")
        return ""

    async def _replace(self) -> None:
        """A new worker serves before the old one stops taking connections."""
        try:
            for slot in range(self._launch.workers):
                if self.stopping:
                    return
                worker = await self._begin(slot)
                if worker.state is not State.SERVING:
                    log.event(logging.ERROR, "a new worker did not start; the old ones stay", reason=worker.refusal)
                    return
                old, self._slots[slot] = self._slots[slot], worker
                if old is not None:
                    self._retire(old)
            log.event(logging.INFO, "all workers were replaced", workers=self._launch.workers)
        finally:
            self._replacing = False
