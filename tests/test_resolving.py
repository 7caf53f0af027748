"""Names into addresses: what is believed, for how long, and that nobody waits for DNS twice."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from edgecache.clusters.resolving import MAX_ADDRESSES, RETRY_S, Address, Resolver, Unresolved
from tests.fake_clock import FakeClock

TTL_S = 300.0


def v4(*hosts: str) -> list[tuple[Any, ...]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 80)) for host in hosts]


def v6(host: str, scope: int = 0) -> tuple[Any, ...]:
    return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (host, 80, 0, scope))


class Dns:
    """Answers look-ups with what it is told to: addresses, an error, or nothing until `go`."""

    def __init__(self) -> None:
        self.answer: Sequence[tuple[Any, ...]] | Exception = v4("192.0.2.1")
        self.go = asyncio.Event()
        self.go.set()
        self.asked = 0

    async def look_up(self, host: str, port: int) -> Sequence[tuple[Any, ...]]:
        self.asked += 1
        await self.go.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@asynccontextmanager
async def resolving(dns: Dns) -> AsyncIterator[tuple[Resolver, FakeClock]]:
    clock = FakeClock()
    resolver = Resolver(TTL_S, clock, dns.look_up, allow_networks=("fe80::/10",))
    yield resolver, clock
    await resolver.close()


async def settled() -> None:
    """Lets what was begun behind come to its end."""
    for _ in range(5):
        await asyncio.sleep(0)


def hosts(addresses: tuple[Address, ...]) -> list[str]:
    assert all(each.port == 80 for each in addresses)
    return [each.host for each in addresses]


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::1", "fe80::1%lo"])
async def test_an_address_is_not_looked_up(host: str) -> None:
    dns = Dns()
    async with resolving(dns) as (resolver, _):
        assert await resolver.resolve(host, 80) == (Address(host, 80),) == resolver.known(host, 80)
    assert dns.asked == 0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(v4("192.0.2.2", "192.0.2.1"), ["192.0.2.2", "192.0.2.1"], id="in the system's order"),
        pytest.param(v4("192.0.2.1", "192.0.2.1"), ["192.0.2.1"], id="each once"),
        pytest.param([v6("2001:db8::1"), *v4("192.0.2.1")], ["2001:db8::1", "192.0.2.1"], id="both families"),
        pytest.param([v6("fe80::1", 3)], ["fe80::1%3"], id="with its scope"),
        pytest.param(
            v4(*(f"192.0.2.{n}" for n in range(200))), [f"192.0.2.{n}" for n in range(MAX_ADDRESSES)], id="a bounded number"
        ),
    ],
)  # fmt: skip
async def test_reads_an_answer(answer: Sequence[tuple[Any, ...]], expected: list[str]) -> None:
    dns = Dns()
    dns.answer = answer
    async with resolving(dns) as (resolver, _):
        assert hosts(await resolver.resolve("tts", 80)) == expected


async def test_an_answer_is_kept_for_its_time_and_then_asked_for_behind() -> None:
    dns = Dns()
    async with resolving(dns) as (resolver, clock):
        await resolver.resolve("tts", 80)
        dns.answer = v4("192.0.2.2")
        clock.advance(TTL_S - 1)
        assert (hosts(await resolver.resolve("tts", 80)), dns.asked) == (["192.0.2.1"], 1)
        clock.advance(1)
        dns.go.clear()
        for _ in range(3):
            assert hosts(await resolver.resolve("tts", 80)) == ["192.0.2.1"], "nobody waits for what is known"
        await settled()
        dns.go.set()
        await settled()
        assert (hosts(await resolver.resolve("tts", 80)), dns.asked) == (["192.0.2.2"], 2)


@pytest.mark.parametrize(
    "bad",
    [socket.gaierror(socket.EAI_NONAME, "no"), socket.gaierror(socket.EAI_AGAIN, "later"), TimeoutError(), [], [(1,) * 5]],
    ids=["no such name", "try again", "late", "empty", "another family"],
)  # fmt: skip
async def test_what_dns_last_said_well_is_believed_on(bad: Exception | list[tuple[Any, ...]]) -> None:
    dns = Dns()
    async with resolving(dns) as (resolver, clock):
        await resolver.resolve("tts", 80)
        dns.answer = bad
        for n in range(2, 5):
            clock.advance(TTL_S)
            assert hosts(await resolver.resolve("tts", 80)) == ["192.0.2.1"]
            await settled()
            assert hosts(await resolver.resolve("tts", 80)) == ["192.0.2.1"]
            assert dns.asked == n, "a failed look-up is not repeated at once"
        dns.answer = v4("192.0.2.9")
        clock.advance(RETRY_S)
        await resolver.resolve("tts", 80)
        await settled()
        assert hosts(await resolver.resolve("tts", 80)) == ["192.0.2.9"], "and it heals soon"


@pytest.mark.parametrize(
    "bad", [socket.gaierror(socket.EAI_NONAME, "no"), UnicodeError(), []], ids=["no", "idna", "empty"]
)
async def test_says_when_nothing_is_known(bad: Exception | list[tuple[Any, ...]]) -> None:
    dns = Dns()
    dns.answer = bad
    async with resolving(dns) as (resolver, _):
        with pytest.raises(Unresolved):
            await resolver.resolve("tts", 80)
        assert resolver.known("tts", 80) == ()
        dns.answer = v4("192.0.2.1")
        assert hosts(await resolver.resolve("tts", 80)) == ["192.0.2.1"]


async def test_all_who_ask_at_once_wait_for_one_look_up_and_one_who_leaves_does_not_end_it() -> None:
    dns = Dns()
    dns.go.clear()
    async with resolving(dns) as (resolver, _):
        leaving, *staying = [asyncio.create_task(resolver.resolve("tts", 80)) for _ in range(5)]
        await settled()
        leaving.cancel()
        await asyncio.wait([leaving])
        dns.go.set()
        assert [hosts(each) for each in await asyncio.gather(*staying)] == [["192.0.2.1"]] * 4
        assert dns.asked == 1


async def test_closing_ends_what_is_asked() -> None:
    before = asyncio.all_tasks()
    dns = Dns()
    dns.go.clear()
    async with resolving(dns) as (resolver, _):
        waiting = asyncio.create_task(resolver.resolve("tts", 80))
        await settled()
    with pytest.raises(Unresolved):
        await waiting
    assert asyncio.all_tasks() == before


async def test_asks_the_system() -> None:
    resolver = Resolver(TTL_S, FakeClock())
    assert {each.host for each in await resolver.resolve("localhost", 80)} <= {"127.0.0.1", "::1"}
    await resolver.close()
