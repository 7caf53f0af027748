"""What the speech of one answer comes to: one utterance's, or that of all sentences of a long text. Pure.

A text as a whole did as well as the sentence that did worst. Only the last speech is held on to: what came before is added
up, so that a long text keeps nothing in memory (rule 7). It does not know how speech is delivered.
"""

from edgecache.cache.status import Result, Worth
from edgecache.delivery.head import result
from edgecache.fill.edge import Recorded, Speech

_WORSE = (
    *(Result.NONE, Result.HIT_MEMORY, Result.HIT_REDIS, Result.STALE, Result.COLLAPSED, Result.MISS),
    *(Result.BYPASS, Result.ERROR),
)


class Account:
    """One answer's. first_audios: of the clusters that were asked for it alone, each with how long it took."""

    __slots__ = ("_last", "_settled", "cluster", "first_audios", "result")

    def __init__(self) -> None:
        self.result = Result.NONE
        self.cluster = ""
        self.first_audios: tuple[tuple[str, float], ...] = ()
        self._settled: Worth | None = None
        self._last: tuple[Speech, int] | None = None

    def __repr__(self) -> str:
        return f"<Account {self.result.value} of {self.cluster or 'nobody'}, worth {self.worth}>"

    def add(self, speech: Speech, characters: int) -> None:
        """One more is told; the one before is over. characters: how long its text is."""
        self._settled, self._last = self.worth, (speech, characters)
        told = result(speech)
        cluster = speech.recording.facts.cluster if isinstance(speech, Recorded) else speech.head.cluster
        if _WORSE.index(told) > _WORSE.index(self.result):
            self.result, self.cluster = told, cluster
        if not isinstance(speech, Recorded) and not speech.joined:
            self.first_audios += ((cluster, speech.head.first_audio_s),)

    @property
    def worth(self) -> Worth | None:
        """What need not be bought because of it, now that it is over; None: all of it was."""
        last = None if self._last is None else worth(*self._last)
        if last is None or self._settled is None:
            return last or self._settled
        return self._settled.plus(last)


def worth(speech: Speech, characters: int) -> Worth | None:
    """What a synthesis that was not made for this would have cost."""
    if isinstance(speech, Recorded):
        return Worth(characters, speech.recording.facts.duration_ms or 0) if speech.forward_status is None else None
    return Worth(characters, round(speech.flight.heard_s * 1000)) if speech.joined else None
