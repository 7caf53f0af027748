"""A flight passed on to one client: at once, in order, as fast as it is taken, and to a true end or none (rules 3 and 4)."""

import asyncio

import pytest

from edgecache.cache.key import Key
from edgecache.delivery.relay import relay
from edgecache.errors import SpeechError, UpstreamError
from edgecache.fill.flight import Flight, Head

HEAD = Head("audio/wav", "near", 0.1, 0.1, True)
BROKE = UpstreamError(502, "broken_off", "it broke")


class Client:
    """Takes all, unless it is slow: then it is behind after the next piece. Nothing may be put to one that is behind, or
    before the head went out."""

    def __init__(self) -> None:
        self.heard, self.begun, self.slow, self.behind, self.gone = b"", False, False, False, False
        self.has_room = asyncio.Event()

    async def write(self, chunk: bytes, audio_s: float, arrived_s: float) -> None:
        assert not self.begun, "the head went out before"
        await asyncio.sleep(0)
        self.heard, self.begun = self.heard + chunk, True

    def put(self, chunk: bytes, audio_s: float, arrived_s: float) -> bool:
        assert self.begun, "without a head"
        assert not self.behind, "written to one that is behind"
        if self.gone:
            raise ConnectionResetError
        self.heard += chunk
        self.behind = self.slow
        return not self.behind

    async def room(self) -> None:
        await self.has_room.wait()
        self.slow = self.behind = False


async def speaking(client: Client) -> tuple[Flight, "asyncio.Task[None]"]:
    """A flight of which the client has heard the first piece."""
    flight = Flight(Key("cd" * 32))
    flight.add(b"first ")
    flight.audible(HEAD)
    relaying = asyncio.create_task(relay(flight, client))
    await settled()
    assert client.heard == b"first "
    return flight, relaying


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_comes_is_written_before_the_fill_goes_on() -> None:
    client = Client()
    flight, relaying = await speaking(client)
    for word in (b"second ", b"third "):
        flight.add(word)
        assert client.heard.endswith(word)
    flight.end("unframed")
    await relaying
    assert (client.heard, flight.readers) == (b"first second third ", 0)


async def test_rule_4_who_is_behind_is_given_nothing_and_loses_nothing() -> None:
    client = Client()
    flight, relaying = await speaking(client)
    client.slow = True
    for word in (b"second ", b"third ", b"fourth "):
        flight.add(word)
    await settled()
    assert client.heard == b"first second "
    client.has_room.set()
    await settled()
    assert client.heard == b"first second third fourth "
    flight.add(b"fifth")
    assert client.heard.endswith(b"fifth")
    flight.end("unframed")
    await relaying


@pytest.mark.parametrize("behind", [False, True], ids=["who keeps up", "who is behind"])
async def test_rule_3_a_break_is_told_behind_all_that_came(behind: bool) -> None:
    client = Client()
    flight, relaying = await speaking(client)
    client.slow = behind
    flight.add(b"second ")
    flight.add(b"third")
    flight.fail(BROKE)
    await settled()
    assert relaying.done() is not behind
    client.has_room.set()
    with pytest.raises(SpeechError, match="broke"):
        await relaying
    assert (client.heard, flight.readers) == (b"first second third", 0)


async def test_one_that_is_gone_is_noticed_at_the_next_piece() -> None:
    client = Client()
    flight, relaying = await speaking(client)
    client.gone = True
    flight.add(b"second")
    with pytest.raises(ConnectionResetError):
        await relaying
    assert (flight.readers, flight.over) == (0, False)


async def test_one_that_is_given_up_takes_no_more() -> None:
    client = Client()
    flight, relaying = await speaking(client)
    relaying.cancel()
    flight.add(b"second")
    await asyncio.wait([relaying])
    flight.add(b"third")
    assert (relaying.cancelled(), flight.readers) == (True, 0)
    assert client.heard in (b"first ", b"first second")


async def test_a_fault_of_the_outlets_ends_its_own_relay_alone() -> None:
    said = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
    client, other = Client(), Client()
    flight, relaying = await speaking(client)
    second = asyncio.create_task(relay(flight, other))
    await settled()
    client.begun = False  # its next piece meets an assertion
    flight.add(b"second")
    flight.end("unframed")
    with pytest.raises(AssertionError, match="without a head"):
        await relaying
    await second
    assert (other.heard, len(said)) == (b"first second", 1)
