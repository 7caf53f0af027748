"""Several addresses of one name are several upstreams, and DNS may have a bad day."""

import asyncio
import socket
from dataclasses import replace
from typing import Any

import pytest

from edgecache.clusters import roster
from edgecache.clusters.cluster import Cluster, Pool
from edgecache.clusters.resolving import Address
from edgecache.clusters.selection import Chosen
from tests.scripted_upstream import ScriptedUpstream
from tests.test_fleet import AUDIO, POLICIES, SPEECH, Rig, cluster, rig

URL = "http://tts.example:9001"
#: Here clusters are on this machine, under names.
LOCAL = replace(POLICIES, pool=Pool(allow_networks=("127.0.0.0/8",)))


@pytest.mark.parametrize(
    ("urls", "hosts", "named"),
    [
        pytest.param([URL], [], ["syd"], id="nothing is known"),
        pytest.param([URL], ["10.0.0.1"], ["syd"], id="one address"),
        pytest.param([URL], ["10.0.0.2", "10.0.0.1"], ["syd@10.0.0.1", "syd@10.0.0.2"], id="two, in a lasting order"),
        pytest.param([URL], ["10.0.0.1", "fd00::1"], ["syd"], id="one host of two families"),
        pytest.param(
            [URL], ["fd00::2", "fd00::1", "10.0.0.1"], ["syd@fd00::1", "syd@fd00::2"], id="the first's family"
        ),
        pytest.param(["http://10.0.0.9:1"], ["10.0.0.1", "10.0.0.2"], ["syd"], id="an address is no name"),
        pytest.param(
            [URL, "http://10.0.0.9:1"],
            ["10.0.0.1", "10.0.0.2"],
            ["syd/0@10.0.0.1", "syd/0@10.0.0.2", "syd/1"],
            id="urls",
        ),
    ],
)
def test_who_is_an_upstream(urls: list[str], hosts: list[str], named: list[str]) -> None:
    told = roster.entries(
        Cluster(name="syd", urls=tuple(urls)), lambda _, port: [Address(each, port) for each in hosts]
    )
    assert [each.name for each in told] == named
    assert all((each.address is None) == ("@" not in each.name) for each in told)


def test_only_names_are_asked_for_and_each_once() -> None:
    clusters = [cluster("a", URL, "https://other.example"), cluster("b", URL + "/x", "http://127.0.0.1:1")]
    assert roster.names(clusters) == [("tts.example", 9001), ("other.example", 443)]


class Dns:
    """What it answers next: addresses, nothing, a failure, or not at all."""

    def __init__(self, *hosts: str) -> None:
        self.next: tuple[str, ...] | OSError | asyncio.Event = hosts
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[tuple[Any, ...]]:
        self.asked += 1
        if isinstance(self.next, asyncio.Event):
            await self.next.wait()
            return []
        if isinstance(self.next, OSError):
            raise self.next
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in self.next]


async def looked_at(it: Rig, port: int) -> list[str]:
    """The upstreams once the answer is too old, DNS was asked, and what it said was looked at."""
    it.clock.advance(301)
    for _ in range(2):
        await it.fleet.follow("tts.example", port)
        for _ in range(5):
            await asyncio.sleep(0)
    return [each.name for each in it.fleet.status()]


async def test_24_what_dns_last_said_well_is_kept_and_the_loop_never_waits() -> None:
    dns, port = Dns("127.0.0.1", "127.0.0.2"), 9001
    both = ["syd@127.0.0.1", "syd@127.0.0.2"]
    async with rig(cluster("syd", URL), policies=LOCAL) as it:
        it.fleet._resolver._look_up = dns
        assert [each.name for each in it.fleet.status()] == ["syd"]
        assert await looked_at(it, port) == both
        silent = asyncio.Event()
        for bad in (socket.gaierror("NXDOMAIN"), (), silent):
            dns.next = bad
            assert await looked_at(it, port) == both
            assert isinstance(it.fleet.choose(()), Chosen), "whoever asks meanwhile does not wait"
        assert dns.asked == 4
        silent.set()


async def test_24_who_stays_keeps_what_is_known_of_it_and_who_is_gone_is_asked_no_more() -> None:
    dns, port = Dns("127.0.0.1", "127.0.0.2"), 9001
    async with rig(cluster("syd", URL), policies=LOCAL) as it:
        it.fleet._resolver._look_up = dns
        await looked_at(it, port)
        for _ in range(20):
            it.fleet.heard(it.chosen("syd@127.0.0.1"), 0.2, None)
        early = it.chosen("syd@127.0.0.2")
        assert early.upstream == "syd@127.0.0.1"
        dns.next = ("127.0.0.2", "127.0.0.3")
        assert await looked_at(it, port) == ["syd@127.0.0.2", "syd@127.0.0.3"]
        assert it.fleet.status()[0].chosen == 20
        it.fleet.heard(early, 0.2, None)  # late news of one that is gone
        assert it.fleet.late_s("syd@127.0.0.1") is None
        dns.next = ("127.0.0.3",)
        assert await looked_at(it, port) == ["syd"]


async def test_each_address_is_connected_to_under_the_name_and_fails_by_itself() -> None:
    async with ScriptedUpstream(SPEECH) as here:
        url = f"http://tts.example:{here.port}"
        async with rig(cluster("syd", url), policies=LOCAL) as it:
            it.fleet._resolver._look_up = Dns("127.0.0.1", "127.0.0.2")  # nobody listens on the second
            await looked_at(it, here.port)
            for _ in range(2):
                await it.fails("syd@127.0.0.1")
            assert await it.speak() == AUDIO
            assert here.requests[0].headers["host"] == f"tts.example:{here.port}"
            states = {each.name: each.state for each in it.fleet.status()}
            assert states == {"syd@127.0.0.1": "up", "syd@127.0.0.2": "ejected"}


async def test_a_newcomer_of_a_drained_cluster_is_drained() -> None:
    async with rig(cluster("syd", URL), policies=LOCAL) as it:
        it.fleet._resolver._look_up = Dns("127.0.0.1", "127.0.0.2")
        it.fleet.drain("syd", drained=True)
        await looked_at(it, 9001)
        assert [each.drained for each in it.fleet.status()] == [True, True]
