"""Requests that can be read in one way only, read without aiohttp. Pure.

Keeps rules 1 and 7 by being narrow: whatever this takes, aiohttp takes and reads the same; whatever it does not take goes
to aiohttp, which says what is wrong with it or does what it asks. So nothing here may be generous: a header that could
change what the answer is, and is not understood here, makes a request not plain. The parser is httptools, which has the
same llhttp below it as aiohttp; here its answers are only believed where there is no second way to read them.
"""

import re

import msgspec
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from edgecache.cache.trace import PARENT, STATE, Trace
from edgecache.cache.trace import read as read_trace
from edgecache.delivery.accept import Way, way
from edgecache.delivery.auth import presented
from edgecache.delivery.framing import HOST
from edgecache.delivery.head import may_be_id
from edgecache.delivery.ranges import Conditions
from edgecache.delivery.urgency import urgency
from edgecache.dialects.protobuf import is_protobuf
from edgecache.fill.priority import Priority

#: Far below aiohttp's own bounds (8190 bytes a line, 128 lines).
MAX_HEAD_BYTES = 4096
MAX_LINES = 40
_LENGTH = re.compile(rb"[1-9][0-9]{0,8}")
#: They change where the request ends, or whether the connection goes on as HTTP.
_FRAMING = frozenset(
    {
        *(b"transfer-encoding", b"expect", b"upgrade", b"http2-settings", b"proxy-connection"),
        *(b"sec-websocket-key", b"sec-websocket-key1", b"sec-websocket-version", b"sec-websocket-protocol"),
    }
)
#: They change what is asked for, in ways that are not understood here.
_MEANING = frozenset({b"cache-control", b"cdn-loop", b"content-encoding"})
_TRACE = re.compile(rb"\r\ntraceparent: [0-9a-f-]{55}(?=\r\n)")
#: The same, however it is spelled.
_TRACES = re.compile(rb"\r\ntraceparent:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE)
TRACE_MARK = b"\r\ntraceparent: "
#: What a `traceparent` has (W3C Trace Context §3.2).
TRACE_BYTES = 55


class Plain(msgspec.Struct, frozen=True):
    """A plain request. length: of its body, which begins at `body_at`. request_id: the client's own, if it may be used."""

    method: str
    target: bytes
    body_at: int
    length: int
    presented: str | None
    request_id: str | None
    conditions: Conditions | None
    #: The span that it was made in.
    trace: Trace | None = None


def read(received: bytes) -> Plain | None:
    """The plain request that these bytes begin with; None: they are something else, or not yet a whole head."""
    head = _head(received)
    if head is None or head.method not in ("POST", "GET") or not head.target.startswith(b"/v1/"):
        return None
    posted, headers = head.method == "POST", head.headers
    if not _MEANING.isdisjoint(headers) or (b"content-length" in headers) != posted:
        return None
    accept = headers.get(b"accept")
    if accept is not None and head.target.startswith(b"/v1/tts/stream") and way(accept.decode()) is not Way.RAW:
        return None
    if is_protobuf(headers.get(b"content-type", b"").decode()):
        return None
    if b"priority" in headers and urgency((headers[b"priority"].decode(),)) is not Priority.INTERACTIVE:
        return None
    given = headers.get(b"x-request-id")
    return Plain(
        head.method,
        head.target,
        head.end,
        head.length,
        presented(_said(headers, b"x-api-key"), _said(headers, b"authorization")),
        given.decode() if given is not None and may_be_id(given.decode()) else None,
        None if posted else _conditions(headers),
        _trace(headers) if b"traceparent" in headers else None,
    )


def _trace(headers: dict[bytes, bytes]) -> Trace | None:
    return read_trace({PARENT: headers[b"traceparent"].decode(), STATE: headers.get(b"tracestate", b"").decode()})


def _said(headers: dict[bytes, bytes], name: bytes) -> str | None:
    text = headers.get(name)
    return None if text is None else text.decode()


class _Head(msgspec.Struct, frozen=True):
    """A head that says plainly where its request ends. headers: by their names in lower case."""

    method: str
    target: bytes
    headers: dict[bytes, bytes]
    end: int
    length: int


class _Lines:
    """What httptools finds in a head."""

    __slots__ = ("count", "headers", "target", "whole")

    def __init__(self) -> None:
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        self.count = 0
        self.whole = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, text: bytes) -> None:
        self.headers[name.lower()] = text
        self.count += 1

    def on_headers_complete(self) -> None:
        self.whole = True


