"""HTTP/1.1 as asking a cluster needs it: the bytes of a request, and the reading of one answer. Pure.

Keeps rule 3: a body is whole only if its head said where it ends and it came to there. Stricter than RFC 9112 lets a client
be: what can be read in two ways is refused, and so is what comes past the end. The parser is httptools (llhttp, with all its
leniencies off) for heads and chunks; bodies with a length are counted here. Rule 7: heads, interim answers and trailers are
bounded. It does not know connections, nor what an answer means.

Theory. Clusters send the same head again and again, at least within a second, and one chunk after the other, each whole in
what comes at once. So heads are remembered with what they said, and found again by equality. And where a chunk is to begin,
whole chunks of the plainest form are read here: a size in hexadecimal digits and nothing else on its line. The parser is not
told of them: it stands between two chunks before and after, or is made only where something else comes.
"""

import re
from collections.abc import Mapping, Sized
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
#: The line before a chunk, without extensions; and all that is behind the last one, without trailers.
_CHUNK_LINE = re.compile(rb"0{0,7}([1-9A-Fa-f][0-9A-Fa-f]{0,7})\r\n")
_LAST_CHUNK = b"0\r\n\r\n"
#: Longer heads are not remembered.
_MEMORABLE_BYTES = 2048


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


def opening(method: str, to: Target, headers: Mapping[str, str]) -> bytes:
    """The head of a request as far as it does not say where the request ends. ValueError: a header would not end with its
    line."""
    lines = [f"{method} {to.path} HTTP/1.1", f"Host: {to.authority}", *(f"{name}: {headers[name]}" for name in headers)]
    head = "\r\n".join(lines)
    ends = len(lines) - 1
    if head.count("\n") != ends or head.count("\r") != ends or "\0" in head:
        raise ValueError("a header holds a line break or NUL")
    return (head + "\r\n").encode()


def request(method: str, to: Target, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
    """The bytes that ask. ValueError: as with `opening`."""
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
    return b"%b%b\r\n%b" % (opening(method, to, headers), length, body or b"")


class Stage(Enum):
    """How far an answer is read."""

    HEAD = "head"
    BODY = "body"
    END = "end"


class Head(NamedTuple):
    """What the head of an answer says. headers: by their names in lower case; those that come twice joined by a comma."""

    status: int
    headers: Mapping[str, str]
    length: int | None
    chunked: bool
    framed: bool
    keeps: bool


class _Lines:
    """What httptools tells of a head."""

    __slots__ = ("fields", "keeps", "parser")

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.keeps = False
        self.parser: HttpResponseParser | None = None

    def on_header(self, name: bytes, text: bytes) -> None:
        _bound(self.fields, name, text)
        self.fields.append((name, text))

    def on_headers_complete(self) -> None:
        if self.parser is not None:  # later it speaks of the message, if that has no body
            self.keeps = self.parser.should_keep_alive()


def _bound(fields: Sized, name: bytes, text: bytes) -> None:
    if len(name) + len(text) > MAX_LINE_BYTES or len(fields) >= MAX_HEADERS:
        raise Malformed("headers too large or too many")


def _read_head(head: bytes) -> Head:
    if head.find(b"\r\n") > MAX_LINE_BYTES or not head.startswith(_OPENING) or b"\0" in head:
        raise Malformed("no status line of HTTP/1.1")
    lines = _Lines()
    parser = lines.parser = HttpResponseParser(lines)
    try:
        with suppress(HttpParserUpgrade):  # 101 it is then: nothing that was asked for
            parser.feed_data(head)
    except HttpParserError:
        raise Malformed("the head is malformed") from None
    finally:
        lines.parser = None
    status, headers = parser.get_status_code(), dict[str, str]()
    for raw, text in lines.fields:
        name, said = raw.decode("latin-1").lower(), text.decode("latin-1").strip(" \t")
        headers[name] = f"{headers[name]}, {said}" if name in headers else said
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if length is not None and status >= 200:
        digits = length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS
        if coding is not None or not digits:
            raise Malformed("two framings, or a length that is none")
    size = int(length) if length is not None and status >= 200 else None
    chunked = coding is not None and coding.lower() == "chunked"
    framed = size is not None or (chunked and parser.get_http_version() == "1.1")
    return Head(status, headers, size, chunked, framed, lines.keeps)


#: Heads of late are remembered with what they said: a few for each cluster.
_known_head = lru_cache(maxsize=64)(_read_head)


class Reading:
    """One answer being read. headers: by their names in lower case; those that come twice are joined by a comma.

    length: as the head says it. framed: HTTP itself says where the body ends. keeps: the connection may be used again
    behind it. begun: a byte of it has come.
    """

    __slots__ = (
        *("begun", "chunked", "framed", "headers", "keeps", "length", "stage", "status"),
        *("_between", "_fields", "_head_bytes", "_held", "_interim", "_left", "_parser", "_pieces"),
        "_silent_bytes",
    )

    def __init__(self) -> None:
        self.stage = Stage.HEAD
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.length: int | None = None
        self.chunked = self.framed = self.keeps = self.begun = False
        self._held = bytearray()
        self._interim = 0
        self._fields: list[bytes] = []
        self._parser: HttpResponseParser | None = None
        self._left = 0
        self._pieces: list[bytes] = []
        self._silent_bytes = 0
        #: Whether a chunk is to begin; and the head that a parser is to be given first, if there is none yet.
        self._between = False
        self._head_bytes = b""

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
            if self._between and (plain := self._plain_chunks(received)) is not None:
                return plain
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
        said = _known_head(head) if len(head) <= _MEMORABLE_BYTES else _read_head(head)
        if 100 <= said.status < 200 and said.status != 101:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise Malformed("too many interim answers")
            return
        self.status, self.headers, self.length, self.chunked, self.framed, self.keeps = said
        self._left = self.length or 0
        ends = self.length == 0 or self.status in (101, 204, 304)
        self.stage = Stage.END if ends else Stage.BODY
        if self.chunked and not ends:
            self._between, self._head_bytes = True, head

    # The body, in chunks.

    def _unchunk(self, received: bytes) -> bytes:
        parser = self._parser
        if parser is None:
            parser = self._parser = HttpResponseParser(self)
            parser.feed_data(self._head_bytes)  # which it has been read of before
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
        pieces.clear()
        return body

    def _plain_chunks(self, received: bytes) -> bytes | None:
        """The content of these whole chunks; None: they are something else, and nothing was read."""
        at, pieces, view = 0, [], memoryview(received)
        while at < len(received):
            line = _CHUNK_LINE.match(received, at)
            if line is None:
                if received[at:] != _LAST_CHUNK:
                    return None
                self.stage, self._parser = Stage.END, None
                break
            begins = line.end()
            stops = begins + int(line[1], 16)
            if not received.startswith(_LINE_END, stops):
                return None
            pieces.append(view[begins:stops])
            at = stops + 2
        self._silent_bytes = 0
        return b"".join(pieces)

    # What httptools tells.

    def on_message_begin(self) -> None:
        if self.stage is Stage.END:
            raise Malformed("more came than the whole answer")

    def on_header(self, name: bytes, text: bytes) -> None:
        """A line of the head, or a trailer, which is looked at no further."""
        _bound(self._fields, name, text)
        self._fields.append(name)

    def on_chunk_header(self) -> None:
        self._between = False

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def on_chunk_complete(self) -> None:
        self._between = True

    def on_message_complete(self) -> None:
        if self.chunked:
            self.stage = Stage.END
