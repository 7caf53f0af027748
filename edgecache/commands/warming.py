"""`edgecache warm`: asks an edge for many utterances, so that it has them when someone does. Nobody waits for them.

Keeps two rules. Every request says that it can wait (`Priority: u=7`), and an edge that asks for patience gets it. What is
counted as done was heard to its end and is kept there; anything else failed, and is told with its reason.
"""

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

import aiohttp

from edgecache.commands.asking import Target
from edgecache.commands.terminal import Refused, Unreachable
from edgecache.commands.warm_set import Wanted
from edgecache.commands.warm_state import Failure, State

#: Also while a cluster makes it: long text is heard as it is made, and room is waited for.
SILENCE_S = 120.0
CONNECT_S = 5.0
#: Askings of one utterance, in all.
TRIES = 5
#: The same of an edge that says when to come again: it is asked for the last in line, so that it may be long in coming.
BUSY_TRIES = 20
#: Longer than this is not waited at once, whatever an edge says.
LONGEST_WAIT_S = 300.0
#: It may do better another time.
_PASSING = frozenset({429, 500, 502, 503, 504})
#: The edge has too much to do: it is asked for nothing else meanwhile.
_BUSY = frozenset({429, 503})
#: Nobody who asks so will be given anything.
_FOR_ALL = frozenset({401, 403})


class Done(Enum):
    """How an utterance came to be there. MISSING: it is not, and was not to be made."""

    HIT = "hits"
    MADE = "made"
    JOINED = "joined"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Plan:
    """Whom to ask, and how hard. per_s: None: as fast as it goes. dry: only looks; nothing is made."""

    url: str
    api_key: str | None = None
    per_s: float | None = None
    at_once: int = 4
    dry: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """Of every request."""
        told = {"Content-Type": "application/json", "Accept": "audio/*", "Priority": "u=7"}
        told |= Target(self.url, self.api_key).credentials()
        return told | ({"Cache-Control": "only-if-cached"} if self.dry else {})


@dataclass(slots=True)
class Pace:
    """When the next request may leave. Pure: `now` is handed in."""

    per_s: float | None
    _next_s: float = 0.0

    def wait_s(self, now: float) -> float:
        """How long to wait; 0: it is your turn, and you have taken it."""
        if now < self._next_s:
            return self._next_s - now
        self._next_s = now + (1 / self.per_s if self.per_s else 0.0)
        return 0.0

    def hold(self, until_s: float) -> None:
        """Nothing leaves before this."""
        self._next_s = max(self._next_s, until_s)


def patience_s(status: int, retry_after: str, tried: int) -> float | None:
    """How long to wait before asking again; None: it is of no use. status: 0 if no whole answer came."""
    most = BUSY_TRIES if status in _BUSY and retry_after else TRIES
    if tried >= most or (status and status not in _PASSING):
        return None
    if retry_after.isdigit():
        return float(retry_after) if float(retry_after) <= LONGEST_WAIT_S else None
    return float(2 ** (tried - 1))


@dataclass(slots=True)
class Tally:
    """What came of it so far. before: how many an earlier run had done."""

    whole: int
    before: int = 0
    counts: dict[Done, int] = field(default_factory=lambda: dict.fromkeys(Done, 0))
    characters: dict[Done, int] = field(default_factory=lambda: dict.fromkeys(Done, 0))
    received_bytes: int = 0
    retries: int = 0
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False

    @property
    def finished(self) -> int:
        """Utterances that nothing more is done about."""
        return self.before + sum(self.counts.values()) + len(self.failures)


