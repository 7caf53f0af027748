"""What is asked for again and again is sent without a copy: the same bytes, whole, and never those of another recording."""

import asyncio
import gc
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from edgecache.cache.key import Key
from edgecache.delivery.connection import Connection
from edgecache.delivery.fastlane import HOT_HITS, HOT_S
from edgecache.delivery.limits import FastLane
from edgecache.delivery.sheets import LEAST_BYTES, SHEETS_AT_MOST, Outlet, Sheets
from edgecache.portions import FEW_DESCRIPTORS, fitted
from tests.fake_clock import FakeClock
from tests.houses import settings
from tests.test_fastlane import Talk, Told, answered, post, talking

pytestmark = [
    pytest.mark.net,
    pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files without names"),
    pytest.mark.skipif(
        resource.getrlimit(resource.RLIMIT_NOFILE)[1] < FEW_DESCRIPTORS, reason="few descriptors: there are no sheets"
    ),
]

SIZE = 32 << 10


def asking(size: int = SIZE, text: str = "Said again") -> bytes:
    return post(body=b'{"text":"%s","demo":{"bytes":%d,"take":true}}' % (text.encode(), size))


def sheets(line: Talk) -> tuple[int, int]:
    told = line.node.status()["fast_lane"]
    assert isinstance(told, dict)
    return told["sheets"], told["sheet_bytes"]


async def warmed(line: Talk, clock: FakeClock, request: bytes) -> Told:
    """Asks until there is a sheet, if there is to be one; what was told before it."""
    before = await line.known(request)
    for _ in range(3):  # the edge itself counts hits now and then, and may do so in between
        await line.ask(*[request] * (HOT_HITS + 2))  # some are read before the bytes as such are known
        clock.advance(1)
        await line.ask(request)
        if sheets(line)[0]:
            break
    return before


async def test_what_is_hot_has_a_sheet_for_as_long_as_it_is() -> None:
    clock = FakeClock()
    async with talking(clock) as line:
        before = await warmed(line, clock, asking())
        already = answered(line.node)
        for _ in range(HOT_HITS):
            told = await line.ask(asking())
            assert (told.status, told.body) == (200, before.body)
        assert answered(line.node) == already + HOT_HITS
        assert sheets(line) == (1, SIZE)
        clock.advance(HOT_S - 0.1)
        await line.ask(asking())
        assert sheets(line) == (1, SIZE)
        clock.advance(0.1)
        assert sheets(line) == (0, 0)
        assert (await line.ask(asking())).body == before.body


COLD: dict[str, tuple[int, FastLane]] = {
    "too small": (LEAST_BYTES - 2, FastLane()),
    "no room": (SIZE, FastLane(sheets_bytes=SIZE - 1)),
    "off": (SIZE, FastLane(sheets_bytes=0)),
}


@pytest.mark.parametrize(("size", "lane"), COLD.values(), ids=COLD)
async def test_others_are_told_as_ever(size: int, lane: FastLane) -> None:
    clock = FakeClock()
    async with talking(clock, fast_lane=lane) as line:
        before = await warmed(line, clock, asking(size))
        assert sheets(line) == (0, 0)
        assert (await line.ask(asking(size))).body == before.body


async def test_rule_1_a_new_take_is_never_told_with_the_old_ones_sheet() -> None:
    clock = FakeClock()
    async with talking(clock) as line:
        old = await warmed(line, clock, asking())
        line.node.tiers.discard(Key(old.headers["Content-Location"].rpartition("/")[2]))
        assert sheets(line) == (0, 0)
        new = await line.ask(asking())
        assert ("; hit; " in new.cache, new.body == old.body) == (False, False)
        assert (await warmed(line, clock, asking())).body == new.body
        assert (await line.ask(asking())).body == new.body
        assert sheets(line) == (1, SIZE)


def narrow(fd: int, buffer: int, size: int) -> None:
    with socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM) as end:
        end.setsockopt(socket.SOL_SOCKET, buffer, size)


async def test_a_client_that_reads_slowly_gets_all_of_it() -> None:
    """What the socket does not take of a sheet is the transport's to send, from where the kernel stopped."""
    clock, size = FakeClock(), 256 << 10
    async with talking(clock) as line:
        (connection,) = line.node._server.connections  # type: ignore[union-attr]
        assert isinstance(connection, Connection)
        narrow(
            line.writer.get_extra_info("socket").fileno(), socket.SO_RCVBUF, 64 << 10
        )  # it would grow while it is read from
        before = await warmed(line, clock, asking(size))
        narrow(connection._fd, socket.SO_SNDBUF, 8 << 10)
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        line.writer.write(asking(size))
        while connection.transport is not None and not connection.transport.get_write_buffer_size():
            await asyncio.sleep(0)
        line.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await line.told()).body == before.body
        assert (await line.ask(asking(size))).body == before.body
        assert sheets(line) == (1, size)


def opened() -> int:
    """How many sheets this process has open."""
    fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sum("memfd:edgecache" in os.readlink(fd) for fd in fds if os.path.islink(fd))


async def test_no_descriptor_is_left_behind() -> None:
    clock = FakeClock()
    gc.collect()  # edges of other tests, and their sheets
    before = opened()
    async with talking(clock) as line:
        await warmed(line, clock, asking())
        assert (sheets(line), opened()) == ((1, SIZE), before + 1)
        clock.advance(HOT_S)
        assert (sheets(line), opened()) == ((0, 0), before)


# By themselves.


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with socket.create_connection(listening.getsockname()) as one:
            other, _ = listening.accept()
            with other:
                one.setblocking(False)
                yield one, other


async def test_what_is_on_its_way_stays_what_it_was_when_the_sheet_is_gone() -> None:
    async with pair() as (ours, theirs):
        together, outlet = Sheets(1 << 20), Outlet(ours.fileno())
        audio = os.urandom(64 << 10)
        sheet = together.make(audio)
        assert sheet is not None
        sent = outlet.send(b"head", sheet)
        outlet.close()
        del sheet
        assert (together.count, together.held_bytes) == (0, 0)
        assert together.make(bytes(64 << 10)) is not None
        got = b""
        while len(got) < sent:
            got += theirs.recv(1 << 20)
        assert got == (b"head" + audio)[:sent]


async def test_a_client_that_is_gone_takes_nothing() -> None:
    async with pair() as (ours, theirs):
        sheet, outlet = Sheets(1 << 20).make(bytes(SIZE)), Outlet(ours.fileno())
        assert sheet is not None
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        assert outlet.send(b"head", sheet) == 0
        outlet.close()
        assert ours.fileno() >= 0


def test_rule_7_there_are_only_so_many() -> None:
    together = Sheets(1 << 30)
    kept = [together.make(bytes(LEAST_BYTES)) for _ in range(SHEETS_AT_MOST + 1)]
    assert (together.count, kept[-1]) == (SHEETS_AT_MOST, None)
    kept.clear()
    assert together.count == 0


def test_without_a_descriptor_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert Sheets(1 << 20).make(bytes(SIZE)) is None


@pytest.mark.parametrize(("descriptors", "some"), [(FEW_DESCRIPTORS - 1, False), (FEW_DESCRIPTORS, True)])
def test_few_descriptors_are_kept_for_connections(descriptors: int, some: bool) -> None:
    assert (fitted(settings("http://127.0.0.1:9"), descriptors).fast_lane.sheets_bytes > 0) == some
