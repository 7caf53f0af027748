"""What was purged: by order, and standing until nothing can be left that it is about. Pure.

Keeps rule 7: what stands is bounded. Theory. To purge a voice takes no look at any recording: the purge is remembered, and
whatever is found later is judged by it. A recording carries the serial of the newest purge that its node knew when it was
begun; a purge is about every recording of its scope that was begun without knowing of it. Serials are handed out by a
clock, but compared with one another only: a node whose clock is wrong purges what it should. What stands is the largest of
all that was ever heard, whatever the order or how often: two nodes that told each other everything know the same.
"""

from collections.abc import Iterable, Iterator
from enum import Enum

import msgspec

from edgecache.cache.key import Key
from edgecache.cache.recording import Recording
from edgecache.speech.utterance import word

#: So many purges may stand; a request for more is refused.
MAX_STANDING = 10_000
#: No name of a voice, a tag or the like is longer.
MAX_VALUE = 256
#: Serials are microseconds since the Unix epoch, unless a larger one was known.
MICROSECONDS = 1_000_000


class Scope(Enum):
    """What is purged."""

    ALL = "all"
    NAMESPACE = "namespace"
    VOICE = "voice"
    LANGUAGE = "language"
    CLUSTER = "cluster"
    TAG = "tag"
    KEY = "key"


class Kind(Enum):
    """hard: gone. soft: stale, so asked for anew, and served only if no cluster answers."""

    HARD = "hard"
    SOFT = "soft"


class Purge(msgspec.Struct, frozen=True):
    """One order. value: empty for all."""

    scope: Scope
    value: str
    kind: Kind
    serial: int

    @property
    def name(self) -> str:
        """What it is about, in one word: the same again with a larger serial takes its place."""
        return f"{self.kind.value}:{self.scope.value}:{self.value}"


class Subject(msgspec.Struct, frozen=True):
    """What may have been purged. after: the serial of the newest purge known when it was begun. None: not known yet."""

    key: Key
    namespace: str
    canonical: bytes
    after: int
    cluster: str | None = None
    tags: tuple[str, ...] | None = None


def read(name: str, serial: str) -> Purge | None:
    """The purge of this name; None if that is none."""
    kind, _, rest = name.partition(":")
    scope, _, value = rest.partition(":")
    try:
        purge = Purge(Scope(scope), value, Kind(kind), int(serial) if serial.isdigit() else 0)
    except ValueError:
        return None
    return purge if is_one(purge) else None


def is_one(purge: Purge) -> bool:
    """Whether it can be meant."""
    named = (not purge.value) if purge.scope is Scope.ALL else 0 < len(purge.value) <= MAX_VALUE
    return named and 0 < purge.serial < 1 << 62


class Purges:
    """All that stand. newest: the largest serial ever heard of. changes: another number whenever anything is added."""

    __slots__ = ("_standing", "changes", "floor", "newest")

    def __init__(self, standing: Iterable[Purge] = ()) -> None:
        self._standing: dict[Scope, dict[str, dict[Kind, int]]] = {}
        self.newest = self.changes = 0
        #: Those with a smaller serial stand no more.
        self.floor = 0
        for purge in standing:
            self.add(purge)

    def __len__(self) -> int:
        return sum(len(kinds) for values in self._standing.values() for kinds in values.values())

    def __iter__(self) -> Iterator[Purge]:
        for scope, values in self._standing.items():
            for value, kinds in values.items():
                for kind, serial in kinds.items():
                    yield Purge(scope, value, kind, serial)

    def __repr__(self) -> str:
        return f"<Purges {len(self)} standing, newest {self.newest}>"

    def serial(self, wall_now: float) -> int:
        """One for a purge that is given now: larger than all that are known."""
        return max(int(wall_now * MICROSECONDS), self.newest + 1)

    def add(self, purge: Purge) -> bool:
        """It stands from now on. False: what stood already says as much, so that nothing has changed."""
        self.newest = max(self.newest, purge.serial)
        if purge.serial < self.floor or purge.serial <= self._covered(purge):
            return False
        if purge.scope is Scope.ALL:
            self._drop(purge.serial, {Kind.SOFT, purge.kind})
        kinds = self._standing.setdefault(purge.scope, {}).setdefault(purge.value, {})
        kinds[purge.kind] = purge.serial
        if purge.kind is Kind.HARD and kinds.get(Kind.SOFT, 0) <= purge.serial:
            kinds.pop(Kind.SOFT, None)
        self.changes += 1
        return True

    def _covered(self, purge: Purge) -> int:
        """Up to this serial the same is purged anyhow."""
        kinds = (Kind.HARD,) if purge.kind is Kind.HARD else (Kind.HARD, Kind.SOFT)
        return max(
            self._standing.get(scope, {}).get(value, {}).get(kind, 0)
            for scope, value in ((Scope.ALL, ""), (purge.scope, purge.value))
            for kind in kinds
        )

    def prune(self, before: int) -> None:
        """Forgets those with a smaller serial: all that they are about is past its whole lifetime."""
        self.floor = max(self.floor, before)
        self._drop(before - 1, set(Kind))

    def _drop(self, up_to: int, dropped: set[Kind]) -> None:
        for scope, values in list(self._standing.items()):
            for value, kinds in list(values.items()):
                for kind in dropped:
                    if kinds.get(kind, up_to + 1) <= up_to:
                        del kinds[kind]
                if not kinds:
                    del values[value]
            if not values:
                del self._standing[scope]

    # What they are about.

    def on(self, recording: Recording) -> Kind | None:
        """What became of it; None: nothing, and nearly always that costs one comparison."""
        facts = recording.facts
        if facts.after_purge >= self.newest:
            return None
        return self.about(
            Subject(
                recording.key, recording.namespace, recording.canonical, facts.after_purge, facts.cluster, facts.tags
            )
        )

    def about(self, subject: Subject) -> Kind | None:
        """The same of anything. What is not known of it yet counts as purged if any of that scope is."""
        if subject.after >= self.newest:
            return None
        found: Kind | None = None
        for scope, values in self._standing.items():
            words = _words(scope, subject)
            standing = values.values() if words is None else [values[each] for each in words if each in values]
            for kinds in standing:
                if kinds.get(Kind.HARD, 0) > subject.after:
                    return Kind.HARD
                if kinds.get(Kind.SOFT, 0) > subject.after:
                    found = Kind.SOFT
        return found


def matches(purge: Purge, recording: Recording) -> bool:
    """Whether it is within the scope of this purge, whenever it was begun."""
    subject = Subject(
        recording.key, recording.namespace, recording.canonical, 0, recording.facts.cluster, recording.facts.tags
    )
    words = _words(purge.scope, subject)
    return words is None or purge.value in words


def _words(scope: Scope, subject: Subject) -> tuple[str, ...] | None:
    """What it is by this scope; None: not known yet."""
    match scope:
        case Scope.ALL:
            return ("",)
        case Scope.NAMESPACE:
            return (subject.namespace,)
        case Scope.VOICE:
            return (word(subject.canonical, "voice_id"),)
        case Scope.LANGUAGE:
            return (word(subject.canonical, "language"),)
        case Scope.CLUSTER:
            return None if subject.cluster is None else (subject.cluster,)
        case Scope.TAG:
            return subject.tags
        case Scope.KEY:
            return (subject.key,)