class Warming:
    """One run. hear: is told after each utterance; a failure, if it was one."""

    def __init__(self, plan: Plan, state: State, tally: Tally, hear: Callable[[Failure | None], None]) -> None:
        self._plan = plan
        self._state = state
        self._tally = tally
        self._hear = hear
        self._pace = Pace(plan.per_s)
        self._reached = False

    async def run(self, wanted: list[Wanted]) -> None:
        """All of it, or until Ctrl-C. Unreachable: nobody is there. Refused: nobody will be given anything."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        left = iter(wanted)
        stopping = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        asking = [asyncio.create_task(self._over_one(left, timeout), name="warm") for _ in range(self._plan.at_once)]
        interrupted = asyncio.create_task(stopping.wait(), name="interrupted")
        try:
            await self._until_done(asking, interrupted)
        finally:
            self._tally.interrupted = stopping.is_set()
            for task in (*asking, interrupted):
                task.cancel()
            await asyncio.gather(*asking, interrupted, return_exceptions=True)

    async def _over_one(self, left: Iterator[Wanted], timeout: aiohttp.ClientTimeout) -> None:
        """Asks over one connection: without Redis the worker at its other end has what it said, and no other does."""
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=False) as session:
            await self._go_on(session, left)

    async def _until_done(self, asking: list[asyncio.Task[None]], interrupted: asyncio.Task[bool]) -> None:
        waiting: set[asyncio.Task[None] | asyncio.Task[bool]] = {*asking, interrupted}
        while len(waiting) > 1:
            ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
            if interrupted in ended:
                return

    async def _go_on(self, session: aiohttp.ClientSession, left: Iterator[Wanted]) -> None:
        for wanted in left:
            outcome = await self._had(session, wanted)
            if isinstance(outcome, Failure):
                self._tally.failures.append(outcome)
                self._hear(outcome)
                continue
            self._tally.counts[outcome] += 1
            self._tally.characters[outcome] += wanted.characters
            if outcome is not Done.MISSING:
                self._state.add(wanted.mark)
            self._hear(None)

    async def _had(self, session: aiohttp.ClientSession, wanted: Wanted) -> Done | Failure:
        tried = 0
        while True:
            await self._turn()
            tried += 1
            outcome, retry_after = await self._ask(session, wanted)
            if isinstance(outcome, Done):
                self._reached = True
                return outcome
            if outcome.status in _FOR_ALL:
                raise Refused(outcome.why)
            if outcome.code == "unreachable" and not self._reached:
                raise Unreachable(outcome.why)
            self._reached = self._reached or outcome.status > 0
            wait_s = patience_s(outcome.status, retry_after, tried)
            if wait_s is None and outcome.code == "unreachable":
                raise Unreachable(f"{outcome.why}; the same command goes on where this one stopped")
            if wait_s is None:
                return outcome
            self._tally.retries += 1
            if outcome.status in _BUSY:
                self._pace.hold(asyncio.get_running_loop().time() + wait_s)
            else:
                await asyncio.sleep(wait_s)

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        while wait_s := self._pace.wait_s(loop.time()):  # noqa: ASYNC110 - a time, which no event tells
            await asyncio.sleep(wait_s)

    async def _ask(self, session: aiohttp.ClientSession, wanted: Wanted) -> tuple[Done | Failure, str]:
        """What came of one asking, and its `Retry-After`."""
        try:
            url = f"{self._plan.url}/v1/tts"
            async with session.post(url, data=wanted.body, headers=self._plan.headers) as answer:
                outcome = await self._heard(answer, wanted)
            if outcome in (Done.MADE, Done.JOINED) and not await self._kept(session, answer):
                outcome = Failure(wanted, 200, "not_whole", _NOT_KEPT["not_whole"])
            return outcome, answer.headers.get("Retry-After", "")
        except aiohttp.ClientConnectorError as error:
            why = f"no edge answers at {self._plan.url}: {_unreached(error)}"
            return Failure(wanted, 0, "unreachable", why), ""
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            why = f"the answer broke off, or none came ({type(error).__name__})"
            return Failure(wanted, 0, "broken_off", why), ""

    async def _heard(self, answer: aiohttp.ClientResponse, wanted: Wanted) -> Done | Failure:
        if answer.status != 200:
            code, message = _problem(await answer.read())
            if self._plan.dry and code == "not_cached":
                return Done.MISSING
            return Failure(wanted, answer.status, code, f"{answer.status} {code}: {message}")
        while chunk := await answer.content.readany():
            self._tally.received_bytes += len(chunk)
        kept = done(answer.headers.get("Cache-Status", ""))
        return kept if isinstance(kept, Done) else Failure(wanted, 200, kept, _NOT_KEPT[kept])

    async def _kept(self, session: aiohttp.ClientSession, made: aiohttp.ClientResponse) -> bool:
        """Whether it is there now: that it would be was said before its last byte. Of long text nobody says where."""
        where = made.headers.get("Content-Location")
        if where is None:
            return True
        async with session.head(f"{self._plan.url}{where}", headers=self._plan.headers) as looked:
            return looked.status != 404


_NOT_KEPT = {
    "not_whole": "it was spoken, and what came does not prove to be whole; the edge does not keep it",
    "not_kept": "it was spoken, but the edge does not keep it",
    "stale": "no cluster speaks; the edge only has a recording that is too old",
    "no_cache": "what answers is no edge: it says nothing of a cache; see --url",
}


def done(cache_status: str) -> Done | str:
    """How it came to be kept, as `Cache-Status` (RFC 9211) says it, or why it is not; the last of several is the nearest."""
    if not cache_status:
        return "no_cache"
    told = {each.strip() for each in cache_status.rpartition(", ")[2].split(";")}
    if "hit" in told:
        return Done.HIT
    if "detail=stale-if-error" in told:
        return "stale"
    if "stored" not in told:
        return "not_kept"
    return Done.JOINED if "collapsed" in told else Done.MADE


def _unreached(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientSSLError):
        return "it does not speak TLS, or its certificate is not trusted"
    return error.strerror or "its name is not known, or it did not answer in time"


def _problem(body: bytes) -> tuple[str, str]:
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        told = json.loads(body)["error"]
        return str(told["code"]), "".join(each if each.isprintable() else " " for each in str(told["message"]))
    return "error", "no more was said"
