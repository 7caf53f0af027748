"""A cluster's name that leads where no cluster should be: DNS rebinding (faults.md row 24)."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.clusters.addresses import networks, objection
from edgecache.clusters.cluster import Pool
from edgecache.clusters.fault import UpstreamFault
from tests import daemon as daemons
from tests.command_line import run
from tests.houses import cluster as demo
from tests.scripted_upstream import ScriptedUpstream
from tests.test_fleet import AUDIO, POLICIES, SPEECH, Rig, cluster, rig
from tests.test_roster import Dns, looked_at

NAME = "tts.example"

#: Address, and what is said against it.
KINDS = {
    "10.1.2.3": "",
    "172.16.0.9": "",
    "192.168.1.1": "",
    "100.64.0.7": "",
    "203.0.113.7": "",
    "fd12:3456::1": "",
    "2001:db8::1": "",
    "::ffff:10.0.0.1": "",
    "127.0.0.1": "loopback",
    "127.0.1.1": "loopback",
    "::1": "loopback",
    "::ffff:127.0.0.1": "loopback",
    "64:ff9b::7f00:1": "loopback",
    "2002:7f00:1::": "loopback",
    "0.0.0.0": "unspecified",
    "0.1.2.3": "unspecified",
    "::": "unspecified",
    "169.254.1.2": "link-local",
    "fe80::1": "link-local",
    "fe80::1%3": "link-local",
    "169.254.169.254": "a metadata service",
    "::ffff:169.254.169.254": "a metadata service",
    "64:ff9b::a9fe:a9fe": "a metadata service",
    "fd00:ec2::254": "a metadata service",
    "100.100.100.200": "a metadata service",
    "168.63.129.16": "a metadata service",
    "224.0.0.1": "multicast",
    "ff02::1": "multicast",
    "255.255.255.255": "multicast",
}


@pytest.mark.parametrize(("address", "kind"), KINDS.items(), ids=KINDS)
def test_24_what_is_said_against_an_address(address: str, kind: str) -> None:
    assert objection(NAME, address, ()) == kind
    assert objection(NAME, address, networks(("0.0.0.0/0", "::/0"))) == ""


@pytest.mark.parametrize(
    ("name", "address", "allowed", "kind"),
    [
        ("localhost", "127.0.0.1", (), ""),
        ("localhost", "::1", (), ""),
        ("LOCALHOST.", "127.0.0.1", (), ""),
        ("syd.localhost", "127.0.0.1", (), ""),
        ("localhost", "169.254.169.254", (), "a metadata service"),
        ("notlocalhost", "127.0.0.1", (), "loopback"),
        ("localhost.example", "127.0.0.1", (), "loopback"),
        (NAME, "127.0.0.1", ("127.0.0.1",), ""),
        (NAME, "127.0.0.2", ("127.0.0.1",), "loopback"),
        (NAME, "::ffff:127.0.0.1", ("127.0.0.0/8",), ""),
        (NAME, "::1", ("127.0.0.0/8",), "loopback"),
        (NAME, "fe80::1%3", ("fe80::/10",), ""),
    ],
)
def test_24_what_the_operator_may_mean(name: str, address: str, allowed: tuple[str, ...], kind: str) -> None:
    assert objection(name, address, networks(allowed)) == kind


@given(st.ip_addresses())
def test_every_address_is_judged(address: object) -> None:
    assert objection(NAME, str(address), ()) in {*KINDS.values()}


@dataclass
class Victim:
    """Listens where nobody should come."""

    port: int
    connections: int = 0


@asynccontextmanager
async def victim(host: str, port: int) -> AsyncIterator[Victim]:
    it = Victim(port)

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        it.connections += 1
        writer.close()

    server = await asyncio.start_server(serve, host, port)
    try:
        yield it
    finally:
        server.close()


@asynccontextmanager
async def misled(first: str) -> AsyncIterator[tuple[Rig, Dns, Victim, list[tuple[str, str]]]]:
    """One cluster by name, which is at 127.0.0.1; at 127.0.0.2 somebody else listens."""
    async with ScriptedUpstream(SPEECH) as here, victim("127.0.0.2", here.port) as prey:
        policies = replace(POLICIES, pool=Pool(allow_networks=("127.0.0.1",)))
        async with rig(cluster("syd", f"http://{NAME}:{here.port}"), policies=policies) as it:
            dns, told = Dns(first), list[tuple[str, str]]()
            it.fleet._resolver._look_up = dns
            it.fleet.on_refused = lambda host, why: told.append((host, why))
            yield it, dns, prey, told


BAD = ["127.0.0.2", "169.254.169.254", "0.0.0.0", "100.100.100.200"]


async def test_24_a_name_that_is_rebound_is_asked_where_it_was_before() -> None:
    async with misled("127.0.0.1") as (it, dns, prey, told):
        assert await looked_at(it, prey.port) == ["syd"]
        assert await it.speak() == AUDIO
        for number, bad in enumerate(BAD, 1):
            dns.next = (bad,)
            assert await looked_at(it, prey.port) == ["syd"]
            assert await looked_at(it, prey.port) == ["syd"]
            assert await it.speak() == AUDIO
            assert [host for host, _ in told] == [NAME] * number, "told once for each change"
            assert f"its name leads to {bad} (" in told[-1][1]
            assert it.fleet.status()[0].last_fault == told[-1][1]
            assert (it.standing("syd"), it.fleet.status()[0].failures) == ("up", 0)
        assert prey.connections == 0


async def test_24_of_several_addresses_those_are_asked_that_may_be() -> None:
    async with misled("127.0.0.1") as (it, dns, prey, told):
        dns.next = ("127.0.0.2", "127.0.0.1", "169.254.169.254")
        assert await looked_at(it, prey.port) == ["syd"]
        assert await it.speak() == AUDIO
        assert told[0][1].startswith("its name leads to 127.0.0.2 (loopback), 169.254.169.254 (a metadata service): ")
        dns.next = ("127.0.0.1",)
        await looked_at(it, prey.port)
        assert (len(told), prey.connections) == (1, 0)


async def test_24_a_name_that_never_led_anywhere_else_is_not_asked_at_all() -> None:
    async with misled("127.0.0.2") as (it, dns, prey, _):
        with pytest.raises(UpstreamFault, match=r"its name leads to 127\.0\.0\.2 \(loopback\): not in pool.allow_netw"):
            await it.speak()
        await it.fleet.probe_once("syd")
        assert "127.0.0.2 (loopback)" in it.fleet.status()[0].last_fault
        dns.next = ("127.0.0.1",)
        assert await it.speak() == AUDIO
        assert prey.connections == 0


# As an operator meets it. `127.1` is no address to an edge and one to every system's resolver, so it is a name that leads to
# this machine, wherever the test runs.


def of(port: int, allowed: list[str]) -> dict[str, Any]:
    """As patient as a busy machine needs it."""
    timeouts = {"connect": "30s", "first_byte": "30s", "between_bytes": "30s", "total": "60s"}
    pool, probing = {"allow_networks": allowed}, {"timeout": "30s"}
    return daemons.config(f"http://127.1:{port}", pool=pool, probing=probing, timeouts=timeouts)


def written(path: Path, port: int, allowed: list[str]) -> Path:
    path.write_text(json.dumps(of(port, allowed)))
    return path


@pytest.mark.parametrize("allowed", [[], ["127.0.0.0/8"]], ids=["refused", "allowed"])
async def test_24_an_operator_is_told_and_may_allow_it(tmp_path: Path, allowed: list[str]) -> None:
    async with demo() as near, daemons.daemons() as start, aiohttp.ClientSession() as client:
        port = int(near.url.rpartition(":")[2])
        checked = await asyncio.to_thread(
            run, "check", "-c", str(written(tmp_path / "edge.yaml", port, allowed)), "--probe", "--json"
        )
        (finding,) = [each for each in json.loads(checked.stdout)["findings"] if each["what"] == "cluster c0"]
        edge = await start.serve(of(port, allowed))
        async with client.post(f"{edge.url}/v1/tts", json={"text": "hello"}) as answer:
            assert answer.status == (200 if allowed else 503)
        if allowed:
            assert finding["level"] == "ok"
            assert edge.logged("an address of a cluster was refused") == []
            return
        why = "its name leads to 127.0.0.1 (loopback): not in pool.allow_networks"
        assert (finding["level"], why in finding["told"]) == ("error", True)
        assert near.counters.requests == 0
        await edge.until(lambda: bool(edge.logged("an address of a cluster was refused")))
        (said,) = edge.logged("an address of a cluster was refused")
        assert (said["host"], said["reason"]) == ("127.1", why)
        (upstream,) = (await edge.admin("/clusters"))[1]["upstreams"]
        assert why in upstream["last_fault"]
        assert upstream["faults"] == {"misled": 1}
