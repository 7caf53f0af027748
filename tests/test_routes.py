"""Routes, with whole edges and clusters: what must stay in its groups goes nowhere else, whatever happens there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import aiohttp
import pytest

from edgecache.clusters.cluster import Cluster
from edgecache.clusters.routing import Route
from edgecache.demo.origin import Origin
from edgecache.node import Node
from tests.houses import Heard, cluster, running, settings

EU = Route("eu-only", ("eu",), languages=("de", "de-*"))
STUDIO = Route("studio", ("studio",), voices=("t*",))


@dataclass
class World:
    """Two clusters, of which `eu` alone is in the group `eu`, and an edge that is as near to both."""

    eu: Origin
    us: Origin
    node: Node
    client: aiohttp.ClientSession

    async def say(self, text: str, **fields: str) -> Heard:
        asked = {"text": text, **fields}
        async with self.client.post(f"http://127.0.0.1:{self.node.port}/v1/tts", json=asked) as answer:
            return await Heard.of(answer, asked)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with cluster() as eu, cluster() as us:
        clusters = (
            Cluster(name="us", url=us.url, groups=("us",)),
            Cluster(name="eu", url=eu.url, groups=("eu", "studio")),
        )
        of = replace(settings(), clusters=clusters, routes=(EU, STUDIO))
        async with running(of) as node, aiohttp.ClientSession() as client:
            yield World(eu, us, node, client)


@pytest.mark.parametrize("fields", [{"language": "de"}, {"language": "de-AT"}, {"voice_id": "tone"}])
async def test_what_a_route_is_for_goes_to_its_group(fields: dict[str, str]) -> None:
    async with world() as it:
        for n in range(4):
            assert (await it.say(f"Grüße {n}", **fields)).status == 200
        assert (it.eu.counters.requests, it.us.counters.requests) == (4, 0)


async def test_rule_8_text_that_must_stay_in_eu_never_leaves_it() -> None:
    async with world() as it:
        known = await it.say("Bekannt", language="de")
        await it.eu.close()
        for n in range(8):  # before it is ejected, and after
            refused = await it.say(f"Geheim {n}", language="de")
            assert (refused.status, refused.code) == (503, "no_cluster")
            assert "The route eu-only keeps this utterance in its groups" in refused.body.decode()
            assert int(refused.headers["Retry-After"]) >= 1
        assert it.us.counters.requests == 0
        assert (await it.say("Open", language="en")).status == 200
        assert it.us.counters.requests == 1
        assert (await it.say("Bekannt", language="de")).body == known.body, "a hit leaves nothing"
