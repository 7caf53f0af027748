"""What is typed to ask an edge, and every answer that is none: read, refused, and never saved."""

import json
from pathlib import Path

import pytest

from edgecache.commands.addresses import address, listening
from edgecache.commands.asking import Target
from edgecache.commands.saying import Spoken, say, wanted
from edgecache.commands.terminal import Misused, Refused
from tests.command_line import answering

ADDRESSES: list[tuple[str, str | None]] = [
    ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
    ("127.0.0.1:8080", "http://127.0.0.1:8080"),
    ("localhost", "http://localhost:80"),
    ("https://tts.example", "https://tts.example:443"),
    ("http://[::1]:8080", "http://[::1]:8080"),
    ("http://127.0.0.1:8080/v1/tts", "http://127.0.0.1:8080"),
    ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080"),
    ("https://proxy.example/edge/", "https://proxy.example:443/edge"),
    ("", None),
    ("http://", None),
    ("http://:8080", None),
    ("http:/127.0.0.1", None),
    ("http://[::1", None),
    ("http://127.0.0.1:99999", None),
    ("http://127.0.0.1:0", None),
    ("http://127.0.0.1:http", None),
    ("http://127.0.0.1 ", None),
    ("http://127.0.0.1\n", None),
    ("http://tts.exämple", None),
    ("ftp://127.0.0.1", None),
    ("http://me:secret@127.0.0.1", None),
    ("http://127.0.0.1?x=y", None),
]


@pytest.mark.parametrize(("typed", "meant"), ADDRESSES, ids=[ascii(row[0]) for row in ADDRESSES])
def test_the_address_of_an_edge_as_it_is_typed(typed: str, meant: str | None) -> None:
    if meant is not None:
        assert str(address(typed)) == meant
        return
    with pytest.raises(Misused) as told:
        address(typed)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("typed", "host", "port"),
    [
        ("0.0.0.0:80", "0.0.0.0", "80"),
        ("[::1]:8080", "::1", "8080"),
        ("localhost:0", "localhost", "0"),
        (":8081", None, "8081"),
        ("8081", None, "8081"),
    ],
)
def test_where_to_listen_as_it_is_typed(typed: str, host: str | None, port: str) -> None:
    told = listening("--listen", "listen", typed)
    assert (told.get("EDGECACHE_LISTEN__HOST"), told["EDGECACHE_LISTEN__PORT"]) == (host, port)


@pytest.mark.parametrize("typed", ["", "host", "127.0.0.1:65536", "::1:80", "a b:80", "http://127.0.0.1:80", "1:2:3"])
def test_where_nobody_can_listen(typed: str) -> None:
    with pytest.raises(Misused, match="--listen takes HOST:PORT"):
        listening("--listen", "listen", typed)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("speaking_rate=1.5", 1.5),
        ("ssml=true", True),
        ("style=calm", "calm"),
        ("style=a=b", "a=b"),
        ("style=", ""),
        ("style=NaN", "NaN"),
        ('demo={"take":true}', {"take": True}),
        ("style=" + "[" * 100_000, "[" * 100_000),
        ("style=" + "9" * 5_000, "9" * 5_000),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_field_is_json_or_else_text(given: str, meant: object) -> None:
    assert json.loads(wanted("hi", None, None, [given]))[given.partition("=")[0]] == meant


@pytest.mark.parametrize("given", [["speed"], ["=1"], ["text=ho"], ["voice_id=b"], ["a=1", "a=2"]], ids=str)
def test_what_is_no_field(given: list[str]) -> None:
    with pytest.raises(Misused, match="--field"):
        wanted("hi", "a", None, given)


BROKEN: dict[str, tuple[bytes, str]] = {
    "cut in its length": (
        b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: 99\r\n\r\nRIFF",
        "is not whole",
    ),
    "cut in a chunk": (
        b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nRIFF",
        "is not whole",
    ),
    "no last chunk": (
        b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nRIFF\r\n",
        "is not whole",
    ),
    "nothing": (b"", "hung up without an answer"),
    "no HTTP": (b"220 mail.example ESMTP\r\n", "does not answer with HTTP"),
    "a web page": (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>",
        "text/html, not audio; is --url an edge?",
    ),
    "a proxy's page": (b"HTTP/1.1 502 Bad\r\nContent-Type: text/html\r\n\r\n<b>\x1b[31m", "502 Bad Gateway: <b> [31m"),
    "busy": (
        b'HTTP/1.1 429 No\r\nRetry-After: 2\r\n\r\n{"error":{"code":"busy","message":"Later."}}',
        "429 busy: Later. (try again in 2 s)",
    ),
}


@pytest.mark.net
@pytest.mark.parametrize(("answer", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_whole_answer_is_never_saved(tmp_path: Path, answer: bytes, words: str) -> None:
    with answering(answer) as url, pytest.raises(Refused) as told:
        say(Target(url), Spoken(b'{"text":"hi"}', tmp_path / "hi.wav"))
    assert words in str(told.value)
    assert list(tmp_path.iterdir()) == []
