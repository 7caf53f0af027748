"""When which words of a text are heard, as a cluster tells it. Pure.

Keeps rule 6 for what clusters say beside the audio: it is checked before it is believed, and what can't be true of this
text and this sound is dropped whole. It does not know how it was asked for.
"""

from collections.abc import Sequence

import msgspec

#: What a mark weighs in a tier.
MARK_BYTES = 160
#: A last word may end in silence that the cluster cut off.
SLACK_MS = 1000


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of the text, `start` to `end` in code points, and when it is heard, from the sound's beginning."""

    begins_ms: int
    ends_ms: int
    start: int
    end: int


class Timings(msgspec.Struct, frozen=True, array_like=True):
    """Both in the order in which they are heard; empty where the cluster does not tell."""

    words: tuple[Mark, ...] = ()
    sentences: tuple[Mark, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.words or self.sentences)

    @property
    def size_bytes(self) -> int:
        """What they weigh."""
        return MARK_BYTES * self.count

    @property
    def count(self) -> int:
        """How many marks there are."""
        return len(self.words) + len(self.sentences)

    def moved(self, by_ms: int, by_characters: int) -> "Timings":
        """The same within a longer sound of a longer text."""
        words, sentences = (
            tuple(
                Mark(each.begins_ms + by_ms, each.ends_ms + by_ms, each.start + by_characters, each.end + by_characters)
                for each in marks
            )
            for marks in (self.words, self.sentences)
        )
        return Timings(words, sentences)

    def followed_by(self, more: "Timings") -> "Timings":
        """Both, one behind the other; each already where it is in the whole."""
        return Timings(self.words + more.words, self.sentences + more.sentences)

    def told(self) -> dict[str, list[dict[str, int]]]:
        """As JSON has them, on both sides of the edge."""
        return {"words": _told(self.words), "sentences": _told(self.sentences)}


class _WireMark(msgspec.Struct):
    begins_ms: int
    ends_ms: int
    start: int
    end: int


class _Wire(msgspec.Struct):
    words: list[_WireMark] = msgspec.field(default_factory=list)
    sentences: list[_WireMark] = msgspec.field(default_factory=list)


_decoder = msgspec.json.Decoder(_Wire)


def read(told: bytes, characters: int, duration_ms: int | None) -> Timings:
    """What a cluster told of a text of so many code points; none if it can't be true."""
    try:
        wire = _decoder.decode(told)
    except (msgspec.MsgspecError, RecursionError):
        return Timings()
    longest_ms = (1 << 31) - 1 if duration_ms is None else duration_ms + SLACK_MS
    for marks in (wire.words, wire.sentences):
        if len(marks) > characters or not _in_order(marks, characters, longest_ms):
            return Timings()
    return Timings(_marks(wire.words), _marks(wire.sentences))


def _in_order(marks: Sequence[_WireMark], characters: int, longest_ms: int) -> bool:
    at_ms = 0
    for each in marks:
        if not (at_ms <= each.begins_ms <= each.ends_ms <= longest_ms and 0 <= each.start < each.end <= characters):
            return False
        at_ms = each.begins_ms
    return True


def _marks(marks: Sequence[_WireMark]) -> tuple[Mark, ...]:
    return tuple(Mark(each.begins_ms, each.ends_ms, each.start, each.end) for each in marks)


def _told(marks: Sequence[Mark]) -> list[dict[str, int]]:
    return [
        {"begins_ms": each.begins_ms, "ends_ms": each.ends_ms, "start": each.start, "end": each.end} for each in marks
    ]
