"""All clusters together, against real peers: measured, judged, chosen, asked, and left without a trace."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from edgecache.clusters.cluster import Cluster, FleetPolicies, HealthPolicy, Pool, Probing, Timeouts
from edgecache.clusters.fault import Fault, UpstreamFault
from edgecache.clusters.fleet import Fleet
from edgecache.clusters.routing import Route, Whose
from edgecache.clusters.selection import Chosen, NoneLeft, Why
from edgecache.clusters.upstream import Outgoing
from edgecache.speech.utterance import Utterance, utterance
from tests.fake_clock import FakeClock
from tests.scripted_upstream import FIN, HOLD, RST, Script, ScriptedUpstream, head, whole

AUDIO = b"RIFF" + bytes(96)
HELLO = utterance({"text": "Hello"})
SPEECH: Script = [whole(AUDIO)]
DOWN: Script = [head("500 Oops", "Content-Length: 0")]
POLICIES = FleetPolicies(
    timeouts=Timeouts(connect_s=10, first_byte_s=10, between_bytes_s=10, total_s=20),
    probing=Probing(interval_s=2.0, timeout_s=10, measure="answer"),
    health=HealthPolicy(failures=2, ejected_s=2.0, ejected_max_s=60.0),
)


class Plain:
    """A dialect for tests."""

    def ask(self, base_url: str, api_key: str | None, wanted: Utterance) -> Outgoing:
        return Outgoing(f"{base_url}/speak", {"X-API-Key": api_key or ""}, wanted.text.encode())


@dataclass
class Changes:
    """What the fleet told of changes."""

    told: list[tuple[str, str, str]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def __call__(self, upstream: str, old: str, new: str, reason: str) -> None:
        self.told.append((upstream, old, new))
        self.reasons.append(reason)


@dataclass
class Rig:
    fleet: Fleet
    clock: FakeClock
    changes: Changes

    def standing(self, name: str) -> str:
        return next(each.state for each in self.fleet.status() if each.name == name)

    def chosen(self, *tried: str) -> Chosen:
        choice = self.fleet.choose(tried)
        assert isinstance(choice, Chosen), choice
        return choice

    async def speak(self, *tried: str) -> bytes:
        async with self.fleet.ask(self.chosen(*tried), HELLO, {}) as answer, aclosing(answer.chunks()) as chunks:
            return b"".join([each async for each in chunks])

    async def fails(self, *tried: str) -> Fault:
        with pytest.raises(UpstreamFault) as met:
            await self.speak(*tried)
        return met.value.fault


def _tasks() -> set[asyncio.Task[Any]]:
    """All tasks but the peers' own."""
    return {each for each in asyncio.all_tasks() if "ScriptedUpstream" not in repr(each.get_coro())}


@asynccontextmanager
async def rig(*clusters: Cluster, policies: FleetPolicies = POLICIES, probing: bool = False) -> AsyncIterator[Rig]:
    """A fleet that probes only when a test says so, unless probing."""
    clock, changes = FakeClock(), Changes()
    fleet = Fleet(clusters, policies, {"plain": Plain()}, clock, changes)
    before = _tasks()
    await fleet.start(probing=probing)
    try:
        yield Rig(fleet, clock, changes)
    finally:
        await fleet.close()
        assert _tasks() == before, "a closed fleet leaves no task"
        assert all(each.in_flight == 0 for each in fleet.status())


def cluster(name: str, *urls: str, max_in_flight: int = 8) -> Cluster:
    return Cluster(name=name, urls=urls, dialect="plain", api_key="key", max_in_flight=max_in_flight)


def at(clock: FakeClock, distance_s: float) -> Script:
    """Answers a probe after so long."""
    return [lambda: clock.advance(distance_s), head("200 OK", "Content-Length: 0")]


# Choosing.


async def test_asks_the_nearest_and_then_the_next() -> None:
    async with (
        ScriptedUpstream(SPEECH) as far,
        ScriptedUpstream(SPEECH) as near,
        rig(cluster("far", far.url), cluster("near", near.url)) as it,
    ):
        assert it.chosen().why is Why.UNMEASURED
        far.probe_script, near.probe_script = at(it.clock, 0.2), at(it.clock, 0.01)
        for name in ("far", "near"):
            await it.fleet.probe_once(name)
        assert [each.rtt_ms for each in it.fleet.status()] == [pytest.approx(200), pytest.approx(10)]
        assert (it.chosen().upstream, it.chosen("near").upstream) == ("near", "far")
        assert await it.speak() == AUDIO
        assert (len(near.requests), len(far.requests)) == (1, 0)
        (asked,) = near.requests
        assert (asked.body, asked.headers["x-api-key"]) == (b"Hello", "key")


