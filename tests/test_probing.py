"""How far and how well each upstream is found to be, against real peers, by probes that never queue behind speech."""

import asyncio

import pytest

from edgecache.clusters.cluster import FleetPolicies, Pool, Probing
from edgecache.clusters.fleet import Fleet
from tests.fake_clock import FakeClock
from tests.scripted_upstream import FIN, HOLD, Script, ScriptedUpstream, closed_port, head
from tests.test_fleet import DOWN, HELLO, POLICIES, SPEECH, Plain, cluster, rig


@pytest.mark.parametrize(
    ("script", "alive"),
    [
        pytest.param([head("200 OK", "Content-Length: 0")], True, id="200"),
        pytest.param([head("404 Not Found", "Content-Length: 0")], True, id="404"),
        pytest.param([head("302 Found", "Location: /x", "Content-Length: 0")], True, id="302"),
        pytest.param(DOWN, False, id="500"),
        pytest.param([FIN], False, id="closed"),
        pytest.param([b"SSH-2.0\r\n", FIN], False, id="another protocol"),
        pytest.param([head("200 OK", "Content-Length: 9"), b"x", FIN], False, id="cut"),
        pytest.param([head("200 OK"), bytes(200_000), HOLD], True, id="endless"),
    ],
)
async def test_any_answer_below_500_is_alive(script: Script, alive: bool) -> None:
    async with ScriptedUpstream(probe_script=script) as upstream, rig(cluster("syd", upstream.url)) as it:
        probed = await it.fleet.probe_once("syd")
        assert probed is not None
        assert (probed.alive, probed.rtt_s is not None, bool(probed.detail)) == (alive, alive, not alive)
        assert it.fleet.ready is alive


async def test_making_a_connection_is_not_measured() -> None:
    async with ScriptedUpstream() as upstream, rig(cluster("syd", upstream.url)) as it:
        distances_s = iter([9.0, 0.02, 0.03])
        upstream.probe_script = [lambda: it.clock.advance(next(distances_s)), head("200 OK", "Content-Length: 0")]
        found = [await it.fleet.probe_once("syd") for _ in range(2)]
        assert [each.rtt_s for each in found if each is not None] == [pytest.approx(0.02), pytest.approx(0.03)]
        assert upstream.connections == 1, "the connection stays warm"
        assert "x-api-key" not in upstream.probes[0].headers


async def test_a_probe_never_waits_for_the_pool_of_requests() -> None:
    policies = FleetPolicies(POLICIES.timeouts, Pool(max_connections=1), POLICIES.probing)
    async with (
        ScriptedUpstream([head("200 OK", "Content-Length: 9"), HOLD]) as upstream,
        rig(cluster("syd", upstream.url), policies=policies) as it,
    ):
        async with it.fleet.ask(it.chosen(), HELLO, {}):
            probed = await it.fleet.probe_once("syd")
        assert probed is not None
        assert probed.alive


async def test_a_silent_upstream_fails_its_probe_in_time() -> None:
    policies = FleetPolicies(probing=Probing(timeout_s=0.05))
    async with (
        ScriptedUpstream(probe_script=[HOLD]) as upstream,
        rig(cluster("syd", upstream.url), policies=policies) as it,
    ):
        probed = await it.fleet.probe_once("syd")
        assert probed is not None
        assert (probed.alive, probed.detail) == (False, "no answer to a probe in time")


async def test_probing_needs_no_start() -> None:
    async with ScriptedUpstream() as upstream:
        gone = f"http://127.0.0.1:{closed_port()}"
        fleet = Fleet([cluster("syd", upstream.url), cluster("sin", gone)], POLICIES, {"plain": Plain()}, FakeClock())
        try:
            syd, sin = await fleet.probe_all()
        finally:
            await fleet.close()
        assert (syd.rtt_ms, sin.rtt_ms, sin.last_fault) == (0, None, "can't connect (ECONNREFUSED)")
        assert sin.told()["name"] == "sin"


class Pauses:
    """Stands in for `asyncio.sleep`: every pause lasts until the test ends it."""

    def __init__(self) -> None:
        self.asked_s: list[float] = []
        self._go = asyncio.Condition()
        self._ended = 0

    async def __call__(self, seconds: float) -> None:
        async with self._go:
            self.asked_s.append(seconds)
            mine = len(self.asked_s)
            self._go.notify_all()
            await self._go.wait_for(lambda: self._ended >= mine)

    async def begun(self, count: int) -> None:
        """Waits until so many pauses have begun."""
        async with self._go:
            await self._go.wait_for(lambda: len(self.asked_s) >= count)

    async def end(self) -> None:
        """Ends all that have begun."""
        async with self._go:
            self._ended = len(self.asked_s)
            self._go.notify_all()


async def test_keeps_measuring_and_wakes_for_recovery() -> None:
    clock, pauses = FakeClock(), Pauses()
    async with ScriptedUpstream(probe_script=DOWN) as upstream:
        fleet = Fleet([cluster("syd", upstream.url)], POLICIES, {"plain": Plain()}, clock)
        fleet.pause = pauses
        await fleet.start()
        try:
            await pauses.begun(1)
            assert not fleet.ready
            await pauses.end()
            await pauses.begun(2)  # the second failure in a row: ejected for 2 s
            assert (fleet.status()[0].state, len(upstream.probes)) == ("ejected", 2)
            await pauses.end()
            await pauses.begun(3)
            assert len(upstream.probes) == 2, "an ejected upstream is not probed before its time"
            clock.advance(2)
            upstream.probe_script = [head("200 OK", "Content-Length: 0")]
            await pauses.end()
            await pauses.begun(4)
            assert (fleet.status()[0].state, fleet.ready) == ("up", True)
            regular_s, recovery_s = [pauses.asked_s[0], pauses.asked_s[3]], pauses.asked_s[1:3]
            assert all(1.5 <= each <= 2.5 for each in regular_s), "jittered around the interval"
            assert all(each <= 2.0 for each in recovery_s), "no later than it has cooled down"
        finally:
            await fleet.close()


async def test_ready_means_that_some_cluster_was_heard() -> None:
    async with ScriptedUpstream(SPEECH) as upstream, rig(cluster("syd", upstream.url)) as it:
        assert not it.fleet.ready
        await it.speak()
        assert it.fleet.ready


async def test_nothing_is_left_after_close() -> None:
    async with ScriptedUpstream(SPEECH) as upstream:
        async with rig(cluster("syd", upstream.url), probing=True) as it:
            await upstream.probed(2)
            await it.speak()
        assert upstream.connections == 2, "one for probes, one for requests"
        await upstream.left(2)
