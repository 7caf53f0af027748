"""How one exchange goes, whichever lane it takes: what its `Outcome` is made of, after its last byte."""

from typing import TYPE_CHECKING

from edgecache.cache.status import WARM_UP, Outcome, Result
from edgecache.clock import Clock
from edgecache.delivery.account import Account
from edgecache.delivery.auth import ANYONE, Caller
from edgecache.fill.priority import Priority

if TYPE_CHECKING:
    from edgecache.cache.trace import Trace
    from edgecache.delivery.listening import Listening

#: A part of a recording is asked for by who has bought the whole of it.
_WHOLLY_ANSWERED = frozenset({200, 304})


class Course:
    """One request under way: who asks, since when, and what became of it."""

    __slots__ = (
        "_began_s",
        "_clock",
        "_first_byte_s",
        "_sent_bytes",
        "account",
        "broken",
        "caller",
        "cluster",
        "error",
        "listening",
        "method",
        "priority",
        "request_id",
        "result",
        "route",
        "status",
        "trace",
    )

    def __init__(self, method: str, request_id: str, clock: Clock, began_s: float) -> None:
        self.method = method
        self.request_id = request_id
        self.caller: Caller = ANYONE
        self.route = "other"
        self.priority = Priority.INTERACTIVE
        self.result = Result.NONE
        self.status = 0
        self.cluster = ""
        self.error = ""
        #: What the speech of this answer comes to.
        self.account = Account()
        #: Who is imagined to hear it, if it is a stream.
        self.listening: Listening | None = None
        #: The span that this exchange is, where spans are told.
        self.trace: Trace | None = None
        #: Whether the client was told, in the answer itself, that it broke off.
        self.broken = False
        self._clock = clock
        self._began_s = began_s
        self._first_byte_s: float | None = None
        self._sent_bytes = 0

    @property
    def background(self) -> bool:
        """Whether nobody waits for the answer: then it is counted apart, and nobody is imagined to hear it."""
        return self.priority is not Priority.INTERACTIVE

    def elapsed_ms(self) -> float:
        """Since the request's head was read."""
        return (self._clock.monotonic() - self._began_s) * 1000

    def outcome(self, *, whole: bool) -> Outcome:
        """What it came to."""
        total_ms = self.elapsed_ms()
        first_byte_ms = total_ms if self._first_byte_s is None else (self._first_byte_s - self._began_s) * 1000
        return Outcome(
            request_id=self.request_id,
            caller=self.caller.name,
            method=self.method,
            route=WARM_UP if self.background else self.route,
            status=self.status,
            result=self.result,
            sent_bytes=self._sent_bytes,
            first_byte_ms=first_byte_ms,
            total_ms=total_ms,
            whole=whole and not self.broken,
            cluster=self.cluster,
            error=self.error,
            first_audios=self.account.first_audios,
            worth=self.account.worth if whole and self.status in _WHOLLY_ANSWERED and not self.background else None,
            played=None if self.listening is None or self.background else self.listening.played(),
            trace=self.trace,
        )