async def test_each_address_of_a_cluster_is_an_upstream() -> None:
    async with (
        ScriptedUpstream(DOWN) as bad,
        ScriptedUpstream(SPEECH) as good,
        rig(cluster("syd", bad.url, good.url)) as it,
    ):
        assert [each.name for each in it.fleet.status()] == ["syd/0", "syd/1"]
        assert await it.fails() is Fault.FAILED
        choice = it.chosen("syd/0")
        assert (choice.upstream, choice.cluster) == ("syd/1", "syd")
        assert await it.speak("syd/0") == AUDIO


@pytest.mark.parametrize(
    ("max_in_flight", "pool"),
    [(1, Pool()), (8, Pool(max_per_host=1))],
    ids=["the cluster's bound", "the pool's bound"],
)
async def test_asks_no_more_at_once_than_it_may(max_in_flight: int, pool: Pool) -> None:
    policies = FleetPolicies(POLICIES.timeouts, pool, POLICIES.probing, POLICIES.health)
    async with ScriptedUpstream(SPEECH) as one, ScriptedUpstream(SPEECH) as two:
        both = [cluster(name, each.url, max_in_flight=max_in_flight) for name, each in (("a", one), ("b", two))]
        async with rig(*both, policies=policies) as it:
            async with it.fleet.ask(it.chosen(), HELLO, {}):
                assert [each.in_flight for each in it.fleet.status()] == [1, 0]
                assert it.chosen().upstream == "b"
                async with it.fleet.ask(it.chosen(), HELLO, {}):
                    none_left = it.fleet.choose(())
                    assert isinstance(none_left, NoneLeft)
                    assert none_left.busy
            assert it.chosen().upstream == "a"


async def test_a_clusters_bound_holds_for_all_its_addresses() -> None:
    async with (
        ScriptedUpstream(SPEECH) as one,
        ScriptedUpstream(SPEECH) as two,
        rig(cluster("syd", one.url, two.url, max_in_flight=1)) as it,
        it.fleet.ask(it.chosen(), HELLO, {}),
    ):
        assert isinstance(it.fleet.choose(()), NoneLeft)


# What comes of asking.


@pytest.mark.parametrize(
    ("script", "state", "failures"),
    [
        pytest.param(SPEECH, "up", 0, id="speech"),
        pytest.param(DOWN, "ejected", 2, id="500"),
        pytest.param([FIN], "ejected", 2, id="closed"),
        pytest.param([head("200 OK", "Content-Length: 100"), RST], "ejected", 2, id="reset in mid-body"),
        pytest.param([head("401 Unauthorized", "Content-Length: 0")], "ejected", 2, id="our key is refused"),
        pytest.param([head("422 Unprocessable", "Content-Length: 0")], "up", 0, id="the utterance is refused"),
        pytest.param([head("429 Slow Down", "Retry-After: 0", "Content-Length: 0")], "up", 0, id="busy"),
    ],
)
async def test_is_judged_by_what_it_answers(script: Script, state: str, failures: int) -> None:
    async with ScriptedUpstream(script) as upstream, rig(cluster("syd", upstream.url)) as it:
        for _ in range(2):
            try:
                await it.speak()
            except UpstreamFault:
                assert it.fleet.status()[0].last_fault
        status = it.fleet.status()[0]
        assert (status.state, status.failures, status.chosen) == (state, failures, 2)


async def test_a_fault_that_the_reader_finds_counts_too() -> None:
    async with ScriptedUpstream(SPEECH) as upstream, rig(cluster("syd", upstream.url)) as it:
        for _ in range(2):
            with pytest.raises(UpstreamFault):
                async with it.fleet.ask(it.chosen(), HELLO, {}):
                    raise UpstreamFault(Fault.NOT_AUDIO, "syd", "HTML")
        assert (it.standing("syd"), it.fleet.status()[0].last_fault) == ("ejected", "not audio: HTML")
        assert it.changes.told == [("syd", "up", "ejected")]
        assert it.changes.reasons == ["not audio: HTML"]


