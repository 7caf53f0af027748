"""One soak: load and faults at once, then quiet, then everything that was kept is read back."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from bench.soak.aftermath import Kept, read_back
from bench.soak.clients import Clients
from bench.soak.faults import Faults
from bench.soak.plan import PLANNED, SPARED, Call, Fault, calls, faults
from bench.soak.slopes import Line
from bench.soak.verdicts import NEVER, Happened, Heard, Ledger, Verdict
from bench.soak.watching import Look, Reading, Watch
from bench.soak.world import Failed, World, until, world

#: So many at once; who comes while there are more is turned away by the soak itself, and counted.
MOST_AT_ONCE = 400
#: When the soak's own loop is so late, the machine stood still; who should have come so long ago does not.
BEAT_S, STILL_S, LATE_S = 0.1, 0.3, 1.0
#: The first part of the run fills the stores; lines begin behind it.
WARM_SHARE = 1 / 3
#: What may be there more after the load than before it, in quiet: pooled connections, and what Python keeps of memory.
MORE_TASKS, MORE_DESCRIPTORS, MORE_MIB = 20, 80, 160
#: From so long a run on lines say something; what the spared worker may grow by in an hour.
LONG_S = 600.0
MIB_PER_HOUR, EACH_PER_HOUR = 60.0, 30.0
_QUIET_TIMEOUT_S = 40.0
_SAY_S = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    seconds: float
    rate: float
    seed: int
    look_s: float = 1.0
    kinds: Sequence[Fault] = PLANNED


@dataclass(slots=True)
class Result:
    """What it came to."""

    plan: Plan
    ledger: Ledger
    happened: list[Happened]
    looks: list[Look]
    lines: dict[str, Line]
    before: Reading
    after: Reading
    kept: Kept
    #: Errors that the daemon logged, by message; those with a traceback are called so.
    logged: Counter[str] = field(default_factory=Counter)
    turned_away: int = 0

    @property
    def promises(self) -> dict[str, str]:
        """Each promise, and how it was broken, or empty."""
        verdicts = self.ledger.verdicts
        never = {verdict: verdicts[verdict] for verdict in NEVER}
        kept = self.kept
        return {
            "no wrong byte": _many(never[Verdict.WRONG], "answers with wrong bytes"),
            "no partial answer that says it is whole": _many(never[Verdict.PARTIAL], "answers"),
            "no partial or wrong recording": _many(len(kept.wrong), "recordings") if kept.wrong else "",
            "nobody hangs": _many(never[Verdict.HUNG], "answers"),
            "no answer against the protocol": _many(never[Verdict.ODD], "answers"),
            "nothing that was purged": _many(never[Verdict.OLD], "answers"),
            "every error has its fault": _many(self.ledger.unexplained, "errors without one"),
            "no traceback in the log": _many(
                sum(many for message, many in self.logged.items() if "traceback" in message), "of them"
            ),
            "nothing is left in quiet": "; ".join(self._left()),
            "nothing grows": "; ".join(self._grown()),
        }

    def _left(self) -> list[str]:
        """What is there still, when all who asked have left."""
        bounds = {
            f"worker {SPARED} descriptors": MORE_DESCRIPTORS,
            "tasks": MORE_TASKS,
            f"worker {SPARED} MiB": MORE_MIB,
        }
        more = {name: self.after.get(name, 0) - self.before.get(name, 0) for name in bounds}
        found = [f"{more[name]:.0f} more {name}" for name, bound in bounds.items() if more[name] > bound]
        none = ("fills in flight", "bytes held", "mismatches")
        return [*found, *(f"{self.after[name]:.0f} {name}" for name in none if self.after.get(name))]

    def _grown(self) -> list[str]:
        if self.plan.seconds < LONG_S:
            return []
        bounds = {f"worker {SPARED} MiB": MIB_PER_HOUR, "supervisor MiB": MIB_PER_HOUR, "tasks": EACH_PER_HOUR}
        bounds |= {"connections": EACH_PER_HOUR, f"worker {SPARED} descriptors": EACH_PER_HOUR}
        grown = ((name, self.lines[name].per_hour, bound) for name, bound in bounds.items() if name in self.lines)
        return [f"{name} by {per_hour:.1f} an hour" for name, per_hour, bound in grown if per_hour > bound]


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count else ""


async def soak(plan: Plan, say: Callable[[str], None]) -> Result:
    """The whole run. Failed: the world broke down by itself."""
    async with world() as here:
        say("the world is up")
        return await _Run(plan, here, say).result()


class _Run:
    def __init__(self, plan: Plan, here: World, say: Callable[[str], None]) -> None:
        self._plan, self._world, self._say = plan, here, say
        self._ledger = Ledger()
        self._under_way: set[asyncio.Task[None]] = set()
        self._failed: list[asyncio.Task[None]] = []
        self._turned_away = 0

    async def result(self) -> Result:
        plan = self._plan
        watch = Watch(self._world, lambda: 0.0)
        before = await watch.look()
        async with Clients(self._world.url, self._enter) as clients:
            watch.now = lambda: clients.now
            self._faults = Faults(self._world, lambda: clients.now)
            watching = asyncio.create_task(watch.run(plan.look_s), name="watch")
            telling = asyncio.create_task(self._tell(clients), name="tell")
            beating = asyncio.create_task(self._beat(clients), name="beat")
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._faults.run(faults(plan.seed, plan.seconds, plan.kinds)))
                    group.create_task(self._load(clients))
                await asyncio.gather(*self._under_way, *self._failed)
            except* Failed as errors:
                raise Failed("; ".join(str(each) for each in _flat(errors))) from errors
            finally:
                for task in (watching, telling, beating):
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
        self._say("the load is over; waiting for quiet")
        after = await self._quiet(watch)
        kept = await read_back(self._world, self._ledger.asked, self._say)
        if self._world.daemon.pid is None:
            raise Failed(f"the daemon ended; it said:\n{self._world.daemon.said.read_text()[-3000:]}")
        return Result(
            plan,
            self._ledger,
            self._faults.past.happened,
            watch.looks,
            watch.lines(plan.seconds * WARM_SHARE),
            before,
            after,
            kept,
            logged(self._world.daemon.said.read_text()),
            self._turned_away,
        )

    async def _load(self, clients: Clients) -> None:
        """Everyone comes at his time, whatever became of those before him."""
        for call in calls(self._plan.seed, self._plan.seconds, self._plan.rate):
            await asyncio.sleep(max(0.0, call.at_s - clients.now))
            late = clients.now - call.at_s > LATE_S  # they would come in a crowd that nobody planned
            if late or len(self._under_way) >= MOST_AT_ONCE:
                self._turned_away += 1
                continue
            self._begin(clients, call)

    def _begin(self, clients: Clients, call: Call) -> None:
        self._ledger.asked.update(call.texts)
        task = asyncio.create_task(clients.make(call, self._faults.manner or call.manner))
        self._under_way.add(task)
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        """A client that failed in a way that nobody foresaw fails the soak."""
        self._under_way.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failed.append(task)

    async def _quiet(self, watch: Watch) -> Reading:
        """What there is when nothing is asked any more."""
        last: Reading = {}

        async def quiet() -> bool:
            nonlocal last
            last = await watch.look()
            busy = ("fills in flight", "bytes for Redis", "bytes held")
            return "tasks" in last and not any(last.get(name) for name in busy) and last["connections"] == 0

        with suppress(Failed):  # what is left is told
            await until(quiet, "quiet", _QUIET_TIMEOUT_S)
        return last

    async def _beat(self, clients: Clients) -> None:
        """Notices when the machine stands still."""
        while True:
            asleep_s = clients.now
            await asyncio.sleep(BEAT_S)
            if clients.now - asleep_s - BEAT_S > STILL_S:
                still = Happened(Fault.STARVED, "machine", asleep_s, clients.now)
                self._faults.past.happened.append(still)

    async def _tell(self, clients: Clients) -> None:
        while True:
            await asyncio.sleep(_SAY_S)
            self._say(f"{clients.now:.0f} of {self._plan.seconds:.0f} s: {told(self._ledger)}")

    def _enter(self, heard: Heard) -> None:
        verdict = self._ledger.enter(heard, self._faults.past)
        if verdict in NEVER:
            self._say(self._ledger.shown[-1])


def _flat(errors: BaseExceptionGroup[Failed]) -> Iterator[Failed]:
    for each in errors.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _flat(each)
        else:
            yield each


def told(ledger: Ledger) -> str:
    """Where it is."""
    caches = ", ".join(f"{many} {name}" for name, many in sorted(ledger.caches.items()))
    verdicts = ", ".join(f"{many} {verdict.value}" for verdict, many in ledger.verdicts.most_common())
    return f"{ledger.answers} answers ({caches}): {verdicts}"


def logged(text: str) -> Counter[str]:
    """What the daemon logged as an error, by message, and every traceback."""
    found: Counter[str] = Counter()
    for row in text.splitlines():
        try:
            line = json.loads(row)
        except ValueError:
            found["traceback outside of the log"] += row.startswith("Traceback")
            continue
        if isinstance(line, dict) and line.get("exception"):
            found[f"traceback: {line.get('msg')}: {str(line['exception']).strip().splitlines()[-1]}"] += 1
        elif isinstance(line, dict) and line.get("level") in ("error", "critical"):
            found[str(line.get("msg"))] += 1
    return +found
