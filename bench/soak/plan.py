"""What a soak does, all of it made from one seed: who asks for what and when, how they listen, and which faults come. Pure.

The popular texts are asked for again and again (Zipf), and one request in eight is for a text that nobody asked for before,
so that stores fill and evict all the time. A fault comes every few seconds and lasts for one to four; faults of different
things overlap. It does not know how anything is carried out.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from typing import Any

CLUSTERS = 3
#: The worker that faults never touch, so that what it leaks is seen over the whole run; and the one that is killed.
SPARED, KILLED = 0, 1
#: What is purged by voice; every other text is spoken by it.
PURGED_VOICE = "tone"
#: Popular texts; the numbers from there on are asked for once.
POPULAR = 300
#: From here on numbers are of long texts, which are spoken sentence by sentence; how many there are, and of what sentences.
LONG, LONG_TEXTS, SENTENCES = 1_000_000, 60, 90
_ZIPF = 0.9
_FRESH = 1 / 8
#: No fault comes before this, nor in the last seconds: they must be over when the load is.
QUIET_S, LAST_S = 2.0, 6.0
#: Between the beginnings of two faults.
SPACING_S = (2.0, 5.0)
LASTS_S = (1.0, 4.0)
_WORDS = (
    "edges",
    "hear",
    "a",
    "request",
    "once",
    "and",
    "speak",
    "it",
    "for",
    "ever",
    "while",
    "clusters",
    "come",
    "across",
)


class Fault(Enum):
    """What goes wrong."""

    ERRORS = "cluster answers 500"
    BUSY = "cluster answers 503"
    STALL = "cluster stalls in mid-body"
    CUT = "cluster cuts the body"
    RESET = "cluster resets the connection"
    LIES = "cluster calls JSON audio"
    EMPTY = "cluster sends no audio"
    SLOW = "cluster is slow"
    DOWN = "cluster is killed"
    FROZEN = "cluster is frozen"
    ALL_DOWN = "all clusters are killed"
    REDIS_STOPPED = "Redis is stopped"
    REDIS_KILLED = "Redis is killed"
    REDIS_FLUSHED = "Redis is flushed"
    REDIS_FULL = "Redis is full"
    WORKER_KILLED = "a worker is killed"
    WORKER_STOPPED = "a worker is stopped"
    PURGED_ALL = "everything is purged"
    PURGED_VOICE = "a voice is purged"
    SLOW_READERS = "everyone reads slowly"
    LEAVERS = "everyone leaves early"
    #: Not planned: others keep the machine busy, and the soak itself is late.
    STARVED = "the machine stood still"


OF_REDIS = frozenset({Fault.REDIS_STOPPED, Fault.REDIS_KILLED, Fault.REDIS_FLUSHED, Fault.REDIS_FULL})
OF_LISTENERS = frozenset({Fault.SLOW_READERS, Fault.LEAVERS})
OF_A_WORKER = frozenset({Fault.WORKER_KILLED, Fault.WORKER_STOPPED})
OF_PURGES = frozenset({Fault.PURGED_ALL, Fault.PURGED_VOICE})
OF_A_CLUSTER = frozenset(Fault) - OF_REDIS - OF_LISTENERS - OF_A_WORKER - OF_PURGES - {Fault.ALL_DOWN, Fault.STARVED}
PLANNED = tuple(fault for fault in Fault if fault is not Fault.STARVED)


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: from when to when, in seconds of the run, and of what: `cluster 1`, `Redis`."""

    fault: Fault
    target: str
    at_s: float
    until_s: float


class Way(Enum):
    """How speech is asked for."""

    POST = "raw"
    GET = "GET"
    EVENTS = "SSE"
    MESSAGES = "protobuf"
    SOCKET = "WebSocket"
    SENTENCES = "raw, by sentence"


class Manner(Enum):
    """How it is listened to."""

    PLAIN = "to the end"
    SLOW = "slowly"
    LEAVE = "leaves early"


@dataclass(frozen=True, slots=True)
class Call:
    """One client: a request, or over a WebSocket several texts. luck: for what else it chooses, from 0 to 1."""

    at_s: float
    way: Way
    manner: Manner
    texts: Sequence[int]
    luck: float


