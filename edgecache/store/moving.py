"""Recordings handed out of this worker's tiers, taken in, and told of, page by page, for operators.

Keeps rules 1 and 2 on the way in: a recording is taken only if its frame is whole, its utterance canonical, its audio whole
as what it says it is, and the audio that its facts are about; its key is made anew, so that whoever may ask for it finds it
here. And rule 7: a page has a largest size, and what is asked for page by page is remembered for a few only. It does not
know who asks.
"""

import asyncio
import math
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from edgecache.cache.key import Key, Naming, is_key
from edgecache.cache.lookup import Asked, Freshness, Miss, judge
from edgecache.cache.purges import MICROSECONDS, Purges
from edgecache.cache.recording import BrokenRecord, Recording, etag, frame, tellable, unframe
from edgecache.cache.shipment import MAX_PART_BYTES
from edgecache.clock import Clock
from edgecache.errors import ClientError
from edgecache.speech.formats import Expected, NotAudio, inspector
from edgecache.speech.utterance import Utterance, decode, utterance
from edgecache.store.breaker import BreakerState
from edgecache.store.memory import MemoryTier
from edgecache.store.redis import RedisTier
from edgecache.store.scanning import scan
from edgecache.store.tiers import Tiers

#: Recordings in one page: about so many bytes, and so many looked at.
PAGE_BYTES, PAGE_KEYS = 1 << 20, 500
#: Exports under way, of which each holds a list of keys; the oldest is given up.
EXPORTS = 4
#: What is imported is written to Redis before more is taken, but not waited for any longer.
FLUSH_S = 0.5
#: Listened to in one turn of the loop; of MP3, the slowest, that takes about 4 ms.
SLICE_BYTES = 32 << 10
#: Clocks of two regions may differ by so much.
CLOCKS_S = 60.0

#: What may become of a recording that is brought.
OUTCOMES = ("imported", "newer_here", "purged", "other_revision", "too_old", "refused")
Told = Mapping[str, object]
_T = TypeVar("_T")
_LENGTH = struct.Struct(">H")


class Unfit(Exception):
    """This is no recording that may be taken in; the message says why."""


@dataclass(frozen=True, slots=True)
class Only:
    """Which recordings are meant: all that have what is given here."""

    namespace: str | None = None
    voice: str | None = None
    language: str | None = None

    @classmethod
    def of(cls, asked: Told) -> "Only":
        """As it is sent between processes."""
        return cls(*(_text(asked.get(name)) for name in ("namespace", "voice", "language")))

    def means(self, found: Recording) -> bool:
        """Whether this is one."""
        if self.namespace not in (None, found.namespace):
            return False
        if self.voice is None and self.language is None:
            return True
        fields = decode(found.canonical)
        return self.voice in (None, fields.get("voice_id")) and self.language in (None, fields.get("language"))


class OtherRevision(Exception):
    """Its voice is another one here, under the same name."""


def packed(revision: str, framed: bytes) -> bytes:
    """A recording as it travels. revision: of its voice, which its frame does not know; it lies under a key that does."""
    spelled = revision.encode()
    return _LENGTH.pack(len(spelled)) + spelled + framed


def unpacked(value: bytes) -> tuple[str, bytes]:
    """The same again. Unfit: it is none."""
    try:
        end = _LENGTH.size + _LENGTH.unpack_from(value)[0]
        return value[_LENGTH.size : end].decode(), value[end:]
    except (struct.error, UnicodeDecodeError) as error:
        raise Unfit("it does not say of which revision its voice is") from error


async def checked(value: bytes, naming: Naming, wall_now: float) -> Recording:
    """The recording in this frame, under the key that it has here. Unfit: it is not to be taken in."""
    try:
        found = unframe(Key(""), value)
    except BrokenRecord as error:
        raise Unfit(str(error)) from error
    spoken = _utterance(found.canonical)
    facts = found.facts
    if etag(found.audio) != facts.etag or not (
        tellable(facts) and math.isfinite(facts.made_in_ms + facts.first_audio_ms)
    ):
        raise Unfit("its facts are not about its audio")
    if facts.made_at > wall_now + CLOCKS_S:
        raise Unfit("it was made in the future; compare the clocks")
    await _listen(found, spoken)
    return msgspec.structs.replace(found, key=naming.key(found.namespace, found.canonical))


