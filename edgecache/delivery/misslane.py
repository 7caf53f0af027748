"""The miss lane: a plain request for speech that nobody has goes forward without aiohttp.

It begins where the fast lane ends: the request was read, its caller admitted, and what it asks for was never heard here, or
no tier has it any more. The body is read here as aiohttp's lane reads it, and `Edge.begin` takes it from there. Whatever is
not plain speech in one piece, such as long text or what can't be read, is not taken, and goes to aiohttp byte for byte.
"""

from typing import TYPE_CHECKING

from edgecache.delivery import plain
from edgecache.delivery.fastlane import id_of
from edgecache.delivery.framing import forwarding, loop_passed
from edgecache.delivery.heads import Known
from edgecache.delivery.longtext import by_sentence
from edgecache.delivery.miss import Found, Line, Miss
from edgecache.delivery.said import Said, Seen, Wanted
from edgecache.dialects import speeko
from edgecache.errors import ClientError
from edgecache.fill.edge import Begun, Recorded, Wish

if TYPE_CHECKING:
    from edgecache.cache.key import Key
    from edgecache.delivery.http import Service

#: Where speech is asked for, as the target has it, and what that is counted as.
_ROUTES = {b"/v1/tts": "/v1/tts", b"/v1/tts/stream": "/v1/tts/stream"}


class MissLane:
    """The miss lane of a node."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._edge = service.edge
        if service.lane is not None:
            service.lane.unheard = self.wanted
        self._passed = loop_passed(None, service.cdn_id)
        self._untraced = forwarding(service.node, self._passed, None)
        #: Requests that aiohttp never saw.
        self.taken = 0

    def __repr__(self) -> str:
        return f"<MissLane {self.taken} taken>"

    def wanted(self, known: Known, body: bytes) -> Wanted | None:
        """What this request asks for; None: aiohttp is to say."""
        found, ring, caller = known
        route = _ROUTES.get(found.target)
        if route is None or found.method != "POST":
            return None
        service = self._service
        try:
            asked = speeko.request(body, service.longest_text)
            if by_sentence(asked, service.long_text, service.limits.text_characters, http_1_1=True):
                return None
            named = self._edge.asked(Wish(asked.utterance, caller.namespace))
        except ClientError:
            return None
        request_id = None if found.request_id is None else found.request_id.encode()
        said = Said(named, route, found.method, characters=len(asked.utterance.text))
        return Wanted(said, ring, caller, request_id, None, found.body_at, body, asked.utterance, found.trace)

    def again(self, seen: Seen, received: bytes) -> Wanted | None:
        """The same for a request that was remembered, of which the tiers have nothing any more."""
        if isinstance(seen, Wanted):
            return seen
        found = plain.read(received)
        return None if found is None else self.wanted(Known(found, seen.ring, seen.caller), received[found.body_at :])

    def begin(self, line: Line, wanted: Wanted, began_s: float, looked_for: "Key | None") -> Miss | None:
        """Goes forward with it; its answer is to be begun, and the line is told when it is over. None: it is not for here.

        looked_for: Redis was just asked for this in vain.
        """
        service, utterance = self._service, wanted.utterance
        span = None if service.begin_span is None else service.begin_span(wanted.trace)
        trace = span or wanted.trace
        passed = self._untraced if trace is None else forwarding(service.node, self._passed, trace)
        wish = Wish(utterance, wanted.caller.namespace, forwarding=passed, looked_for=looked_for)
        begun: Recorded | Begun | Exception | None
        try:
            begun = self._edge.begin(wish, wanted.said.asked)
        except Exception as error:  # a root: the client must not wait for what failed
            begun = error
        if begun is None:
            return None
        self.taken += 1
        miss = Miss(service, line, Found(begun, len(utterance.text)), id_of(wanted), began_s)
        miss.caller, miss.route, miss.trace = wanted.caller, wanted.said.route, span
        return miss


def miss_lane(service: "Service") -> MissLane | None:
    """There is one where there is a fast lane, which reads for it."""
    return None if service.lane is None else MissLane(service)