async def _cancel(task: asyncio.Task[bytes]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def test_leaving_says_nothing_about_the_upstream() -> None:
    async with ScriptedUpstream([HOLD]) as upstream, rig(cluster("syd", upstream.url)) as it:
        for n in range(3):
            task = asyncio.create_task(it.speak())
            await upstream.asked(n + 1)
            await _cancel(task)
        assert (it.standing("syd"), it.fleet.status()[0].in_flight) == ("up", 0)


async def test_what_was_begun_and_is_abandoned_gives_its_room_back() -> None:
    async with (
        ScriptedUpstream(SPEECH, [HOLD], SPEECH) as upstream,
        rig(cluster("syd", upstream.url, max_in_flight=1)) as it,
    ):
        assert await it.speak() == AUDIO
        begun = it.fleet.ask(it.chosen(), HELLO, {})
        begun.begin()
        assert isinstance(it.fleet.choose(()), NoneLeft), "it counts from when it is begun"
        begun.abandon()
        assert (it.standing("syd"), it.fleet.status()[0].in_flight) == ("up", 0)
        assert await it.speak() == AUDIO


async def test_a_busy_cluster_is_left_alone_for_as_long_as_it_says() -> None:
    busy: Script = [head("503 Busy", "Retry-After: 7", "Content-Length: 0")]
    async with ScriptedUpstream(busy, SPEECH) as upstream, rig(cluster("syd", upstream.url)) as it:
        assert await it.fails() is Fault.BUSY
        none_left = it.fleet.choose(())
        assert isinstance(none_left, NoneLeft)
        assert (none_left.busy, none_left.retry_after_s) == (True, 7)
        it.clock.advance(7)
        assert await it.speak() == AUDIO
        assert it.changes.told == []


# Ejection and recovery.


async def eject(it: Rig) -> None:
    for _ in range(2):
        await it.fails()


async def test_an_ejected_cluster_comes_back_by_one_request() -> None:
    barrier = asyncio.Event()
    async with (
        ScriptedUpstream(DOWN, DOWN, [barrier, *SPEECH], SPEECH) as upstream,
        rig(cluster("syd", upstream.url)) as it,
    ):
        await eject(it)
        none_left = it.fleet.choose(())
        assert isinstance(none_left, NoneLeft)
        assert (none_left.busy, none_left.retry_after_s) == (False, 2)
        it.clock.advance(2)
        trial = asyncio.create_task(it.speak())
        await upstream.asked(3)
        assert isinstance(it.fleet.choose(()), NoneLeft), "one at a time"
        assert await it.fleet.probe_once("syd") is None, "nor a probe"
        barrier.set()
        assert await trial == AUDIO
        assert await it.speak() == AUDIO
        assert it.changes.told == [("syd", "up", "ejected"), ("syd", "ejected", "trial"), ("syd", "trial", "up")]


async def test_an_abandoned_trial_leaves_room_for_the_next() -> None:
    async with ScriptedUpstream(DOWN, DOWN, [HOLD], SPEECH) as upstream, rig(cluster("syd", upstream.url)) as it:
        await eject(it)
        it.clock.advance(2)
        trial = asyncio.create_task(it.speak())
        await upstream.asked(3)
        await _cancel(trial)
        assert await it.speak() == AUDIO


async def test_a_cluster_whose_probes_alone_answer_is_ejected_again_at_once_and_longer() -> None:
    async with ScriptedUpstream(DOWN) as upstream, rig(cluster("syd", upstream.url)) as it:
        await eject(it)
        assert await it.fleet.probe_once("syd") is None
        it.clock.advance(2)
        assert await it.fleet.probe_once("syd") is not None
        assert it.standing("syd") == "up"
        assert await it.fails() is Fault.FAILED
        status = it.fleet.status()[0]
        assert (status.state, status.back_in_s) == ("ejected", 4)


async def test_one_on_trial_is_not_asked_while_another_is_up() -> None:
    async with (
        ScriptedUpstream(DOWN, DOWN, SPEECH) as near,
        ScriptedUpstream(SPEECH) as far,
        rig(cluster("near", near.url), cluster("far", far.url)) as it,
    ):
        await eject(it)
        it.clock.advance(2)
        assert it.chosen().upstream == "far"
        await it.fleet.probe_once("near")
        assert it.chosen().upstream == "near"


async def test_whoever_comes_too_late_with_a_choice_is_sent_elsewhere() -> None:
    async with ScriptedUpstream(DOWN) as upstream, rig(cluster("syd", upstream.url)) as it:
        early = it.chosen()
        await eject(it)
        with pytest.raises(UpstreamFault) as met:
            async with it.fleet.ask(early, HELLO, {}):
                raise AssertionError("it was asked")
        assert met.value.elsewhere
        assert len(upstream.requests) == 2


# Load, routes, draining, coming back.


async def test_a_cluster_that_is_drained_is_asked_no_more_and_ends_what_it_speaks() -> None:
    async with (
        ScriptedUpstream([head("200 OK", "Content-Length: 100"), AUDIO[:50], HOLD]) as near,
        ScriptedUpstream(SPEECH) as far,
        rig(cluster("near", near.url), cluster("far", far.url)) as it,
    ):
        async with it.fleet.ask(it.chosen(), HELLO, {}):
            assert it.fleet.drain("near", drained=True)
            assert it.chosen().upstream == "far"
            drained = it.fleet.status()[0]
            assert (drained.drained, drained.why, drained.share, drained.in_flight) == (True, "drained", 0, 1)
        assert it.fleet.drain("near", drained=False)
        assert it.chosen().upstream == "near"
        assert not it.fleet.drain("nowhere", drained=True)


async def test_what_must_stay_goes_nowhere_else() -> None:
    policies = replace(POLICIES, routes=(Route("eu-only", ("eu",), namespaces=("key-acme",)),))
    here = replace(cluster("fra", "http://127.0.0.1:9"), groups=("eu",))
    async with rig(here, cluster("syd", "http://127.0.0.1:9"), policies=policies) as it:
        assert it.chosen().upstream == "fra"
        acme, other = Whose("key-acme", "v", "en"), Whose("key-other", "v", "en")
        assert isinstance(it.fleet.choose(["fra"], other), Chosen)
        none_left = it.fleet.choose(["fra"], acme)
        assert isinstance(none_left, NoneLeft)
        assert none_left.barred == ("eu-only",)


async def test_who_waits_is_told_when_there_may_be_room() -> None:
    async with ScriptedUpstream(SPEECH) as upstream, rig(cluster("syd", upstream.url, max_in_flight=1)) as it:
        told: list[object] = []
        it.fleet.on_room(lambda: told.append(it.fleet.choose(())))
        async with it.fleet.ask(it.chosen(), HELLO, {}):
            assert isinstance(it.fleet.choose(()), NoneLeft)
        assert isinstance(told[-1], Chosen)


async def test_a_cluster_that_came_back_is_given_a_tenth_and_then_more() -> None:
    async with ScriptedUpstream(DOWN, DOWN, SPEECH) as up, rig(cluster("syd", up.url, max_in_flight=20)) as it:
        for _ in range(2):
            await it.fails()
        it.clock.advance(2)
        await it.speak()
        assert it.standing("syd") == "up"
        limits = []
        for _ in range(3):
            limits.append(it.fleet._members["syd"].limit(it.clock.monotonic()))
            it.clock.advance(5)
        assert limits == [2, 11, 20]


async def test_one_that_speaks_far_later_than_another_is_passed_over_until_that_is_long_ago() -> None:
    async with rig(cluster("near", "http://127.0.0.1:9"), cluster("far", "http://127.0.0.1:9")) as it:
        near, far = it.chosen(), it.chosen("near")
        it.fleet.heard(far, 0.3, None)
        it.fleet.heard(near, 0.7, None)
        assert it.chosen().upstream == "near", "later, but not by enough"
        for _ in range(3):
            it.fleet.heard(near, 3.0, None)
        assert it.chosen().upstream == "far"
        assert [each.why for each in it.fleet.status()] == ["slow to speak", "unmeasured"]
        it.clock.advance(301)
        assert it.chosen().upstream == "near"


async def test_a_near_cluster_that_fails_fast_attracts_nothing() -> None:
    async with (
        ScriptedUpstream(DOWN) as near,
        ScriptedUpstream(SPEECH) as far,
        rig(cluster("near", near.url), cluster("far", far.url)) as it,
    ):
        asked = []
        for _ in range(200):
            it.clock.advance(0.05)
            choice = it.chosen()
            asked.append(choice.upstream)
            if choice.upstream == "near":
                await it.fails()
            else:
                await it.speak()
        assert asked.count("near") <= 6, "twice, and once at the end of each longer cool-down"


async def test_the_round_trip_is_tcps_own_where_it_tells() -> None:
    measured = replace(POLICIES, probing=Probing(interval_s=2.0, timeout_s=10, measure="tcp"))
    async with ScriptedUpstream() as upstream, rig(cluster("syd", upstream.url), policies=measured) as it:
        upstream.probe_script = at(it.clock, 0.5)  # slow to answer, and not far away
        for _ in range(2):
            await it.fleet.probe_once("syd")
        (status,) = it.fleet.status()
        assert status.rtt_ms is not None
        assert status.rtt_ms < 400