async def _listen(found: Recording, spoken: Utterance) -> None:
    """Unfit: it is not whole, or no audio. A slice at a time: whoever is served meanwhile does not wait for all of it."""
    expected = Expected(spoken.format, spoken.sample_rate_hz, len(spoken.text), spoken.speaking_rate)
    try:
        listening = inspector(found.facts.media_type, expected)
        for at in range(0, len(found.audio), SLICE_BYTES):
            listening.feed(found.audio[at : at + SLICE_BYTES])
            await asyncio.sleep(0)
        measured = listening.finish()
    except NotAudio as error:
        raise Unfit(f"its audio is none: {error.reason}") from error
    if not measured.complete:
        raise Unfit(f"its audio is not whole: {measured.why}")


def _utterance(canonical: bytes) -> Utterance:
    try:
        fields = decode(canonical)
        spoken = utterance(fields)
    except (ValueError, RecursionError, struct.error, ClientError) as error:
        raise Unfit("its utterance can't be read") from error
    if not isinstance(fields.get("text"), str) or spoken.canonical != canonical:
        raise Unfit("its utterance is not spelled as ours are")
    return spoken


class _Few(OrderedDict[str, _T]):
    """What is remembered for exports under way."""

    def keep(self, name: str, kept: _T) -> _T:
        """The oldest makes room."""
        self[name] = kept
        while len(self) > EXPORTS:
            self.popitem(last=False)
        return kept


@dataclass(frozen=True, slots=True)
class Shelves:
    """Where recordings are, and how they are judged."""

    tiers: Tiers
    memory: MemoryTier
    redis: RedisTier | None
    naming: Naming
    freshness: Freshness
    clock: Clock
    purges: Purges


