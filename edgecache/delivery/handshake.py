"""Whether a connection may go on as a WebSocket, and for whom (RFC 6455 §4.2). Pure.

Keeps rule 8: a key comes in a header, never in the URL. Browsers can't set headers, so they may offer it among the
subprotocols (`edgecache.key.KEY`); it is never chosen, so never sent back, and nothing that is offered is logged.
A page of another origin may not use what the edge would do for its visitor.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from edgecache.delivery.auth import presented
from edgecache.delivery.talk import JSON, PROTOBUF
from edgecache.errors import ClientError

KEY_PREFIX = "edgecache.key."
PROTOCOLS = (JSON, PROTOBUF)
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client brings. protocol: which of ours is spoken. answer: what it is told of that; None: nothing."""

    protocol: str
    answer: str | None
    presented: str | None

    def __repr__(self) -> str:
        return f"<Offer {self.protocol}>"


def offer(headers: Mapping[str, str], origins: Collection[str]) -> Offer:
    """What these headers bring. ClientError: they are no handshake, or from a page that may not."""
    _check(headers)
    _check_origin(headers, origins)
    offered = [each.strip() for each in headers.get("Sec-WebSocket-Protocol", "").split(",") if each.strip()]
    keys = [each[len(KEY_PREFIX) :] for each in offered if each.startswith(KEY_PREFIX)]
    named = [each for each in offered if each in PROTOCOLS]
    if offered and not named:
        raise ClientError(400, "subprotocol", f"Offer {JSON} or {PROTOBUF} as subprotocol, or none at all.")
    key = presented(headers.get("X-API-Key"), headers.get("Authorization"))
    if key is None and keys:
        key = keys[0]
    return Offer(named[0] if named else JSON, named[0] if named else None, key)


def _check(headers: Mapping[str, str]) -> None:
    tokens = {each.strip().lower() for each in headers.get("Connection", "").split(",")}
    if headers.get("Upgrade", "").strip().lower() != "websocket" or "upgrade" not in tokens:
        raise ClientError(426, "upgrade_required", "Here a WebSocket is opened: send its handshake (RFC 6455).")
    if headers.get("Sec-WebSocket-Version", "").strip() != "13":
        raise ClientError(426, "websocket_version", "This edge speaks WebSocket version 13.")
    if not _KEY.fullmatch(headers.get("Sec-WebSocket-Key", "").strip()):
        raise ClientError(400, "websocket_key", "Sec-WebSocket-Key must be 16 bytes in base64.")


def _check_origin(headers: Mapping[str, str], origins: Collection[str]) -> None:
    origin = headers.get("Origin")
    if origin is None or "*" in origins or origin in origins:
        return
    try:
        from_here = urlsplit(origin).netloc.lower() == headers.get("Host", "").lower()
    except ValueError:
        from_here = False
    if not from_here:
        raise ClientError(
            403, "origin", "Pages of this origin may not open sessions; `websockets.origins` lists who may."
        )