_WAYS = {Way.POST: 36, Way.GET: 15, Way.EVENTS: 15, Way.MESSAGES: 5, Way.SOCKET: 25, Way.SENTENCES: 4}
#: Of the texts in a session, so many are long, and come bit by bit.
_TYPED = 0.15
_MANNERS = {Manner.PLAIN: 84, Manner.SLOW: 8, Manner.LEAVE: 8}


def fields(number: int) -> dict[str, Any]:
    """What text number so-and-so asks for. Some are takes, which differ each time a cluster is asked; some have no frame."""
    rng = random.Random(number)
    if number >= LONG:
        said = " ".join(f"Sentence {rng.randrange(SENTENCES)} is one that others have too." for _ in range(3))
        return {"text": said, "voice_id": PURGED_VOICE, "format": "pcm", "chunking": "sentence"}
    words = " ".join(rng.choice(_WORDS) for _ in range(rng.randint(1, 9)))
    asked: dict[str, Any] = {"text": f"{number} {words}", "voice_id": rng.choice(("default", PURGED_VOICE))}
    kind = rng.random()
    if kind < 0.15:
        asked["demo"] = {"take": True}
    elif kind < 0.2:
        asked["demo"] = {"unframed": True}
    elif kind < 0.35:
        asked["format"] = "pcm"
    return asked


def parts(asked: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is asked of clusters for it, and kept: each sentence for itself, if it is spoken sentence by sentence."""
    if "chunking" not in asked:
        return [asked]
    how = {name: value for name, value in asked.items() if name != "chunking"}
    return [{**how, "text": f"{each}."} for each in asked["text"].removesuffix(".").split(". ")]


def calls(seed: int, seconds: float, rate: float) -> Iterator[Call]:
    """Every client, in order of time; they come as chance has it, and wait for nobody."""
    rng = random.Random(f"calls {seed}")
    ranks = list(accumulate(1 / rank**_ZIPF for rank in range(1, POPULAR + 1)))
    fresh = POPULAR
    at_s = rng.expovariate(rate)
    while at_s < seconds:
        way = rng.choices(list(_WAYS), list(_WAYS.values()))[0]
        manner = rng.choices(list(_MANNERS), list(_MANNERS.values()))[0]
        texts: list[int] = []
        for _ in range(rng.randint(1, 3) if way is Way.SOCKET else 1):
            if way is Way.SENTENCES or (way is Way.SOCKET and rng.random() < _TYPED):
                texts.append(LONG + rng.randrange(LONG_TEXTS))
            elif rng.random() < _FRESH:
                texts.append(fresh)
                fresh += 1
            else:
                texts.append(rng.choices(range(POPULAR), cum_weights=ranks)[0])
        if way is Way.GET and any("demo" in fields(number) for number in texts):
            way = Way.POST  # a query has no objects
        yield Call(at_s, way, manner, tuple(texts), rng.random())
        at_s += rng.expovariate(rate)


def faults(seed: int, seconds: float, kinds: Sequence[Fault] = PLANNED) -> list[Planned]:
    """Every fault, in order of time: each kind comes once before one comes again.

    Nothing has two at once, and one cluster stays well unless all are killed.
    """
    rng = random.Random(f"faults {seed}")
    found: list[Planned] = []
    deck: list[Fault] = []
    at_s = QUIET_S
    while at_s < seconds - LAST_S:
        until_s = at_s + rng.uniform(*LASTS_S)
        ill = {each.target for each in found if each.until_s + 1.0 > at_s}
        deck = deck or rng.sample(kinds, len(kinds))
        for fault in deck:
            target = _target(fault, ill, rng)
            if target is not None:
                deck.remove(fault)
                found.append(Planned(fault, target, at_s, until_s))
                break
        at_s += rng.uniform(*SPACING_S)
    return found


def _target(fault: Fault, ill: set[str], rng: random.Random) -> str | None:
    """What a fault may befall; None: it is to be left alone now."""
    well = [f"cluster {number}" for number in range(CLUSTERS) if f"cluster {number}" not in ill]
    if fault in OF_A_CLUSTER:
        return rng.choice(well) if len(well) == CLUSTERS and "all clusters" not in ill else None
    if fault is Fault.ALL_DOWN:
        return "all clusters" if len(well) == CLUSTERS and "all clusters" not in ill else None
    kinds = {"Redis": OF_REDIS, "listeners": OF_LISTENERS, f"worker {KILLED}": OF_A_WORKER, "recordings": OF_PURGES}
    target = next(name for name, of in kinds.items() if fault in of)
    return None if target in ill else target
