"""The memory tier: its budget in bytes, what it lets go first, and when."""

import gc
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bench.hit_ratio import Trace, measure
from edgecache.cache.key import Key
from edgecache.cache.recording import OVERHEAD_BYTES, Facts, Recording
from edgecache.store.memory import FEWEST_GHOSTS, MemoryTier
from edgecache.store.tiers import MemoryLimits

FACTS = Facts("audio/wav", "wav", 1000, 24_000, 1, 0.0, 10.0, 5.0, "syd", "")
FOREVER = float("inf")
KIB = 1024


def spoken(name: str, audio_bytes: int = KIB, mark: bytes = b"") -> Recording:
    return Recording(Key(name), "", b"", FACTS, mark.ljust(audio_bytes, b"."))


def tier(max_size_bytes: int) -> MemoryTier:
    return MemoryTier(MemoryLimits(max_size_bytes))


def test_what_was_put_is_got_back_unchanged() -> None:
    memory, recording = tier(64 * KIB), spoken("a")
    assert memory.put(recording, FOREVER, 0.0)
    assert memory.get(Key("a"), 0.0) == recording
    assert memory.get(Key("b"), 0.0) is None
    assert (memory.counters.hits, memory.counters.misses) == (1, 1)


def test_a_newer_recording_takes_the_place_of_the_older() -> None:
    memory, newer = tier(64 * KIB), spoken("a", 3 * KIB)
    memory.put(spoken("a"), FOREVER, 0.0)
    memory.put(newer, FOREVER, 0.0)
    assert memory.get(Key("a"), 0.0) == newer
    assert (len(memory), memory.held_bytes) == (1, newer.size_bytes)


@pytest.mark.parametrize(
    ("max_size_bytes", "audio_bytes", "expires_at"),
    [
        pytest.param(0, 1, FOREVER, id="the tier is off"),
        pytest.param(64 * KIB, 16 * KIB, FOREVER, id="more than a quarter of the budget"),
        pytest.param(64 * KIB, KIB, 10.0, id="expired already"),
    ],
)
def test_refused(max_size_bytes: int, audio_bytes: int, expires_at: float) -> None:
    memory = tier(max_size_bytes)
    assert not memory.put(spoken("a", audio_bytes), expires_at, 10.0)
    assert (len(memory), memory.held_bytes, memory.counters.refused) == (0, 0, 1)


def test_the_older_recording_is_not_served_when_the_newer_is_too_large() -> None:
    memory = tier(64 * KIB)
    memory.put(spoken("a"), FOREVER, 0.0)
    assert not memory.put(spoken("a", 60 * KIB), FOREVER, 0.0)
    assert memory.get(Key("a"), 0.0) is None


def test_expired_recordings_are_dropped_when_they_are_asked_for() -> None:
    memory = tier(64 * KIB)
    memory.put(spoken("a"), 100.0, 0.0)
    assert memory.get(Key("a"), 99.9) is not None
    assert memory.get(Key("a"), 100.0) is None
    assert (len(memory), memory.held_bytes, memory.counters.expired) == (0, 0, 1)


def test_discard_and_look_change_only_what_they_say() -> None:
    memory = tier(64 * KIB)
    memory.put(spoken("a"), 100.0, 0.0)
    assert memory.look(Key("a"), 0.0) is not None
    assert memory.look(Key("a"), 100.0) is None
    assert (memory.counters.hits, memory.counters.misses, len(memory)) == (0, 0, 1)
    assert memory.discard(Key("a"))
    assert not memory.discard(Key("a"))
    assert memory.held_bytes == 0


def test_one_hit_wonders_do_not_push_out_what_is_asked_for_again() -> None:
    memory = tier(100 * 2 * KIB)
    for name in ("greeting", "goodbye"):
        memory.put(spoken(name), FOREVER, 0.0)
        memory.get(Key(name), 0.0)
    for n in range(5_000):
        memory.put(spoken(f"wonder {n}"), FOREVER, 0.0)
    assert memory.get(Key("greeting"), 0.0) is not None
    assert memory.get(Key("goodbye"), 0.0) is not None


def test_what_comes_back_soon_after_it_left_stays() -> None:
    memory = tier(100 * 2 * KIB)
    memory.put(spoken("a"), FOREVER, 0.0)
    count = 0
    while Key("a") in memory._places:
        memory.put(spoken(f"first {count}"), FOREVER, 0.0)
        count += 1
    memory.put(spoken("a"), FOREVER, 0.0)
    for n in range(5_000):
        memory.put(spoken(f"later {n}"), FOREVER, 0.0)
    assert memory.get(Key("a"), 0.0) is not None


def test_ghosts_are_bounded() -> None:
    memory = tier(200 * 2 * KIB)
    for n in range(20_000):
        memory.put(spoken(f"{n}"), FOREVER, 0.0)
    assert len(memory._ghosts) <= max(FEWEST_GHOSTS, len(memory))


def test_a_put_takes_bounded_steps_when_everything_is_popular() -> None:
    memory = tier(2_000 * 2 * KIB)
    for n in range(2_000):
        memory.put(spoken(f"{n}"), FOREVER, 0.0)
        for _ in range(4):
            memory.get(Key(f"{n}"), 0.0)
    for n in range(50):
        assert memory.put(spoken(f"new {n}"), FOREVER, 0.0)
    assert memory.held_bytes <= memory.max_size_bytes


@pytest.mark.parametrize("budget", [0.02, 0.10, 0.40])
@pytest.mark.parametrize("wonders", [0.0, 0.5])
def test_hits_at_least_as_often_as_lru(budget: float, wonders: float) -> None:
    ratios = measure(Trace(requests=20_000, utterances=1_000, wonders=wonders), budget)
    assert ratios.memory_tier >= ratios.lru


