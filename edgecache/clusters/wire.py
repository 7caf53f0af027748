"""HTTP/1.1 as asking a cluster needs it: the bytes of a request, and the reading of one answer. Pure.

Keeps rule 3: a body is whole only if its head said where it ends and it came to there. Stricter than RFC 9112 lets a client
be: what can be read in two ways is refused, and so is what comes past the end. The parser is httptools (llhttp, with all its
leniencies off) for heads and chunks; bodies with a length are counted here. Rule 7: heads, interim answers and trailers are
bounded. It does not know connections, nor what an answer means.

Theory. Clusters send one chunk after the other of the same size, each in a packet of its own. So what came is compared with
what the parser has read before: exactly one chunk, with the same line before it, where a chunk is to begin. That is one too,
and costs a comparison. The parser is not told of it: it stands between two chunks before and after.
"""

from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

#: Bounds on the head of an answer, and on what comes within a chunked body and is no body; the last two are aiohttp's.
MAX_HEAD_BYTES = 32 << 10
MAX_LINE_BYTES = 8190
MAX_HEADERS = 128
#: So many 1xx before an answer are passed over.
MAX_INTERIM = 10
#: Longer than any rendering may be; a number that every parser reads the same.
_LENGTH_DIGITS = 15
_OPENING = b"HTTP/1."
_LINE_END = b"\r\n"
_BLANK_LINE = b"\r\n\r\n"
_PORTS = {"http": 80, "https": 443}


class Malformed(Exception):
    """Not HTTP as it should be. Its words are fixed: none of the peer's."""


class Peer(NamedTuple):
    """Whom a connection is to. host: a name or an address, as it is asked for and as its certificate must say."""

    scheme: str
    host: str
    port: int
    #: Where to connect, if that is not for the resolver to say.
    address: str | None = None


class Target(NamedTuple):
    """A URL, taken apart for asking. authority: for `Host`."""

    peer: Peer
    authority: str
    path: str


@lru_cache(maxsize=1024)
def target(url: str) -> Target:
    """The parts of a URL. ValueError: nobody can be asked there."""
    parts = urlsplit(url)
    host = (parts.hostname or "").encode("idna").decode() if not (parts.hostname or "").isascii() else parts.hostname
    if parts.scheme not in _PORTS or not host or any(each.isspace() for each in url):
        raise ValueError("neither http:// nor https:// and a host")
    port = parts.port or _PORTS[parts.scheme]
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port == _PORTS[parts.scheme] else f"{shown}:{port}"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{parts.query}" if parts.query else "")
    return Target(Peer(parts.scheme, host, port), authority, path)


def request(method: str, to: Target, headers: Iterable[tuple[str, str]], body: bytes | None = None) -> bytes:
    """The bytes that ask. ValueError: a header would not end with its line."""
    lines = [f"{method} {to.path} HTTP/1.1", f"Host: {to.authority}"]
    lines += [f"{name}: {text}" for name, text in headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines)
    ends = len(lines) - 1
    if head.count("\n") != ends or head.count("\r") != ends or "\0" in head:
        raise ValueError("a header holds a line break or NUL")
    return (head + "\r\n\r\n").encode() + (body or b"")


class Stage(Enum):
    """How far an answer is read."""

    HEAD = "head"
    BODY = "body"
    END = "end"