class Moving:
    """Of one worker. name: no other process has it."""

    def __init__(self, name: str, shelves: Shelves) -> None:
        self._name = name
        self._shelves = shelves
        self._left: _Few[list[Key]] = _Few()
        #: Where the scan goes on, or that it is over, and keys of its last page.
        self._scans: _Few[tuple[str | None, list[Key]]] = _Few()
        #: What operators may ask.
        self.calls: dict[str, Callable[[Told], Awaitable[Told]]] = {
            "export": self._export,
            "export redis": self._export_redis,
            "import": self._import,
            "inspect": self._inspect,
        }

    def __repr__(self) -> str:
        return f"<Moving {self._name}, {len(self._left) + len(self._scans)} exports>"

    # Out.

    async def _export(self, asked: Told) -> Told:
        """The next page of what memory has. lost: this worker knows nothing of the pages before."""
        export, first = str(asked["export"]), bool(asked["first"])
        if first:
            self._left.keep(export, self._shelves.memory.keys())
        left = self._left.get(export)
        if left is None:
            return {"worker": self._name, "records": [], "more": False, "lost": True}
        wall_now = self._shelves.clock.wall()

        async def look(key: Key) -> Recording | None:
            return self._shelves.memory.look(key, wall_now)

        records, left_out = await self._page(left, Only.of(asked), look)
        if not left:
            del self._left[export]
        naming = self._shelves.naming.fingerprint
        told = {"worker": self._name, "naming": naming, "records": records, "left_out": left_out}
        return {**told, "more": bool(left), "lost": False}

    async def _export_redis(self, asked: Told) -> Told:
        """The next page of what Redis has."""
        export, first = str(asked["export"]), bool(asked["first"])
        tiers, redis = self._shelves.tiers, self._shelves.redis
        if redis is None:
            return {"records": [], "more": False, "lost": False, "fault": "this edge has no Redis"}
        begun = ("0", list[Key]()) if first else self._scans.pop(export, None)
        if begun is None:
            return {"records": [], "more": False, "lost": True}
        cursor, left = begun
        if not left and cursor is not None:
            cursor, found, fault = await scan(redis.address, self._shelves.naming, cursor)
            if fault:
                return {"records": [], "more": False, "lost": True, "fault": fault}
            left = [Key(each) for each in found if is_key(each)]
        records, left_out = await self._page(left, Only.of(asked), tiers.find, missing=True)
        more = bool(left) or cursor is not None
        if more:
            self._scans.keep(export, (cursor, left))
        return {"records": records, "left_out": left_out, "more": more, "lost": False}

    async def _page(
        self,
        left: list[Key],
        only: Only,
        look: Callable[[Key], Awaitable[Recording | None]],
        *,
        missing: bool = False,
    ) -> tuple[list[tuple[str, bytes]], int]:
        """Recordings with their keys, and how many had to be left out. missing: also those that were not there any more."""
        records: list[tuple[str, bytes]] = []
        held_bytes = left_out = 0
        for _ in range(min(len(left), PAGE_KEYS)):
            if held_bytes > PAGE_BYTES:
                break
            found = await look(left[-1])
            if found is None:
                left_out += missing
            elif only.means(found) and not isinstance(self._verdict(found), Miss) and self._is_ours(found):
                framed = packed(self._shelves.naming.revision(found.canonical), frame(found))
                if len(framed) > MAX_PART_BYTES:
                    left_out += 1
                elif held_bytes + len(framed) > MAX_PART_BYTES:
                    break
                else:
                    held_bytes += len(framed)
                    records.append((found.key, framed))
            left.pop()
        return records, left_out

    def _is_ours(self, found: Recording) -> bool:
        """Whether it would be found: one from before its voice was made anew, or of another secret, lies there in vain."""
        return self._shelves.naming.key(found.namespace, found.canonical) == found.key

    # In.

    async def _import(self, asked: Told) -> Told:
        """Takes these in. shared: other workers find them too. why: of the first that was refused."""
        redis, records = self._shelves.redis, asked["records"]
        assert isinstance(records, list)
        counts = dict.fromkeys(OUTCOMES, 0)
        why = ""
        for each in records:
            try:
                counts[await self._take(each)] += 1
            except OtherRevision:
                counts["other_revision"] += 1
            except Unfit as error:
                counts["refused"] += 1
                why = why or str(error)
            await asyncio.sleep(0)
        shared = redis is not None and redis.state is BreakerState.CLOSED
        if redis is not None and shared:
            await redis.flush(FLUSH_S)
        return {**counts, "why": why, "shared": shared, "naming": self._shelves.naming.fingerprint}

    async def _take(self, value: bytes) -> str:
        shelves = self._shelves
        revision, framed = unpacked(value)
        brought = self._as_begun_here(await checked(framed, shelves.naming, shelves.clock.wall()))
        if shelves.naming.revision(brought.canonical) != revision:
            raise OtherRevision
        if shelves.purges.on(brought) is not None:
            return "purged"
        if isinstance(self._verdict(brought), Miss):
            return "too_old"
        held = shelves.tiers.look(brought.key) or await shelves.tiers.find(brought.key)
        if held is not None and not isinstance(self._verdict(held), Miss) and _newness(held) >= _newness(brought):
            return "newer_here"
        shelves.tiers.keep(brought)
        return "imported"

    def _as_begun_here(self, brought: Recording) -> Recording:
        """Serials of purges are times: what was begun after one, clocks considered, is not what it was about."""
        facts, newest = brought.facts, self._shelves.purges.newest
        begun_s = facts.made_at - facts.made_in_ms / 1000 - CLOCKS_S
        after = min(newest, max(facts.after_purge, int(begun_s * MICROSECONDS)))
        return msgspec.structs.replace(brought, facts=msgspec.structs.replace(facts, after_purge=after))

    # Told.

    async def _inspect(self, asked: Told) -> Told:
        """What each tier has under this key."""
        key, text = Key(str(asked["key"])), bool(asked["text"])
        tiers = self._shelves.tiers
        found = {"memory": tiers.look(key), "redis": await tiers.find(key)}
        return {tier: None if each is None else self._told(each, text=text) for tier, each in found.items()}

    def _verdict(self, found: Recording) -> Any:
        shelves = self._shelves
        return judge(_as_asked(found), found, shelves.freshness, shelves.clock.wall(), shelves.purges)

    def _told(self, found: Recording, *, text: bool) -> Told:
        facts, freshness, verdict = found.facts, self._shelves.freshness, self._verdict(found)
        fields: dict[str, Any] = decode(found.canonical)
        said = str(fields.get("text", ""))
        if not text:
            fields.pop("text", None)
        age_s = self._shelves.clock.wall() - facts.made_at
        return {
            "namespace": found.namespace,
            "utterance": fields,
            "characters": len(said),
            "verdict": type(verdict).__name__.lower(),
            "ttl_s": round(freshness.ttl_s - age_s, 1),
            "gone_in_s": round(freshness.lifetime_s - age_s, 1),
            "bytes": len(found.audio),
            "words_timed": len(facts.timings.words),
            **{name: each for name, each in msgspec.structs.asdict(facts).items() if name != "timings"},
        }


def _as_asked(found: Recording) -> Asked:
    return Asked(found.key, found.namespace, found.canonical)


def _newness(found: Recording) -> tuple[int, float]:
    return found.facts.after_purge, found.facts.made_at


def _text(given: object) -> str | None:
    return given if isinstance(given, str) else None