def test_repr_says_what_is_held() -> None:
    memory = tier(64 * KIB)
    memory.put(spoken("a"), FOREVER, 0.0)
    assert repr(memory) == f"<MemoryTier 1 recordings, {KIB + OVERHEAD_BYTES} of {64 * KIB} bytes>"


class Held(RuleBasedStateMachine):
    """The tier beside a plain dict that forgets nothing: what the tier answers is the dict's answer or nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = tier(24 * KIB)
        self.put_last: dict[Key, tuple[Recording, float]] = {}
        self.wall_now = 0.0
        self.marks = 0

    names = st.sampled_from([Key(each) for each in "abcdefghijkl"])

    @rule(key=names, audio_bytes=st.integers(0, 6 * KIB), lifetime_s=st.sampled_from([0.0, 1.0, 5.0, 1000.0]))
    def put(self, key: Key, audio_bytes: int, lifetime_s: float) -> None:
        self.marks += 1
        recording = spoken(key, audio_bytes, b"%d" % self.marks)
        if self.memory.put(recording, self.wall_now + lifetime_s, self.wall_now):
            self.put_last[key] = (recording, self.wall_now + lifetime_s)
        else:
            self.put_last.pop(key, None)

    @rule(key=names)
    def get(self, key: Key) -> None:
        found = self.memory.get(key, self.wall_now)
        if found is not None:
            recording, expires_at = self.put_last[key]
            assert found == recording
            assert self.wall_now < expires_at

    @rule(key=names)
    def discard(self, key: Key) -> None:
        self.memory.discard(key)
        self.put_last.pop(key, None)
        assert self.memory.look(key, self.wall_now) is None

    @rule(seconds=st.sampled_from([-1.0, 0.5, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.wall_now += seconds

    @invariant()
    def bytes_counted_are_bytes_held(self) -> None:
        memory, places = self.memory, self.memory._places
        assert memory.held_bytes == sum(place.recording.size_bytes for place in places.values())
        assert memory._small_bytes == sum(place.recording.size_bytes for place in memory._small)
        assert memory.held_bytes <= memory.max_size_bytes
        assert {place.key: place for queue in (memory._small, memory._main) for place in queue} == places
        assert all(len(queue._places) <= 2 * len(queue) + 130 for queue in (memory._small, memory._main))
        assert len(memory._small) + len(memory._main) == len(places)
        assert not memory._ghosts.keys() & places.keys()


TestHeld = Held.TestCase
TestHeld.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_fault_103_recordings_are_nothing_to_the_garbage_collector() -> None:
    """A full collection looks at every object it tracks: with a million of ours it would stop the node for seconds."""
    memory, many = tier(1 << 30), 1000
    gc.collect()
    before = len(gc.get_objects())
    for n in range(many):
        facts = Facts("audio/wav", "wav", 1000, 8000, 1, 1.0, 350.0, 200.0, "syd", f"{n:032x}")
        memory.put(Recording(Key(f"{n:064x}"), "default", b"%d" % n, facts, b"%d" % n), 1e12, 1.0)

    assert len(memory) == many
    assert len(gc.get_objects()) - before < many / 10


def test_rule_7_a_recording_weighs_no_more_than_is_counted() -> None:
    memory, many, size = tier(1 << 30), 2000, 4 * KIB
    tracemalloc.start()
    try:
        for n in range(many):
            facts = Facts("audio/wav", "wav", 1000 + n, 24_000, 1, 1.7e9 + n, 350.5, 200.5, "syd", f"{n:032x}")
            memory.put(Recording(Key(f"{n:064x}"), "default", b"%100d" % n, facts, bytes(size)), 1e12 + n, 1.0)
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert grown / many - size < OVERHEAD_BYTES * 0.8
    assert memory.held_bytes == many * (size + 100 + OVERHEAD_BYTES)


LEAVES = [
    pytest.param(lambda memory: memory.discard(Key("a")), id="purged"),
    pytest.param(lambda memory: memory.get(Key("a"), 100.0), id="expired"),
    pytest.param(lambda memory: memory.put(spoken("a"), FOREVER, 0.0), id="replaced"),
    pytest.param(lambda memory: [memory.put(spoken(f"{n}"), FOREVER, 0.0) for n in range(200)], id="evicted"),
    pytest.param(
        lambda memory: [memory.get(Key("a"), 0.0), *(memory.put(spoken(f"{n}"), FOREVER, 0.0) for n in range(200))],
        id="evicted from main",
    ),
]


@pytest.mark.parametrize("leave", LEAVES)
def test_a_place_says_when_its_recording_stands_there_no_more(leave: Callable[[MemoryTier], object]) -> None:
    memory, recording = tier(64 * KIB), spoken("a")
    memory.put(recording, 100.0, 0.0)
    place = memory.place(Key("a"))
    assert place is not None
    assert (place.recording == recording, place.gone) == (True, False)
    leave(memory)
    if memory.look(Key("a"), 0.0) == recording:  # the second chance of main
        for n in range(200):
            memory.put(spoken(f"more {n}"), FOREVER, 0.0)
            memory.get(Key(f"more {n}"), 0.0)
    assert memory.look(Key("a"), 0.0) != recording
    assert place.gone
    assert not place.audio, "rule 7: who kept the place would hold what the budget no longer counts"


def test_who_asks_for_a_place_without_looking_it_up_keeps_its_recording() -> None:
    memory = tier(64 * KIB)
    memory.put(spoken("a"), FOREVER, 0.0)
    place = memory.place(Key("a"))
    assert place is not None
    for n in range(200):
        place.touched = True
        memory.put(spoken(f"{n}"), FOREVER, 0.0)
    assert (memory.look(Key("a"), 0.0), place.gone) == (place.recording, False)
