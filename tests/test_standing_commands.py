"""`edgecache status`, `stats`, `inspect` and `drain`, as processes, against edges of one worker and of two."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from edgecache.delivery.auth import Auth, new_key
from edgecache.ops import watching
from edgecache.settings import Cache
from tests.commands import Ran, ran
from tests.daemon import HANG_S, Daemon, config, daemons
from tests.houses import House, cluster, house, keys_file, with_redis
from tests.redis_houses import written
from tests.redis_server import RedisServer

pytestmark = pytest.mark.net
SECRET = "My account number is 4711."


async def asked(here: House, *arguments: str) -> Ran:
    return await ran(*arguments, "--admin", f"http://127.0.0.1:{here.node.admin_port}")


def where(daemon: Daemon) -> tuple[str, str]:
    return "--admin", f"http://127.0.0.1:{daemon.admin_port}"


async def test_stats_count_what_was_asked_for_and_what_it_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "FRESH_S", 0.0)
    async with house() as here:
        for text in ("One", "One", "One", "Two"):
            await here.say(text)
        await here.say("Three", headers={"Priority": "u=7"})
        told = (await asked(here, "stats", "--json")).told
        people = await asked(here, "stats")
    assert told["requests"] == {"hit_memory": 2, "miss": 2}
    assert told["warm_up"] == {"miss": 1}
    assert told["hit_ratio"] == {"memory": 0.5, "redis": 0.0, "joined": 0.0, "hit": 0.5}
    assert (told["saved"]["syntheses"], told["saved"]["characters"]) == (2, 6)
    assert told["held"]["recordings"] == 3
    assert told["held"]["memory_bytes"] == here.node._memory.held_bytes
    assert "50.0% (memory 50.0%" in people.out
    assert "4 (2 hit_memory, 2 miss)" in people.out or "4 (2 miss, 2 hit_memory)" in people.out


async def test_status_says_how_it_stands_and_why_it_is_not_ready() -> None:
    async with house() as here:
        await here.say("One")
        well = await asked(here, "status")
        here.node._fleet.drain("c0", drained=True)
        told = (await asked(here, "status", "--json")).told
        await asked(here, "drain")
        drained = await asked(here, "status")
    assert well.code == 0
    for words in ("test-edge", "ready", "yes", "1 recordings", "cluster c0", "up, rtt", "redis        off", "serving"):
        assert words in well.out
    assert (told["ready"], told["processes"][0]["pid"], told["upstreams"][0]["drained"]) == (True, os.getpid(), True)
    assert "no (draining: drained by an operator" in drained.out
    assert "drain (" in drained.out


@pytest.mark.redis
async def test_inspect_tells_the_facts_of_a_recording_and_not_what_it_says(redis_server: RedisServer) -> None:
    async with house(cache=with_redis(redis_server.url)) as here:
        said = await here.say(SECRET, demo={"tags": "bank news"}, voice_id="tone")
        await written(here.node)
        key = said.headers["Content-Location"].rpartition("/")[2]
        tags = ("--field", 'demo={"tags": "bank news"}', "--voice", "tone")
        told = (await asked(here, "inspect", key, "--json")).told
        by_text = (await asked(here, "inspect", "--text", SECRET, *tags, "--json")).told
        people = await asked(here, "inspect", key)
        shown = await asked(here, "inspect", key, "--show-text")
        here.node._memory.discard(said_key := here.node._memory.keys()[0])
        in_redis = (await asked(here, "inspect", str(said_key), "--json")).told
    assert told["key"] == by_text["key"] == key
    assert (told["bytes"], told["media_type"], told["cluster"]) == (len(said.body), "audio/wav", "c0")
    assert (told["verdict"], told["tiers"], told["characters"]) == ("hit", {"memory": 1, "redis": True}, len(SECRET))
    assert (told["tags"], told["namespace"]) == (["bank", "news"], "default")
    assert 86_000 < told["ttl_s"] <= 86_400
    assert told["utterance"]["voice_id"] == "tone"
    assert in_redis["tiers"] == {"memory": 0, "redis": True}
    for quiet in (people.out, str(told), str(by_text)):
        assert "4711" not in quiet
    assert SECRET in shown.out
    assert f"{len(said.body)} bytes, audio/wav" in people.out


async def test_inspect_of_what_is_not_there_says_so() -> None:
    async with house() as here:
        for code, why, arguments in (
            (1, "not_recorded", ("inspect", "0" * 64)),
            (1, "not_a_key", ("inspect", "abc")),
            (1, "not_recorded", ("inspect", "--text", "One")),
            (2, "KEY or --text", ("inspect",)),
            (2, "do not go together", ("drain", "--undo", "--stop")),
        ):
            ended = await asked(here, *arguments)
            assert (ended.code, why in ended.talk, ended.out) == (code, True, ""), ended.talk
            assert "see --admin" not in ended.talk


async def test_inspect_finds_what_a_tenant_has(tmp_path_factory: pytest.TempPathFactory) -> None:
    key, line = new_key("acme", None)
    auth = Auth(keys_file=str(keys_file(tmp_path_factory.mktemp("keys"), line)))
    async with house(auth=auth, cache=Cache()) as here:
        await here.say("One", headers={"X-API-Key": key})
        told = (await asked(here, "inspect", "--text", "One", "--namespace", "key-acme", "--json")).told
        by_key = (await asked(here, "inspect", "--text", "One", "--api-key", key, "--json")).told
        of_another = await asked(here, "inspect", "--text", "One", "--namespace", "key-other")
    assert told["namespace"] == by_key["namespace"] == "key-acme"
    assert of_another.code == 1


async def test_of_an_edge_with_keys_it_has_to_be_said_whose_text_is_meant(tmp_path: Path) -> None:
    """In the namespace of nobody there is nothing to find, and nothing to purge."""
    key, line = new_key("acme", None)
    async with house(auth=Auth(keys_file=str(keys_file(tmp_path, line))), cache=Cache()) as here:
        await here.say("One", headers={"X-API-Key": key})
        nobodys = [await asked(here, *each) for each in (("explain", "One"), ("purge", "--text", "One"))]
        unknown = await asked(here, "explain", "One", "--api-key", "ec_none")
        theirs = await asked(here, "explain", "One", "--api-key", key, "--json")
        purged = await asked(here, "purge", "--text", "One", "--namespace", "key-acme", "--json")
    assert [(each.code, "no_namespace" in each.talk) for each in nobodys] == [(1, True)] * 2
    assert (unknown.code, "invalid_api_key" in unknown.talk) == (1, True)
    assert (theirs.told["namespace"], theirs.told["verdict"]) == ("key-acme", "hit")
    assert purged.told["memory"]["recordings"] == 1


async def test_a_long_text_is_explained_as_it_is_spoken() -> None:
    """Sentence by sentence; so `hit` means that all of it is here."""
    first, second = "The first sentence is long enough.", "And so is the one that is the second."
    chunked = ("--field", "chunking=sentence")
    async with house() as here:
        await here.say(first)
        part = await asked(here, "explain", f"{first} {second}", *chunked)
        await here.say(second)
        whole = (await asked(here, "explain", f"{first} {second}", *chunked, "--json")).told
        inspected = await asked(here, "inspect", "--text", f"{first} {second}", *chunked)
        due = (await asked(here, "explain", second, "--json")).told["key"]
    assert "2: 1 hit, 1 miss" in part.out
    assert [line.split()[1] for line in part.out.splitlines() if line.startswith("verdict")] == ["miss"]
    assert (whole["verdict"], whole["sentences"]["verdicts"]) == ("hit", {"hit": 2})
    assert whole["sentences"]["each"][1]["key"] == due
    assert (inspected.code, "explain --json" in inspected.talk) == (2, True)


async def readiness(daemon: Daemon) -> tuple[int, str]:
    status, told = await daemon.admin("/readyz")
    return status, told["checks"].get("draining", "")


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_drained_edge_sends_clients_elsewhere_and_serves_who_comes(workers: int) -> None:
    async with cluster() as origin, daemons() as start:
        daemon = await start.serve(config(origin.url, workers=workers))
        told = (await ran("drain", "--json", *where(daemon))).told
        drained = await readiness(daemon)
        spoken = [await ran("say", "Hello", "-o", "-", "--url", daemon.url) for _ in range(2)]
        if workers > 1:
            before = await daemon.workers()
            os.kill(before[0], signal.SIGKILL)
            await daemon.until(lambda: bool(daemon.logged("a worker took its place")))
        succeeded = await readiness(daemon)
        undone = await ran("drain", "--undo", *where(daemon))
        await daemon.ready()
        ready = await readiness(daemon)
        code = await daemon.stopped()
    assert told == {"drained": True, "workers": workers}
    assert drained == succeeded == (503, "drained by an operator, who may undo it")
    assert [each.code for each in spoken] == [0, 0]
    assert undone.out == "Clients may come again.\n"
    assert ready == (200, "")
    assert code == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_drain_stop_ends_it_as_sigterm_does(workers: int) -> None:
    stalling = ("--field", 'demo={"stall_after_bytes": 100}')
    async with cluster() as origin, daemons() as start:
        patient = {"timeouts": {"between_bytes": "20s"}}
        daemon = await start.serve(config(origin.url, workers=workers, **patient))
        speaking = asyncio.create_task(ran("say", "Hello", *stalling, "-o", "-", "--url", daemon.url))
        await origin.until(lambda counters: counters.in_flight == 1)
        told = await ran("drain", "--stop", "--json", *where(daemon))
        await daemon.until(lambda: bool(daemon.logged("draining")))
        origin.release()
        code = await daemon.ended()
        async with asyncio.timeout(HANG_S):
            spoken = await speaking
    assert (told.code, told.told) == (0, {"stopping": True})
    assert code == 0
    assert (spoken.code, spoken.raw[:4]) == (0, b"RIFF"), "what was under way came to its end"


async def test_a_cluster_that_was_drained_stays_so_for_a_worker_that_comes_later() -> None:
    async with cluster() as one, cluster() as other, daemons() as start:
        daemon = await start.serve(config(one.url, other.url, workers=2))
        assert (await ran("clusters", "--drain", "c0", "--json", *where(daemon))).code == 0
        assert (await ran("clusters", "--drain", "none", *where(daemon))).code == 1
        os.kill((await daemon.workers())[0], signal.SIGKILL)
        await daemon.until(lambda: bool(daemon.logged("a worker took its place")))
        lines = len(daemon.logged("a cluster was drained"))
        told = (await ran("clusters", "--json", *where(daemon))).told
    assert lines == 3, "two workers, and one that came later"
    assert [each["drained"] for each in told["upstreams"] if each["cluster"] == "c0"] == [True]