class Reading:
    """One answer being read. headers: by their names in lower case; those that come twice are joined by a comma.

    length: as the head says it. framed: HTTP itself says where the body ends. keeps: the connection may be used again
    behind it. begun: a byte of it has come.
    """

    __slots__ = (
        *("begun", "chunked", "framed", "headers", "keeps", "length", "stage", "status"),
        *("_alike", "_alike_bytes", "_between", "_fields", "_held", "_interim", "_left", "_parser", "_pieces"),
        *("_silent_bytes", "_version"),
    )

    def __init__(self) -> None:
        self.stage = Stage.HEAD
        self.status = 0
        self.headers: dict[str, str] = {}
        self.length: int | None = None
        self.chunked = self.framed = self.keeps = self.begun = False
        self._held = bytearray()
        self._interim = 0
        self._fields: list[tuple[bytes, bytes]] = []
        self._parser: HttpResponseParser | None = None
        self._version = ""
        self._left = 0
        self._pieces: list[bytes] = []
        self._silent_bytes = 0
        #: Whether the parser stands where a chunk is to begin; the line of the last one that came alone, and its whole size.
        self._between = False
        self._alike = b""
        self._alike_bytes = 0

    def __repr__(self) -> str:
        return f"<Reading {self.stage.value} {self.status} {'framed' if self.framed else 'unframed'}>"

    def feed(self, received: bytes) -> bytes:
        """The bytes of the body in these. Malformed: they are not what they should be, also when more than all came."""
        self.begun = True
        if self.stage is Stage.HEAD:
            received = self._head(received)
            if not received:
                return b""
        if self.stage is Stage.END:
            raise Malformed("more came than the whole answer")
        if self.chunked:
            return self._unchunk(received)
        if self.length is not None:
            self._left -= len(received)
            if self._left < 0:
                raise Malformed("more came than the head said")
            if not self._left:
                self.stage = Stage.END
        return received

    # The head.

    def _head(self, received: bytes) -> bytes:
        """What follows the head in these; nothing while the head is not whole."""
        looked_at = 0
        if self._held:
            looked_at = len(self._held)
            self._held += received
            received = bytes(self._held) if _BLANK_LINE in self._held[max(0, looked_at - 3) :] else b""
        while self.stage is Stage.HEAD:
            end = received.find(_BLANK_LINE) + 4
            if end < 4 or end > MAX_HEAD_BYTES:
                self._hold(received, looked_at)
                return b""
            self._read(received[:end])
            received, looked_at = received[end:], 0
            self._held.clear()
        return received

    def _hold(self, received: bytes, looked_at: int) -> None:
        """The head goes on; whether it can still become one."""
        if received:
            self._held[:] = received
        held = self._held
        if len(held) > MAX_HEAD_BYTES:
            raise Malformed("the head is too large")
        lines = held[looked_at:].count(b"\n")
        if not _OPENING.startswith(held[: len(_OPENING)]) or lines != held[max(0, looked_at - 1) :].count(b"\r\n"):
            raise Malformed("no head of HTTP/1.1")

    def _read(self, head: bytes) -> None:
        """One head, of an answer or of an interim one."""
        if head.find(b"\r\n") > MAX_LINE_BYTES or not head.startswith(_OPENING) or b"\0" in head:
            raise Malformed("no status line of HTTP/1.1")
        self._fields.clear()
        parser = self._parser = HttpResponseParser(self)
        try:
            with suppress(HttpParserUpgrade):  # 101 it is then: nothing that was asked for
                parser.feed_data(head)
        except HttpParserError:
            raise Malformed("the head is malformed") from None
        self.status = parser.get_status_code()
        if 100 <= self.status < 200 and self.status != 101:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise Malformed("too many interim answers")
            return
        self._settle(parser)

    def _settle(self, parser: HttpResponseParser) -> None:
        """The head is whole: where the body ends."""
        headers = self.headers
        for raw, said in self._fields:
            name, text = raw.decode("latin-1").lower(), said.decode("latin-1").strip(" \t")
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if length is not None:
            if coding is not None or not (length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS):
                raise Malformed("two framings, or a length that is none")
            self._left = self.length = int(length)
        self.chunked = coding is not None and coding.lower() == "chunked"
        self.framed = length is not None or (self.chunked and self._version == "1.1")
        ends = self.length == 0 or self.status in (101, 204, 304)
        self.stage = Stage.END if ends else Stage.BODY
        if not self.chunked or ends:
            self._parser = None

    # The body, in chunks.

    def _unchunk(self, received: bytes) -> bytes:
        between, alike = self._between, self._alike
        if (
            between
            and len(received) == self._alike_bytes
            and received.startswith(alike)
            and received.endswith(_LINE_END)
        ):
            self._silent_bytes = 0
            return received[len(alike) : -2]
        parser = self._parser
        assert parser is not None
        try:
            parser.feed_data(received)
        except HttpParserError:
            raise Malformed("a chunk is malformed") from None
        # It was told of no line since the chunk's end, and half a line does not end as a line does.
        self._between = self._between and received.endswith(_LINE_END)
        if self.stage is Stage.END:  # it and this know each other: nothing is to wait for the garbage collector
            self._parser = None
        pieces = self._pieces
        if not pieces:
            self._silent_bytes += len(received)
            if self._silent_bytes > MAX_HEAD_BYTES:
                raise Malformed("chunks or trailers without end")
            return b""
        self._silent_bytes = 0
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if between and self._between and len(pieces) == 1:
            self._alike, self._alike_bytes = received[: -2 - len(body)], len(received)
        pieces.clear()
        return body

    # What httptools tells.

    def on_message_begin(self) -> None:
        if self.stage is Stage.END:
            raise Malformed("more came than the whole answer")

    def on_header(self, name: bytes, text: bytes) -> None:
        """A line of the head, or a trailer, which is looked at no further."""
        if len(name) + len(text) > MAX_LINE_BYTES or len(self._fields) >= MAX_HEADERS:
            raise Malformed("headers too large or too many")
        self._fields.append((name, text))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        self._version = parser.get_http_version()
        self.keeps = parser.should_keep_alive()

    def on_chunk_header(self) -> None:
        self._between = False

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def on_chunk_complete(self) -> None:
        self._between = True

    def on_message_complete(self) -> None:
        if self.chunked:
            self.stage = Stage.END
