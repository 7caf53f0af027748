"""What clients send, plain and odd, and how it is cut: words and scripts for the differential test.

A script is what one client sends: a few requests, most of them more than once, so that an edge may learn and remember
them. It is played several times, each time cut into segments and ended in its own way. `{ann}`, `{bob}`, `{large}` and
`{etag}` stand for what only a running edge knows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

ANN, BOB = b"ann-has-this-key", b"bob-has-this-one"
#: More than goes out in one write.
LARGE_BYTES = 300_000
HI = b'{"text":"hi"}'
LARGE = b'{"text":"large","demo":{"bytes":%d}}' % LARGE_BYTES
TRACE = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER_TRACE = TRACE.replace(b"0af7", b"1bc8")


@dataclass
class Draft:
    """A request that is being written. rest: what is sent of the body, where that is not all of it."""

    method: bytes
    target: bytes
    body: bytes = b""
    lines: list[bytes] = field(default_factory=list)
    version: bytes = b"HTTP/1.1"
    line_end: bytes = b"\r\n"
    before: bytes = b""

    def sent(self) -> tuple[bytes, bytes]:
        start = b" ".join((self.method, self.target, self.version))
        return self.before + self.line_end.join([start, *self.lines, b"", b""]), self.body


Twist = Callable[[Draft], None]


def drafted(method: bytes, target: bytes, body: bytes, *lines: bytes) -> Draft:
    sized = [b"Content-Length: %d" % len(body)] if method in (b"POST", b"PUT", b"PATCH") else []
    return Draft(method, target, body, [b"Host: x", b"X-API-Key: " + ANN, *lines, *sized])


def post(body: bytes, *lines: bytes, target: bytes = b"/v1/tts") -> Callable[[], Draft]:
    return partial(drafted, b"POST", target, body, b"Content-Type: application/json", *lines)


def get(target: bytes, *lines: bytes, method: bytes = b"GET") -> Callable[[], Draft]:
    return partial(drafted, method, target, b"", *lines)


#: What is not recorded may not be asked of the cluster: two edges would be told of it at different times.
ONLY = b"Cache-Control: only-if-cached"
HITS: Mapping[str, Callable[[], Draft]] = {
    "hi": post(HI),
    "hi, spelled otherwise": post(b' { "text" : "h\\u0069", "voice_id": "default" }\n'),
    "hi, streamed": post(HI, target=b"/v1/tts/stream"),
    "hi, with a query": post(HI, target=b"/v1/tts?a=b"),
    "large": post(LARGE),
    "hi by GET": get(b"/v1/tts?text=hi"),
    "hi by GET, spelled otherwise": get(b"/v1/tts?voice_id=default&text=%68%69"),
    "ann's hi by its key": get(b"/v1/audio/{ann}"),
    "large by its key": get(b"/v1/audio/{large}"),
}
OTHERS: Mapping[str, Callable[[], Draft]] = {
    "bob's hi by its key": get(b"/v1/audio/{bob}"),
    "hi by its key, with a query": get(b"/v1/audio/{ann}?x=y"),
    "nothing by its key": get(b"/v1/audio/" + b"f" * 64),
    "HEAD of hi": get(b"/v1/tts?text=hi", method=b"HEAD"),
    "HEAD of hi by its key": get(b"/v1/audio/{ann}", method=b"HEAD"),
    "HEAD of what is not recorded": get(b"/v1/tts?text=new", method=b"HEAD"),
    "not recorded": post(b'{"text":"new"}', ONLY),
    "not recorded, by GET": get(b"/v1/tts?text=new", ONLY),
    "not recorded, with a fragment": get(b"/v1/tts?text=hi#a", ONLY),
    **{f"body {body[:30]!r}": post(body) for body in (b"", b"{", b"[]", b'{"text":""}', b'{"text":NaN}', b"\xff")},
    "body with a field twice": post(b'{"text":"hi","text":"hi"}'),
    "body with a trace in it": post(b'{"text":"hi"\r\n' + TRACE + b"\r\n}"),
    "body that looks like a request": post(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"),
    "body too large": post(b'{"text":"' + b"x" * 70_000 + b'"}'),
    "GET of nothing to say": get(b"/v1/tts"),
    "GET with a field twice": get(b"/v1/tts?text=hi&text=hi"),
    **{
        f"{method.decode()} {target.decode()}": partial(drafted, method, target, HI if method == b"POST" else b"")
        for method, target in [
            *((b"GET", path) for path in (b"/livez", b"/", b"/v1/", b"/v1/tts/stream", b"/v1/audio/", b"//v1/tts")),
            *((b"POST", path) for path in (b"/livez", b"/v1/nothing", b"/v1/tts/", b"/V1/tts", b"/v1/audio/{ann}")),
            *((b"PUT", b"/v1/tts"), (b"DELETE", b"/v1/tts"), (b"OPTIONS", b"/v1/tts"), (b"OPTIONS", b"*")),
            *((b"GET", b"http://x/v1/tts?text=hi"), (b"POST", b"http://x/v1/tts")),
            *(
                (b"BREW", b"/v1/tts"),
                (b"CONNECT", b"x:1"),
                (b"get", b"/v1/tts?text=hi"),
                (b"GET", b"/v1/tts?text=\xc3"),
            ),
        ]
        if b"\xc3" not in target
    },
}


IDS = (b"ok-1.2_3", b"a" * 64, b"a" * 65, b"<x>", b"a b")
HOSTS = (b"", b"a.b:80", b"[::1]:8080", b"a_b", b"x:123456")
BAD_HOSTS = (b"x/..", b"a@b", b"a b", b"\xff")


def adds(*lines: bytes) -> Twist:
    return lambda draft: draft.lines.extend(lines)


def both(first: Twist, second: Twist) -> Twist:
    def twist(draft: Draft) -> None:
        first(draft)
        second(draft)

    return twist


def puts_first(*lines: bytes) -> Twist:
    return lambda draft: draft.lines.__setitem__(slice(0, 0), lines)


def says(name: bytes, line: bytes | None) -> Twist:
    """This line instead of those of that name; None: nothing."""

    def twist(draft: Draft) -> None:
        others = [each for each in draft.lines if not each.lower().startswith(name.lower() + b":")]
        draft.lines = others if line is None else [*others, line]

    return twist


def sets(**fields: Any) -> Twist:
    return lambda draft: draft.__dict__.update(fields)


def spells(respell: Callable[[bytes], bytes]) -> Twist:
    def twist(draft: Draft) -> None:
        draft.lines = [respell(each) for each in draft.lines]

    return twist


def sizes(length: Callable[[int], bytes]) -> Twist:
    return lambda draft: says(b"Content-Length", b"Content-Length: " + length(len(draft.body)))(draft)


def chunks(draft: Draft) -> None:
    says(b"Content-Length", b"Transfer-Encoding: chunked")(draft)
    draft.body = b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(draft.body), draft.body) if draft.body else b"0\r\n\r\n"


def cased(change: Callable[[bytes], bytes]) -> Twist:
    return spells(lambda line: b":".join([change(line.partition(b":")[0]), line.partition(b":")[2]]))


#: Where each request ends stays plain.
TWISTS: Mapping[str, Twist] = {
    "lower case": cased(bytes.lower),
    "upper case": cased(bytes.upper),
    "no space behind colons": spells(lambda line: line.replace(b": ", b":", 1)),
    "two spaces behind colons": spells(lambda line: line.replace(b": ", b":  ", 1)),
    "a tab behind colons": spells(lambda line: line.replace(b": ", b":\t", 1)),
    "spaces at line ends": spells(lambda line: line + b" \t "),
    "other order": lambda draft: draft.lines.reverse(),
    "HTTP/1.0": sets(version=b"HTTP/1.0"),
    "bob": says(b"X-API-Key", b"X-API-Key: " + BOB),
    "nobody's key": says(b"X-API-Key", b"X-API-Key: nobody"),
    "no key": says(b"X-API-Key", None),
    "empty key": says(b"X-API-Key", b"X-API-Key: "),
    "ann's key, then bob's": adds(b"X-API-Key: " + BOB),
    "bob's key, then ann's": puts_first(b"x-api-key: " + BOB),
    "ann's bearer": says(b"X-API-Key", b"Authorization: Bearer " + ANN),
    "bob's bearer, lower case": says(b"X-API-Key", b"authorization: bearer  " + BOB),
    "nobody's bearer": says(b"X-API-Key", b"Authorization: Bearer nobody"),
    "bearer of nothing": says(b"X-API-Key", b"Authorization: Bearer"),
    "basic": says(b"X-API-Key", b"Authorization: Basic YTpi"),
    "ann's key and bob's bearer": adds(b"Authorization: Bearer " + BOB),
    "two bearers": says(b"X-API-Key", b"Authorization: Bearer " + ANN + b"\r\nAuthorization: Bearer " + BOB),
    **{f"id {given[:9]!r}": adds(b"X-Request-Id: " + given) for given in IDS},
    "two ids": adds(b"X-Request-Id: one", b"X-Request-Id: two"),
    "empty id": adds(b"X-Request-Id:"),
    "traced": adds(TRACE),
    "otherwise traced": puts_first(OTHER_TRACE),
    "traced in capitals": adds(b"Traceparent: 00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01"),
    "badly traced": adds(b"traceparent: 00-x"),
    "traced twice": adds(TRACE, OTHER_TRACE),
    "traced and badly traced": adds(TRACE, b"traceparent: 00-x"),
    "traced with more": adds(TRACE + b"-more"),
    **{
        f"connection {given.decode()}": adds(b"Connection: " + given)
        for given in (b"keep-alive", b"Keep-Alive", b"close", b"CLOSE", b"keep-alive, close", b"x-api-key", b"Upgrade")
    },
    "connection keep-alive twice": adds(b"Connection: keep-alive", b"Connection: close"),
    "proxy connection": adds(b"Proxy-Connection: close"),
    **{
        f"cache {given.decode()}": adds(b"Cache-Control: " + given)
        for given in (
            *(b"only-if-cached", b"Only-If-Cached", b"no-cache, only-if-cached", b"no-store,only-if-cached"),
            *(b"max-age=60", b"max-age=0, ONLY-IF-CACHED", b"private", b"no-transform"),
        )
    },
    "cache, in two lines": adds(b"Cache-Control: only-if-cached", b"cache-control: no-store"),
    "pragma": adds(b"Pragma: no-cache"),
    **{
        f"accept {given.decode()}": adds(b"Accept: " + given)
        for given in (b"*/*", b"audio/*", b"audio/wav;q=0.5, text/html", b"text/html", b"application/octet-stream")
    },
    "priority": adds(b"Priority: u=7"),
    "priority of a browser": adds(b"Priority: u=4, i"),
    "accept, in two lines": adds(b"Accept: text/html", b"Accept: audio/wav"),
    **{
        f"range {given.decode()}": adds(b"Range: " + given)
        for given in (
            *(b"bytes=0-1", b"bytes=-4", b"bytes=100-", b"BYTES = 5-9", b"bytes=9-5", b"bytes=-0"),
            *(b"bytes=0-1,3-4", b"bytes=99999999-", b"lines=0-1", b"bytes=", b"bytes=0-99999999999999999999"),
        )
    },
    "range, twice": adds(b"Range: bytes=0-1", b"Range: bytes=2-3"),
    "range, if it is this": adds(b"Range: bytes=0-9", b'If-Range: "{etag}"'),
    "range, if it is other": adds(b"Range: bytes=0-9", b'If-Range: "other"'),
    "range, if it is weakly this": adds(b"Range: bytes=0-9", b'If-Range: W/"{etag}"'),
    "if range alone": adds(b'If-Range: "{etag}"'),
    "if none": adds(b'If-None-Match: "{etag}"'),
    "if none of several": adds(b'If-None-Match: "a", W/"{etag}"'),
    "if none at all": adds(b"If-None-Match: *"),
    "if none of others": adds(b'If-None-Match: "other"'),
    "if none, in two lines": adds(b'If-None-Match: "other"', b'If-None-Match: "{etag}"'),
    "if none and range": adds(b'If-None-Match: "{etag}"', b"Range: bytes=0-1"),
    "if modified since": adds(b"If-Modified-Since: Mon, 01 Jan 2035 00:00:00 GMT", b'If-Match: "other"'),
    **{f"coded {given!r}": adds(b"Content-Encoding:" + given) for given in (b" identity", b" gzip", b"")},
    **{
        f"loop {given[:20].decode()}": adds(b"CDN-Loop: " + given)
        for given in (b"other.example", b"edgecache-test-edge", b"<bad>", b", ".join([b"a"] * 9))
    },
    **{f"host {given!r}": says(b"Host", b"Host: " + given) for given in HOSTS},
    **{f"bad host {given!r}": says(b"Host", b"Host: " + given) for given in BAD_HOSTS},
    "no host": says(b"Host", None),
    "two hosts": adds(b"Host: x"),
    "an empty line before": sets(before=b"\r\n"),
    "empty lines before": sets(before=b"\r\n\r\n\n"),
    "a browser's lines": adds(
        b"User-Agent: a/1 (b; c)", b"Accept-Encoding: gzip, br", b"Cookie: a=b", b"Referer: http://x/"
    ),
    "content type": adds(b"Content-Type: text/plain"),
    "an empty line's value": adds(b"X-Empty:"),
    "40 lines": adds(*[b"X-%d: y" % number for number in range(40)]),
    "130 lines": adds(*[b"X-%d: y" % number for number in range(130)]),
    "a long line": adds(b"X-Long: " + b"y" * 5000),
    "a line too long": adds(b"X-Long: " + b"y" * 9000),
    "a name with an underscore": adds(b"X_Y: z"),
    "8 bits": adds(b"X-Y: \xff"),
    "keep-alive parameters": adds(b"Keep-Alive: timeout=5", b"TE: trailers"),
    "no length": says(b"Content-Length", None),
}
#: Twists whose names begin like this leave a request plain.
STAYS_PLAIN = (
    *(
        "lower",
        "upper",
        "other order",
        "bob",
        "ann's bearer",
        "ann's key and",
        "id 'ok",
        "id b'ok",
        "traced",
        "otherwise",
    ),
    *("connection keep-alive", "accept *", "accept audio", "range", "if", "host b'a", "host b'[", "a browser"),
    "content type",
)
#: Where a request ends, and whether the connection goes on as HTTP, may be read in more than one way, or not at all.
FRAMINGS: Mapping[str, Twist] = {
    "length too small": sizes(lambda size: b"%d" % max(0, size - 1)),
    "length too large": sizes(lambda size: b"%d" % (size + 9)),
    "length of the next one too": sizes(lambda size: b"%d" % (size + 150)),
    "length 0": sizes(lambda size: b"0"),
    "length with a zero before": sizes(lambda size: b"0%d" % size),
    "length with a plus": sizes(lambda size: b"+%d" % size),
    "length in a list": sizes(lambda size: b"%d, %d" % (size, size)),
    "length past all bounds": sizes(lambda size: b"9" * 25),
    "length of ten digits": sizes(lambda size: b"1000000000"),
    "length twice": sizes(lambda size: b"%d\r\nContent-Length: %d" % (size, size)),
    "two lengths": sizes(lambda size: b"%d\r\nContent-Length: %d" % (size, size + 1)),
    "no body": sets(body=b""),
    "chunks": chunks,
    "chunks and length": adds(b"Transfer-Encoding: chunked"),
    "chunks, oddly": both(chunks, adds(b"Transfer-Encoding: xchunked")),
    "chunks of HTTP/1.0": both(chunks, sets(version=b"HTTP/1.0")),
    "expects 100": adds(b"Expect: 100-continue"),
    "expects more": adds(b"Expect: 200-ok"),
    "upgrade": adds(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: eA=="),
    "upgrade to h2c": adds(b"Upgrade: h2c", b"HTTP2-Settings: AAA"),
    "HTTP/1.2": sets(version=b"HTTP/1.2"),
    "HTTP/2.0": sets(version=b"HTTP/2.0"),
    "lower case version": sets(version=b"http/1.1"),
    "no version": sets(version=b""),
    "bare line feeds": sets(line_end=b"\n"),
    "bare carriage returns": sets(line_end=b"\r"),
    "a bare line feed": adds(b"X-A: b\nX-B: c"),
    "a folded line": adds(b"X-A: b\r\n c"),
    "a space before a colon": adds(b"X-A : b"),
    "a space in a name": adds(b"X A: b"),
    "a NUL": adds(b"X-A: b\0c"),
    "no colon": adds(b"X-A"),
    "an empty name": adds(b": b"),
    "two spaces in the first line": lambda draft: sets(target=b" " + draft.target)(draft),
    "a tab in the first line": lambda draft: sets(target=draft.target + b"\t")(draft),
    "a space before": sets(before=b" "),
    "rubbish before": sets(before=b"\r\nx\r\n"),
}


# Scripts.


@dataclass(frozen=True)
class Asked:
    """One request, by the names of what it is made of."""

    base: str
    twists: tuple[str, ...] = ()
    framing: str | None = None

    def sent(self, known: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
        """Head and body."""
        draft = {**HITS, **OTHERS}[self.base]()
        for name in self.twists:
            TWISTS[name](draft)
        if self.framing is not None:
            FRAMINGS[self.framing](draft)
        sent_head, sent_body = draft.sent()
        for what, meant in known.items():
            sent_head = sent_head.replace(b"{%b}" % what, meant)
        return sent_head, sent_body


@dataclass(frozen=True)
class Play:
    """One time that a script is played.

    cut: how into segments, or where, in thousandths. late: before which segment the client waits longer than an edge
    does. brisk: so many turns of the loop pass between two requests, and not as many as it takes. before: what has
    happened since the last time.
    """

    cut: str | tuple[int, ...] = "each"
    late: int | None = None
    brisk: int | None = None
    reads_at_once: bool = True
    ending: str = "stay"
    before: str = "nothing"

    def segments(self, requests: list[tuple[bytes, bytes]]) -> list[bytes]:
        """What is sent, piece by piece."""
        whole = b"".join(head + body for head, body in requests)
        match self.cut:
            case "each":
                return [head + body for head, body in requests]
            case "apart":
                return [part for request in requests for part in request if part]
            case "at once":
                return [whole]
            case "byte by byte":
                first = b"".join(requests[0])[:400]
                return [*(first[at : at + 1] for at in range(len(first))), whole[len(first) :]]
            case _:
                at = sorted({len(whole) * each // 1000 for each in self.cut if isinstance(each, int)} | {0, len(whole)})
                return [whole[begin:end] for begin, end in pairwise(at)]


@dataclass(frozen=True)
class Script:
    """asked: different requests. order: which of them is sent when."""

    asked: tuple[Asked, ...]
    order: tuple[int, ...]
    plays: tuple[Play, ...]

    @property
    def plainly_framed(self) -> bool:
        """Whether it is clear to all where each request ends."""
        return all(each.framing is None and "no length" not in each.twists for each in self.asked)

    def requests(self, known: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """Heads and bodies, in order."""
        sent = [each.sent(known) for each in self.asked]
        return [sent[number % len(sent)] for number in self.order]


def _rarely(what: st.SearchStrategy[Any], ordinary: Any, one_in: int) -> st.SearchStrategy[Any]:
    """Not at either end of the range, which Hypothesis likes to draw."""
    return st.integers(0, one_in - 1).flatmap(lambda drawn: what if drawn == 1 else st.just(ordinary))


@st.composite
def _asked(draw: st.DrawFn, *, odd: bool) -> Asked:
    base = draw(_rarely(st.sampled_from([*OTHERS]), None, 3)) if odd else None
    names = [name for name in TWISTS if odd or name.startswith(STAYS_PLAIN)]
    twists = st.lists(st.sampled_from(names), min_size=1, max_size=2).map(tuple)
    return Asked(
        base or draw(st.sampled_from([*HITS])),
        draw(_rarely(twists, (), 3)),
        draw(_rarely(st.sampled_from([*FRAMINGS]), None, 4)) if odd else None,
    )


cuts = st.one_of(
    st.sampled_from(["each", "apart", "each", "apart", "at once"]),
    st.lists(st.integers(1, 999), min_size=1, max_size=5).map(tuple),
)


@st.composite
def _plays(draw: st.DrawFn) -> Play:
    return Play(
        cut=draw(_rarely(st.just("byte by byte"), None, 20)) or draw(cuts),
        late=draw(_rarely(st.integers(0, 5), None, 8)),
        brisk=draw(_rarely(st.integers(0, 4), None, 4)),
        reads_at_once=draw(_rarely(st.just(False), True, 6)),
        ending=draw(_rarely(st.sampled_from(["half-close", "close", "reset"]), "stay", 4)),
        before=draw(_rarely(st.sampled_from(["0.3 s", "0.8 s", "an hour", "revoked", "restored"]), "nothing", 4)),
    )


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Most are what clients mean to send, so that the fast lane has something to answer; many differ in one request."""
    asked = draw(st.lists(_asked(odd=False), min_size=1, max_size=3))
    odd = draw(_rarely(_asked(odd=True), None, 2))
    order = draw(st.lists(st.integers(0, 3), min_size=1, max_size=7))
    plays = draw(st.lists(_plays(), min_size=2, max_size=4))
    return Script((*asked, *([odd] if odd else [])), tuple(order), tuple(plays))
