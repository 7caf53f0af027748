"""What each answer came to, and whether a fault explains it. Pure.

The promise: an answer that says it is whole is the speech that was asked for, to the byte; one that is not whole is known to
its client as such, and what was heard of it is right as far as it goes. Everything else is WRONG or PARTIAL, which nothing
explains. BROKEN, REFUSED and CUT OFF have to be explained by a fault that was there at the time.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Any

from bench.soak.plan import OF_REDIS, Fault, Way, parts
from edgecache.demo import tone


class End(Enum):
    """How an answer ended, as its client saw it."""

    WHOLE = "whole"
    BROKEN = "broken"
    LEFT = "left"
    REFUSED = "refused"
    UNREACHABLE = "cut off"
    HUNG = "hung"
    #: Against the protocol.
    ODD = "odd"


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer. code: of a refusal or an error. cache: hit, miss, joined, as the edge told it, or empty."""

    text: int
    fields: Mapping[str, Any]
    way: Way
    began_s: float
    ended_s: float
    end: End
    body: bytes = b""
    code: str = ""
    cache: str = ""


class Verdict(Enum):
    """What it came to."""

    RIGHT = "right"
    LEFT = "left"
    BROKEN = "broken"
    REFUSED = "refused"
    UNREACHABLE = "cut off"
    WRONG = "WRONG"
    PARTIAL = "PARTIAL"
    HUNG = "HUNG"
    ODD = "ODD"
    #: What was purged before it was asked for.
    OLD = "OLD"


#: What nothing explains.
NEVER = frozenset({Verdict.WRONG, Verdict.PARTIAL, Verdict.HUNG, Verdict.ODD, Verdict.OLD})
#: What asks for an explanation.
TROUBLE = frozenset({Verdict.BROKEN, Verdict.REFUSED, Verdict.UNREACHABLE})
_IN_MID_BODY = frozenset({Fault.STALL, Fault.CUT, Fault.RESET, Fault.DOWN, Fault.FROZEN})
#: Faults of Redis and of other listeners explain nothing: nobody may notice them, but who joined what another worker leads.
#: One cluster's explain no refusal, as there are two more.
EXPLAINED: Mapping[Fault, frozenset[Verdict]] = {
    **{fault: frozenset({Verdict.BROKEN}) for fault in _IN_MID_BODY},
    Fault.ALL_DOWN: frozenset({Verdict.REFUSED, Verdict.BROKEN}),
    # Who is not given a processor for seconds does not answer in time, neither clusters nor the edge.
    Fault.STARVED: frozenset({Verdict.REFUSED, Verdict.BROKEN}),
    Fault.WORKER_KILLED: frozenset({Verdict.BROKEN, Verdict.UNREACHABLE}),
}
#: So long after a fault it may still be felt: clusters are left alone for a while, connections are found dead.
AFTER_S = 4.0

_PLAIN: Mapping[End, Verdict] = {
    End.BROKEN: Verdict.BROKEN,
    End.LEFT: Verdict.LEFT,
    End.REFUSED: Verdict.REFUSED,
    End.UNREACHABLE: Verdict.UNREACHABLE,
    End.HUNG: Verdict.HUNG,
    End.ODD: Verdict.ODD,
}


@lru_cache(maxsize=200)
def _due(spelled: tuple[tuple[str, Any], ...], take: int | None) -> bytes:
    asked = {name: dict(value) if isinstance(value, tuple) else value for name, value in spelled}
    return tone.audio(asked, take=take)


def due(asked: Mapping[str, Any], body: bytes = b"") -> bytes:
    """The speech that belongs to these fields; where takes differ, the one that `body` says it is."""
    if "chunking" in asked:
        return b"".join(due(each) for each in parts(asked))
    take = None
    if asked.get("demo", {}).get("take"):
        take = tone.take_in(body, asked.get("format", "wav")) or 0
    spelled = tuple((name, tuple(value.items()) if isinstance(value, dict) else value) for name, value in asked.items())
    return _due(spelled, take)


