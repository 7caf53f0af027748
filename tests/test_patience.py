"""A time-out that is over when it should be, and gives a moment more when it is this process that stood still."""

import asyncio
import socket
import threading
import time

import pytest

from edgecache.clock import SystemClock
from edgecache.clusters import wire
from edgecache.clusters.cluster import Pool
from edgecache.clusters.patience import Patience
from edgecache.clusters.resolving import Resolver
from edgecache.clusters.switchboard import Switchboard


async def test_it_is_over_when_it_is() -> None:
    began_s = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Patience(0.05):
            await asyncio.Event().wait()
    assert time.monotonic() - began_s >= 0.045


async def test_what_was_ended_is_never_over() -> None:
    async with Patience(0.01) as patience:
        patience.end()
        await asyncio.sleep(0.03)


@pytest.mark.parametrize("within_s", [-0.01, -1.0], ids=["just over", "long over"])
async def test_time_that_is_over_before_it_begins_is_over(within_s: float) -> None:
    with pytest.raises(TimeoutError):
        async with Patience(within_s):
            await asyncio.Event().wait()


async def test_a_second_wait_after_the_process_stood_still_has_its_moments_too() -> None:
    """A head is heard in the moments of the first; the audio behind it comes one turn of the loop later."""
    async with Patience(-1.0):
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.mark.parametrize("said", [True, False], ids=["was said", "was not"])
async def test_what_was_said_while_the_process_stood_still_is_heard(said: bool) -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    saying = threading.Timer(0.2, theirs.send, (b"here",))
    try:
        if said:
            saying.start()
        assert await heard(reader) == (b"here" if said else b"")
    finally:
        saying.cancel()
        writer.close()
        await writer.wait_closed()
        theirs.close()


async def heard(reader: asyncio.StreamReader) -> bytes:
    """What comes within a time that is over when this process goes on."""
    try:
        async with Patience(0.1):
            await asyncio.sleep(0)
            time.sleep(0.5)  # noqa: ASYNC251 - that is the fault
            return await reader.read(4)
    except TimeoutError:
        return b""


async def test_what_lies_in_the_socket_is_heard_though_the_time_has_only_just_passed() -> None:
    """It stood still, while something else was read, until shortly after the time: the timer is hardly late, and comes
    before the bytes are read."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    wake, woken = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)

    def stand_still() -> None:
        loop.remove_reader(woken)
        theirs.send(b"here")
        time.sleep(0.55)

    with wake, woken, theirs:
        loop.add_reader(woken, stand_still)
        async with Patience(1.0):
            loop.call_later(0.5, wake.send, b"now")
            assert await reader.read(4) == b"here"
        writer.close()
        await writer.wait_closed()


async def test_other_errors_and_cancellation_pass() -> None:
    with pytest.raises(ZeroDivisionError):
        async with Patience(1.0):
            _ = 1 / 0
    with pytest.raises(asyncio.CancelledError):
        async with Patience(1.0):
            raise asyncio.CancelledError


@pytest.mark.parametrize("turns", range(4))
async def test_a_connection_that_was_made_while_the_process_stood_still_is_made(turns: int) -> None:
    """Else it would be the cluster's failure. turns: of the event loop, after which it stands still."""
    board = Switchboard(Pool(1, 1), Resolver(300.0, SystemClock()))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        to = wire.target(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        connecting = asyncio.create_task(board.take(to.peer, asyncio.get_running_loop().time() + 30, 0.05))
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 - it stands still
        (await connecting).drop()
        board.close()
