"""`bench.beside`: the edge keeps its promises, who only passes on does not, and what a client hears is judged right."""

import asyncio

import pytest

from bench.beside import trouble, whole
from bench.beside.acts import SPEECH_BYTES, Act, read_act, speech, told
from bench.beside.asking import Heard, hear, request
from bench.beside.looking import look
from bench.beside.looks import Seen, Situation
from bench.beside.promises import PROMISED, broken, table
from bench.beside.servers import SERVERS, Server
from bench.houses import plain

SITUATIONS = {each.name: each for each in (*whole.SITUATIONS, *trouble.SITUATIONS)}
#: A cluster waits so long for all to have heard it, on however busy a machine.
PATIENCE_S = 30.0


def seen(who: Server, *names: str) -> dict[str, Seen]:
    found = dict(look(who, [SITUATIONS[name] for name in names], PATIENCE_S, print))
    print(found)
    return found


def broken_by(who: Server, *names: str) -> list[str]:
    return [fault for name, each in seen(who, *names).items() for fault in broken(name, each)]


@pytest.mark.timeout(400)
def test_the_edge_keeps_its_promises() -> None:
    edge = SERVERS[0]
    alike = ("order", "escapes", "defaults", "traced", "rate", "twice")
    assert broken_by(edge, *alike, "json", "short", "cookie", "purge", "together", "leaves") == []


@pytest.mark.timeout(400)
def test_the_edge_keeps_them_when_a_cluster_breaks_off() -> None:
    assert broken_by(SERVERS[0], "cut-close") == []


@pytest.mark.timeout(400)
def test_who_only_passes_on_breaks_them() -> None:
    passing = Server("plain", "plain", lambda _, ports: plain("proxy", f"http://127.0.0.1:{ports.near}"))
    assert broken_by(passing, "order", "traced", "json", "short") == [
        "order: syntheses is 2, promised is 1",
        "traced: syntheses is 2, promised is 1",
        "json: served is True, promised is False",
    ]


ENDS = {
    "its length": (b"Content-Length: 4\r\n\r\nwave", "whole", b"wave"),
    "less than its length": (b"Content-Length: 9\r\n\r\nwave", "broken off", b"wave"),
    "chunks": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nwa\r\n2\r\nve\r\n0\r\n\r\n", "whole", b"wave"),
    "chunks without the last": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nwa\r\n2\r\nve\r\n", "broken off", b"wave"),
    "half a chunk": (b"Transfer-Encoding: chunked\r\n\r\n4\r\nwa", "broken off", b"wa"),
    "the connection's end": (b"\r\nwave", "unframed", b"wave"),
    "half a head": (b"Content-Le", "broken off", b""),
}


@pytest.mark.parametrize(("answer", "ended", "body"), ENDS.values(), ids=ENDS)
def test_what_a_client_hears_is_judged_by_how_it_ends(answer: bytes, ended: str, body: bytes) -> None:
    heard = asyncio.run(_heard(b"HTTP/1.1 200 OK\r\n" + answer))
    assert (heard.ended, heard.body) == (ended, body)


async def _heard(answer: bytes) -> Heard:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        return await hear(server.sockets[0].getsockname()[1], request(b""))


def test_no_two_syntheses_are_alike() -> None:
    said = {"text": "Hello.", "voice_id": "ava"}
    spoken = [speech(said, 0), speech(said, 1), speech({**said, "voice_id": "ben"}, 0)]
    assert len(set(spoken)) == 3
    assert {len(each) for each in spoken} == {SPEECH_BYTES}


def test_a_cluster_is_told_an_act_as_it_is() -> None:
    act = Act(503, framing="length", sent=0.5, headers={"Retry-After": "3"})
    assert read_act(told(act)) == act


def test_promises_are_of_situations_that_there_are() -> None:
    assert PROMISED.keys() <= SITUATIONS.keys()


@pytest.mark.parametrize(
    ("facts", "faults"),
    [
        ({"syntheses": 1}, []),
        ({"syntheses": 2}, ["order: syntheses is 2, promised is 1"]),
        ({}, ["order: syntheses is None, promised is 1"]),
    ],
)
def test_what_was_promised_is_compared(facts: dict[str, int], faults: list[str]) -> None:
    assert broken("order", Seen("", facts)) == faults


def test_the_table_has_a_line_for_each_situation_and_a_column_for_each_server() -> None:
    async def nothing(_: object) -> Seen:
        return Seen("", {})

    rows = [Situation("one", "the first", nothing), Situation("two", "the second", nothing)]
    found = {"a": {"one": Seen("yes", {}), "two": Seen("no", {})}, "b": {"two": Seen("perhaps", {})}}
    assert table(rows, found, {"a": "Anne", "b": "Bob"}) == (
        "            Anne  Bob\n"
        "the first   yes   -\n"
        "the second  no    perhaps"
    )  # fmt: skip