def judge(heard: Heard) -> Verdict:
    """What an answer came to."""
    body = heard.body
    if heard.end is End.WHOLE:
        belongs = due(heard.fields, body)
        if body == belongs:
            return Verdict.RIGHT
        return Verdict.PARTIAL if belongs.startswith(body) else Verdict.WRONG
    if body:
        belongs = due(heard.fields, body)
        # Of a take that breaks off before its number nothing can be told but that it is not too long.
        told = not heard.fields.get("demo", {}).get("take") or tone.take_in(body) is not None
        if told and not belongs.startswith(body):
            return Verdict.WRONG
    return _PLAIN[heard.end]


@dataclass(slots=True)
class Happened:
    """A fault that was, in seconds of the run. until_s None: it is still there."""

    fault: Fault
    target: str
    at_s: float
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Purge:
    """Which was asked for and answered with 200 at these times. voice None: of everything."""

    sent_s: float
    done_s: float
    voice: str | None


@dataclass(slots=True)
class Past:
    """What was done to the world so far."""

    happened: list[Happened] = field(default_factory=list)
    purges: list[Purge] = field(default_factory=list)


def explanation(heard: Heard, verdict: Verdict, happened: Iterable[Happened]) -> Fault | None:
    """The latest fault that was felt while the answer lasted and can have done this; None: there is none.

    That the machine stood still is an explanation only where there is no other.
    """
    could = [
        each
        for each in happened
        if (verdict in EXPLAINED.get(each.fault, ()) or (each.fault in OF_REDIS and _through_redis(heard, verdict)))
        and each.at_s <= heard.ended_s
        and (each.until_s is None or heard.began_s <= each.until_s + AFTER_S)
    ]
    return max(could, key=lambda each: (each.fault is not Fault.STARVED, each.at_s)).fault if could else None


def _through_redis(heard: Heard, verdict: Verdict) -> bool:
    """Whether it broke off and may have been heard through Redis: who joins hears what another worker is told."""
    return verdict is Verdict.BROKEN and heard.cache == "joined"


@dataclass(slots=True)
class Ledger:
    """All answers of a run, counted as they come; of those that break a promise some are kept to be shown."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    ways: Counter[Way] = field(default_factory=Counter)
    caches: Counter[str] = field(default_factory=Counter)
    #: By verdict, code and the fault that explains it.
    troubles: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    seconds: dict[int, Counter[str]] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    unexplained: int = 0
    #: Also those that nobody stayed to hear.
    asked: set[int] = field(default_factory=set)
    audio_bytes: int = 0
    #: When each take of a text was first heard to its end.
    takes: dict[tuple[int, int], float] = field(default_factory=dict)

    def enter(self, heard: Heard, past: Past) -> Verdict:
        """One more."""
        verdict = Verdict.OLD if self._old(heard, past.purges) else judge(heard)
        self.verdicts[verdict] += 1
        self.ways[heard.way] += 1
        self.audio_bytes += len(heard.body)
        if heard.cache:
            self.caches[heard.cache] += 1
        fault = explanation(heard, verdict, past.happened) if verdict in TROUBLE else None
        if verdict in TROUBLE:
            self.troubles[verdict.value, heard.code, fault.value if fault else "unexplained"] += 1
        if verdict in NEVER or (verdict in TROUBLE and fault is None):
            self.unexplained += verdict in TROUBLE
            self.show(heard, verdict)
        kind = "trouble" if verdict in TROUBLE or verdict in NEVER else heard.cache or "left"
        self.seconds.setdefault(int(heard.ended_s), Counter())[kind] += 1
        return verdict

    def _old(self, heard: Heard, purges: Iterable[Purge]) -> bool:
        """Whether it is a take that was heard before a purge, and was asked for after it."""
        take = tone.take_in(heard.body) if heard.fields.get("demo", {}).get("take") else None
        if take is None:
            return False
        first_s = self.takes.setdefault((heard.text, take), heard.ended_s)
        voice = heard.fields["voice_id"]
        return any(
            first_s < each.sent_s and each.done_s < heard.began_s and each.voice in (None, voice) for each in purges
        )

    def show(self, heard: Heard, verdict: Verdict) -> None:
        """Keeps what it was, for people."""
        if len(self.shown) < 50:
            self.shown.append(
                f"{verdict.value}: text {heard.text} by {heard.way.value}, {heard.began_s:.2f} to {heard.ended_s:.2f} s, "
                f"{len(heard.body)} of {len(due(heard.fields, heard.body))} bytes {heard.code}".rstrip()
            )

    @property
    def answers(self) -> int:
        return self.verdicts.total()
