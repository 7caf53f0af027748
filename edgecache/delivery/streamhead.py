"""The head of an answer that is told as it is made, rendered once for all that differ in nothing but times and names. Pure.

What is said comes from `delivery.head`; here it is only spelled out.
"""

from collections.abc import Mapping
from math import floor

from edgecache.delivery.head import SERVER, Made, forwarded_at
from edgecache.delivery.prepared import date_line, spelled_duration
from edgecache.fill.edge import Live

#: Stands where something differs; no header of ours can hold it.
_GAP = "\0"
_GAPS = Made(_GAP, _GAP, _GAP)
#: Clusters and media types are few. Past it all are rendered anew.
FORMS_AT_MOST = 256


class StreamHeads:
    """Of one node. ttl_s: how long what is made will be fresh."""

    __slots__ = ("_forms", "_node", "_ttl_s")

    def __init__(self, node: str, ttl_s: float) -> None:
        self._node, self._ttl_s = node, ttl_s
        #: What comes between the gaps.
        self._forms: dict[tuple[object, ...], list[bytes]] = {}

    def head(self, live: Live, elapsed_s: float, request_id: str, wall_now: float) -> bytes:
        """The whole head, to the empty line."""
        said, stored = live.head, live.head.stored
        alike = live.reason, live.joined, said.cluster, said.media_type, stored, said.followed
        form = self._forms.get(alike)
        if form is None:
            form = self._render(live, alike)
        took, upstream = spelled_duration(elapsed_s), spelled_duration(said.first_audio_s)
        name, date = request_id.encode(), date_line(floor(wall_now)).encode()
        if not stored:
            return b"%b%b%b%b%b%b%b%b%b" % (form[0], took, form[1], upstream, form[2], name, form[3], date, form[4])
        key = live.flight.key.encode()
        kept = form[0], took, form[1], upstream, form[2], key, form[3], name, form[4], date, form[5]
        return b"".join(kept)

    def _render(self, live: Live, alike: tuple[object, ...]) -> list[bytes]:
        text = spelled_stream(forwarded_at(self._node, live, "POST", _GAPS, self._ttl_s), _GAP, _GAP)
        if len(self._forms) >= FORMS_AT_MOST:
            self._forms.clear()
        form = self._forms[alike] = text.split(_GAP.encode())
        return form


def spelled_stream(headers: Mapping[str, str], request_id: str, date: str) -> bytes:
    """The head of a chunked answer."""
    lines = [f"{name}: {text}" for name, text in headers.items()]
    ends = f"Server: {SERVER}\r\nX-Request-Id: {request_id}\r\nTransfer-Encoding: chunked\r\nDate: {date}"
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, ends, "", ""]).encode()
