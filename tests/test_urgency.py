"""`Priority: u=7` (RFC 9218): a client may stand behind all others, never before them, and hears the same as they do."""

import asyncio
from functools import partial

import aiohttp
import pytest

from edgecache.cache.status import WARM_UP
from edgecache.clusters.cluster import Cluster
from edgecache.delivery.urgency import urgency
from edgecache.fill.limits import FillLimits
from edgecache.fill.priority import Priority
from edgecache.fill.shedding import Shed
from edgecache.settings import Settings
from tests.houses import PATIENT, House, cluster, house, running, settings
from tests.scripted_upstream import ScriptedUpstream, chunked
from tests.sounds import WAV

LATER = {"Priority": "u=7"}

READ = [
    ((), False), (("u=7",), True), (("i, u=7",), True), (("u=7;x=1 , i",), True), (("u=3", "u=7"), True),
    (("u=7", "u=1"), False), (("u=7, u",), False), (("u=0",), False), (("u=5, i",), False), (("u=6",), False),
    (("u=70",), False), (("u=-7",), False), (("u=7.0",), False), (("U=7",), False), (("uu=7",), False), (('"u=7',), False),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "later"), READ)
def test_what_a_priority_asks_for(lines: tuple[str, ...], later: bool) -> None:
    assert urgency(lines) is (Priority.WARM_UP if later else Priority.INTERACTIVE)


def of_one_voice(url: str) -> Settings:
    """A cluster with room for one, for which anyone waits as long as it takes."""
    patient = FillLimits(wait_s=30.0, wait_later_s=30.0, shed=Shed(lag_later_s=60.0, lag_s=60.0))
    only = Cluster(name="c0", url=url, max_in_flight=1)
    return settings(url, clusters=(only,), timeouts=PATIENT, fills=patient)


async def stalling(here: House) -> aiohttp.ClientResponse:
    """Speech that takes that room: it has begun, and says no more until it is released."""
    asked = {"text": "first", "demo": {"stall_after_bytes": 100}}
    answer = await here.client.post(f"{here.url}/v1/tts", json=asked)
    assert await answer.content.readany()
    return answer


async def queued(here: House, text: str, **headers: str) -> "asyncio.Task[object]":
    """A request that waits for room behind the one that stalls."""
    before = here.node.fills.admission.status()["waiting"]
    asked = asyncio.create_task(here.say(text, headers=headers))
    while here.node.fills.admission.status()["waiting"] == before:
        await asyncio.sleep(0)
    return asked


def _note(order: list[str], name: str, _: object) -> None:
    order.append(name)


@pytest.mark.net
@pytest.mark.parametrize("headers", [LATER, {"Priority": "u=0"}, {"Priority": "u=0, i"}], ids=str)
async def test_whoever_says_so_waits_behind_all_and_nobody_gets_ahead(headers: dict[str, str]) -> None:
    async with cluster() as origin:
        narrow = of_one_voice(origin.url)
        async with running(narrow) as node, house() as other:
            here = House(origin, node, other.client)
            first = await stalling(here)
            waiting = [await queued(here, "marked", **headers), await queued(here, "plain")]
            order: list[str] = []
            for name, task in zip(("marked", "plain"), waiting, strict=True):
                task.add_done_callback(partial(_note, order, name))
            by_priority = node.fills.admission.waiting
            origin.release()
            await asyncio.gather(first.read(), *waiting)
    assert by_priority["warm-up"] == (headers is LATER)
    assert order == (["plain", "marked"] if headers is LATER else ["marked", "plain"])


@pytest.mark.net
async def test_a_long_text_stays_behind_with_every_sentence() -> None:
    async with cluster() as origin:
        narrow = of_one_voice(origin.url)
        async with running(narrow) as node, house() as other:
            here = House(origin, node, other.client)
            first = await stalling(here)
            sentences = "One sentence that is long enough. Another one that is long enough. A third one of that length."
            body = {"text": sentences, "chunking": "sentence"}
            long = asyncio.create_task(here.client.post(f"{here.url}/v1/tts", json=body, headers=LATER))
            while sum(node.fills.admission.waiting.values()) < 3:
                await asyncio.sleep(0)
            by_priority = node.fills.admission.waiting
            origin.release()
            await first.read()
            answer = await long
            assert answer.status == 200
            await answer.read()
    assert by_priority == {"interactive": 0, "look-ahead": 0, "prefetch": 0, "warm-up": 3}


@pytest.mark.net
async def test_it_is_part_of_no_key_goes_nowhere_and_is_counted_apart() -> None:
    async with ScriptedUpstream([chunked(WAV)]) as upstream, running(settings(upstream.url)) as node, house() as other:
        here = House(other.origin, node, other.client)
        bodies = []
        for headers in (LATER, {}, LATER, {}, {}, LATER):
            asked = {"text": "Hello"}
            async with here.client.post(f"{here.url}/v1/tts", json=asked, headers=headers) as answer:
                bodies.append((await answer.read(), "; hit;" in answer.headers["Cache-Status"]))
        counted = {(each.kind.route, each.kind.result.value): (each.exchanges, each.saved) for each in node.tally}
    assert bodies == [(WAV, number > 0) for number in range(6)]
    assert len(upstream.requests) == 1
    assert "priority" not in upstream.requests[0].headers
    assert counted == {
        (WARM_UP, "miss"): (1, 0),
        (WARM_UP, "hit_memory"): (2, 0),
        ("/v1/tts", "hit_memory"): (3, 3),
    }
    assert [(each.streams, each.first_byte.count) for each in node.tally.listened.values()] == [(0, 0)]
