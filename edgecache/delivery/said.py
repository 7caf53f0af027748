"""What the fast lane remembers of requests, and what it answers: values that `delivery.fastlane` makes and reads."""

from typing import Any

import msgspec

from edgecache.cache.lookup import Asked
from edgecache.cache.recording import Recording
from edgecache.cache.status import Worth
from edgecache.cache.tally import Count
from edgecache.cache.trace import Trace
from edgecache.delivery.auth import Caller, Keyring
from edgecache.delivery.prepared import Prepared
from edgecache.delivery.ranges import Conditions
from edgecache.fill.edge import Place
from edgecache.speech.utterance import Utterance


class Said(msgspec.Struct):
    """What target and body ask for in a namespace, what that is worth, and the head of the answer as it was last given."""

    asked: Asked
    route: str
    method: str
    worth: Worth | None = None
    prepared: Prepared | None = None
    count: Count | None = None
    quick: "Quick | None" = None
    #: How long the text is, where it is not known yet what it is worth.
    characters: int = 0
    lent: "Lent | None" = None


#: Hits of one `Quick` since they were last counted: how many, their first bytes' seconds, how many stand on the ladder.
#: And the sheet of its audio, or None, and until when it has it at least.
Heard = list[Any]
#: What a hit takes that was judged in this second: until when that holds, by the lane's clock, and after how many purges;
#: where its recording stands, whose canonical utterance and namespace were compared; the head up to the request's id, as if
#: it took no time, and behind that.
Quick = tuple[float, int, Place, tuple[bytes, bytes], Heard]


#: The same of a hit in Redis: of which record, without its audio; until when and after how many purges; the head without
#: its gaps; where it is counted.
Lent = tuple[Recording, float, int, tuple[bytes, bytes, bytes], Count]


class Seen(msgspec.Struct, frozen=True):
    """A request that was read: what it asks for, and who was admitted with it by which keyring."""

    said: Said
    ring: Keyring
    caller: Caller
    request_id: bytes | None
    conditions: Conditions | None
    #: Where the body begins in what was remembered.
    body_at: int


class Wanted(Seen, frozen=True):
    """A request that was never heard before: its body, the utterance that it asks for, and the span that it was made in."""

    body: bytes
    utterance: Utterance
    trace: Trace | None


class Answer(msgspec.Struct, frozen=True):
    """What is to be sent. A body that is a view is lent: what of it is not sent at once is to be copied."""

    head: bytes
    body: bytes | memoryview
    request_id: str
    cluster: str
    #: Where it is counted, and as what it is counted that need not be bought.
    count: Count
    worth: Worth | None


class Awaited(msgspec.Struct, frozen=True):
    """A plain request whose body is still to come: so many bytes in all."""

    length: int