def _head(received: bytes) -> _Head | None:
    end = received.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) + 4
    if end < 4:
        return None
    lines = _Lines()
    parser = HttpRequestParser(lines)
    try:
        parser.feed_data(received[:end])
    except (HttpParserError, HttpParserUpgrade):
        return None
    headers = lines.headers
    if not lines.whole or len(headers) < lines.count or lines.count > MAX_LINES or not _FRAMING.isdisjoint(headers):
        return None
    if not HOST.fullmatch(headers.get(b"host", b"")) or parser.get_http_version() != "1.1" or _odd(lines):
        return None
    if headers.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    length = headers.get(b"content-length", b"0")
    if length != b"0" and not _LENGTH.fullmatch(length):
        return None
    return _Head(parser.get_method().decode("ascii"), lines.target, headers, end, int(length))


def _odd(lines: _Lines) -> bool:
    """Whether there is space at an end of a line, or anything but ASCII: parsers differ in what they make of it."""
    texts = b"\n".join((b"", *lines.headers.values(), b""))
    return b"\n " in texts or b" \n" in texts or b"\t" in texts or not texts.isascii() or not lines.target.isascii()


def _conditions(headers: dict[bytes, bytes]) -> Conditions | None:
    if b"range" not in headers and b"if-none-match" not in headers:
        return None
    return Conditions(_said(headers, b"if-none-match"), _said(headers, b"range"), _said(headers, b"if-range"))


class Boundary:
    """Where a parser stands that was given all of these bytes: between two requests (`clean`), within one, or who knows.

    Only plain requests are followed. After any other it is never clean again, and the connection stays with aiohttp.
    """

    __slots__ = ("_head", "_lost", "_owed", "clean", "requests")

    def __init__(self) -> None:
        self.clean = True
        #: How many heads were whole.
        self.requests = 0
        self._head = b""
        self._owed = 0
        self._lost = False

    def __repr__(self) -> str:
        return f"<Boundary {'clean' if self.clean else 'lost' if self._lost else f'{self._owed} bytes owed'}>"

    @property
    def within(self) -> bool:
        """Whether a request has begun that is not whole."""
        return bool(self._head or self._owed)

    def pass_over(self, received: bytes) -> int:
        """These bytes came next. Of how many it is known whose they are: all, or those before what is not plain."""
        known = len(received)
        while received and not self._lost:
            if self._owed:
                passed = min(self._owed, len(received))
                self._owed -= passed
                received = received[passed:]
                continue
            begins = known if self._head else known - len(received)
            received = self._head + received if self._head else received.lstrip(b"\r\n")
            head = _head(received)
            if head is None:
                self._head, received = received, b""
                self._lost = b"\r\n\r\n" in self._head or len(self._head) > MAX_HEAD_BYTES
                known = begins if self._lost else known
            else:
                self._head, self._owed, received = b"", head.length, received[head.end :]
                self.requests += 1
        if self._lost:
            self._head = b""
        self.clean = not (self._head or self._owed or self._lost)
        return known


def untraced(received: bytes) -> bytes | None:
    """The same request without its `traceparent`, which alone makes each one differ; None: it has none that is plain.

    Only a line of the head is taken out. One in the body would make another request of it.
    """
    at = received.find(TRACE_MARK)
    if at < 0 or received.find(b"\r\n\r\n") < at or _TRACE.match(received, at) is None:
        return None
    return received[:at] + received[at + len(TRACE_MARK) + TRACE_BYTES :]


def trace(received: bytes) -> Trace | None:
    """The span that the request was made in; None: it says none, or nothing that can be read."""
    found = _TRACES.findall(received, 0, received.find(b"\r\n\r\n") + 2)
    return read_trace({PARENT: found[0].decode("latin-1")}) if len(found) == 1 else None
