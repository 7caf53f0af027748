"""What of HTTP is refused before any work is done, and reading a body within bounds.

Keeps rules 1 and 7. aiohttp refuses what is malformed; this refuses what is well-formed but can be read in two ways
(request smuggling), or asks for what an edge does not do. Client framing never crosses the node: what goes to clusters is
built new. See docs/threat-model.md.
"""

import asyncio
import re

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from edgecache.cache.trace import PARENT, STATE, Trace
from edgecache.cache.trace import read as read_trace
from edgecache.delivery.limits import RequestLimits
from edgecache.errors import ClientError

HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
_CDN_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
#: Where a connection may go on as a WebSocket.
SOCKET_PATH = "/ws/tts/stream"
_WITH_BODY = frozenset({"POST"})
#: An honest chain of edges is short.
MAX_HOPS = 8


def check(request: web.BaseRequest) -> None:
    """Refuses a request whose framing or target is unclear. ClientError: 400, 415, 417 or 501."""
    if request.version not in ((1, 0), (1, 1)):
        raise ClientError(505, "http_version", "This edge speaks HTTP/1.1.")
    target = request.raw_path
    if not target.startswith("/"):
        raise _unclear("The request target must be a path; this is not a forward proxy.")
    if not target.isascii():
        raise _unclear("The request target holds bytes that are not ASCII; percent-encode them.")
    _check_lines(request)
    _check_framing(request)


def _check_lines(request: web.BaseRequest) -> None:
    hosts = 0
    for name, line in request.raw_headers:
        if not line.isascii():
            raise _unclear("A header holds bytes that are not ASCII.")
        if name.lower() == b"host":
            hosts += 1
            if not HOST.fullmatch(line):
                raise _unclear("The Host header is not a host.")
    if hosts == 0 and request.version >= (1, 1):
        raise _unclear("There is no Host header.")


def _check_framing(request: web.BaseRequest) -> None:
    headers = request.headers
    coding = headers.getall("Transfer-Encoding", ())
    if coding and (len(coding) != 1 or coding[0].strip().lower() != "chunked" or "Content-Length" in headers):
        raise _unclear("Transfer-Encoding must be `chunked` alone.")
    if "Upgrade" in headers and not (request.method == "GET" and request.path == SOCKET_PATH):
        raise _unclear("This edge does not upgrade connections here.")
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise ClientError(415, "content_encoding", "Send the body as it is, without Content-Encoding.")
    expected = headers.get("Expect")
    if expected is not None and expected.strip().lower() != "100-continue":
        raise ClientError(417, "expectation", "Only `Expect: 100-continue` is met here.")
    has_body = bool(coding) or headers.get("Content-Length", "0").strip() not in ("", "0")
    if has_body and request.method not in _WITH_BODY:
        raise _unclear(f"A {request.method} takes no body here.")


def _unclear(message: str) -> ClientError:
    return ClientError(400, "bad_request", message)


async def read_body(request: web.BaseRequest, limits: RequestLimits) -> bytes:
    """The whole body. ClientError: too large, too slow, or malformed."""
    length = request.content_length
    if length is not None and length > limits.body_bytes:
        raise _too_large(limits)
    if request.headers.get("Expect") is not None and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    chunks: list[bytes] = []
    size = 0
    try:
        if length is not None and request.content.is_eof():  # it came with its head, as nearly all do
            return request.content.read_nowait()
        async with asyncio.timeout(limits.body_timeout_s):
            while chunk := await request.content.readany():
                size += len(chunk)
                if size > limits.body_bytes:
                    raise _too_large(limits)
                chunks.append(chunk)
    except TimeoutError as error:
        raise ClientError(
            408, "body_too_slow", f"The body was not there within {limits.body_timeout_s:g} s."
        ) from error
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise ClientError(400, "bad_body", "The body is not framed as its head says, or was broken off.") from error
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limits: RequestLimits) -> ClientError:
    return ClientError(413, "body_too_large", f"A body may have {limits.body_bytes} bytes here.")


def trace_of(request: web.BaseRequest) -> Trace | None:
    """The span that the request was made in; None: it says none, or not clearly."""
    said = request.headers.getall(PARENT, ())
    if len(said) != 1:
        return None
    return read_trace({PARENT: said[0], STATE: ",".join(request.headers.getall(STATE, ()))})


def loop_passed(cdn_loop: str | None, own_id: str) -> str:
    """The CDN-Loop to forward (RFC 8586): what came in, with our own id behind. ClientError 508: we were there."""
    members = [member.strip() for member in cdn_loop.split(",")] if cdn_loop else []
    ids = [member.split(";", 1)[0].strip() for member in members]
    if own_id in ids or len(ids) > MAX_HOPS:
        raise ClientError(
            508, "loop", f"This request has come by {own_id} before, or through more than {MAX_HOPS} edges."
        )
    if not all(_CDN_ID.fullmatch(each) for each in ids):
        raise _unclear("The CDN-Loop header is not a list of names.")
    return ", ".join([*ids, own_id])


def forwarding(node: str, cdn_loop: str, trace: Trace | None) -> dict[str, str]:
    """What goes with a request to a cluster, besides what is asked for. trace: the span that asks."""
    told = {"Via": f"1.1 {node} (edgecache)", "CDN-Loop": cdn_loop}
    return told if trace is None else {**told, **trace.headers}
