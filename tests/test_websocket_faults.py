"""Hostile and broken WebSocket clients, in raw frames (faults 72 and 73): a clear close code, and nothing that grows."""

import asyncio
import gc
import json
import struct
from pathlib import Path

import pytest

from edgecache.delivery.limits import WebSockets
from edgecache.demo import tone
from tests.houses import house
from tests.sockets import Raw, frame, hear, raw_session, say, with_websockets

pytestmark = pytest.mark.net

TEXT, BINARY, CONTINUED, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
HELLO = json.dumps({"text": "Hello"}).encode()

#: What is sent, and the code it is answered with. 1006: the connection ends without one.
FAULTS: list[tuple[str, bytes, int]] = [
    ("a frame of 2^63 - 1 bytes", b"\x81\xff" + struct.pack(">Q", 2**63 - 1) + b"mask" + b"x" * 100, 1009),
    ("a frame of 2^64 - 1 bytes", b"\x81\xff" + b"\xff" * 8 + b"mask", 1009),
    ("one byte too many", frame(TEXT, b"x" * 65_537), 1009),
    ("fragments of too much", frame(TEXT, b"x" * 40_000, fin=False) + frame(CONTINUED, b"x" * 40_000), 1009),
    ("many small fragments", frame(TEXT, b"x", fin=False) + frame(CONTINUED, b"x" * 100, fin=False) * 700, 1009),
    ("text that is not UTF-8", frame(TEXT, b"\xff\xfe"), 1007),
    ("half a character at the end", frame(TEXT, b"\xc3", fin=False) + frame(CONTINUED, b"", fin=True), 1007),
    ("RSV1", frame(TEXT, HELLO, rsv=4), 1002),
    ("RSV2", frame(TEXT, HELLO, rsv=2), 1002),
    ("RSV3", frame(PING, b"", rsv=1), 1002),
    ("an unknown opcode", frame(3, HELLO), 1002),
    ("an unknown control", frame(11), 1002),
    ("a continuation of nothing", frame(CONTINUED, HELLO), 1002),
    ("text within a text", frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    ("a ping in fragments", frame(PING, b"", fin=False), 1002),
    ("a ping of 126 bytes", frame(PING, b"x" * 126), 1002),
    ("a close of one byte", frame(CLOSE, b"\x03"), 1002),
    ("a close with a code that is none", frame(CLOSE, struct.pack(">H", 999)), 1002),
    ("a ping flood", frame(PING) * 500, 1008),
    ("a text flood", frame(TEXT, b"{}") * 500, 1008),
]


@pytest.mark.parametrize(("sent", "code"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
async def test_a_fault_has_its_code_and_ends_the_session(sent: bytes, code: int) -> None:
    async with house() as home:
        async with raw_session(home.node.port) as session:
            session.writer.write(sent)
            assert await session.close_code() == code
        async with asyncio.timeout(10):
            while len(home.node.sockets):
                await asyncio.sleep(0.01)
        async with with_websockets(home.node.port, {}, ()) as client:
            await say(client, text="Hello")
            assert (await hear(client)).audio == tone.audio({"text": "Hello"})


BYTES = [bytes([each]) for each in HELLO]
WELL = [
    (
        "in frames of one byte",
        frame(TEXT, BYTES[0], fin=False)
        + b"".join(frame(CONTINUED, each, fin=False) for each in BYTES[1:])
        + frame(CONTINUED),
    ),
    ("with a ping within", frame(TEXT, HELLO[:5], fin=False) + frame(PING, b"hi") + frame(CONTINUED, HELLO[5:])),
    (
        "behind empty fragments",
        frame(TEXT, fin=False) + frame(CONTINUED, fin=False) * 50 + frame(CONTINUED, HELLO),
    ),
    ("behind a pong that nobody asked for", frame(PONG, b"x") + frame(TEXT, HELLO)),
]


@pytest.mark.parametrize("sent", [row[1] for row in WELL], ids=[row[0] for row in WELL])
async def test_what_is_well_formed_is_answered_however_it_is_cut(sent: bytes) -> None:
    async with house() as home:
        for step in (len(sent), 7, 1):
            async with raw_session(home.node.port) as session:
                for at in range(0, len(sent), step):
                    session.writer.write(sent[at : at + step])
                    await session.writer.drain()
                assert await _audio(session) == tone.audio({"text": "Hello"})


async def _audio(session: Raw) -> bytes:
    audio = b""
    while True:
        opcode, content = await session.frame()
        if opcode == BINARY:
            audio += content
        elif opcode == TEXT:
            assert json.loads(content)["type"] == "synthesis_complete", content
            return audio
        else:
            assert (opcode, content) == (PONG, b"hi")


async def test_rule_7_incomplete_frames_hold_no_memory() -> None:
    """Each announces 2^62 bytes, within the bound of none; and each holds back a message of 60 KB."""
    async with house() as home:
        async with raw_session(home.node.port), raw_session(home.node.port):
            before = _resident_bytes()
        sessions = [raw_session(home.node.port) for _ in range(100)]
        for each in sessions:
            raw = await each.__aenter__()
            raw.writer.write(frame(TEXT, b"x" * 60_000, fin=False) + frame(CONTINUED, b"", fin=False) * 500)
        async with asyncio.timeout(10):
            while len(home.node.sockets) < 100:
                await asyncio.sleep(0.01)
        for each in sessions:
            await each.__aexit__(None, None, None)
        async with asyncio.timeout(10):
            while len(home.node.sockets):
                await asyncio.sleep(0.01)
        gc.collect()
        assert _resident_bytes() - before < 64 << 20


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_a_close_storm() -> None:
    async with house() as home:
        for _ in range(30):
            async with raw_session(home.node.port) as session:
                session.writer.write(frame(TEXT, HELLO) * 3 + frame(CLOSE, b"\x03\xe8") * 20)
                assert await session.close_code() == 1000
        async with asyncio.timeout(10):
            while len(home.node.sockets):
                await asyncio.sleep(0.01)
        assert home.node.fills.held_bytes == 0


async def test_a_client_that_vanished_is_noticed_within_two_heartbeats() -> None:
    """It answers no ping, as if its packets were dropped; one that does answer stays."""
    heartbeat_s = 0.4
    async with (
        house(websockets=WebSockets(heartbeat_s=heartbeat_s)) as home,
        raw_session(home.node.port) as silent,
        with_websockets(home.node.port, {}, ()) as alive,
    ):
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        assert (await silent.frame())[0] == PING
        pinged_s = loop.time()
        assert await silent.close_code() == 1006
        # Sooner than it may be would be a fault too; later than this only on a very busy machine.
        assert heartbeat_s <= loop.time() - began_s
        assert loop.time() - pinged_s < heartbeat_s * 25
        while len(home.node.sockets) > 1:
            await asyncio.sleep(0.01)
        await say(alive, text="Hello")
        assert (await hear(alive)).audio == tone.audio({"text": "Hello"})
