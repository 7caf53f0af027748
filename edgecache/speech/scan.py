"""Reading a body of audio bit by bit, and the words for what it turned out to be.

Keeps rule 2 (never a partial recording): what is not proven whole is said to be incomplete, and what is no audio at all
is refused before its first sample, while the client can still be told. It does not know any format: those are in
`wav`, `mpeg`, `ogg`, `flac` and `pcm`; `formats` chooses among them.

Theory. A format is a generator, its walk. The walk asks for its next step (`Take` so many bytes, `Skip` so many, or
`Some` that are there) and is resumed when the body has brought them. So it reads from top to bottom like a reader of a
file, and how the body was cut into chunks can't change what it finds. When the body ends before a step is satisfied,
`cut()` is true and the walk is resumed with what there was; it then has to come to its end.
"""

from collections.abc import Generator
from typing import ClassVar, NamedTuple, TypeAlias

import msgspec

#: Longer than any body: skip to the end of it.
REST = 1 << 62
#: Leading white space before a body's first real byte is no audio format's; a JSON error may have some.
MAX_BLANK_BYTES = 1024
#: Speech is never longer than this and `LONGEST_S_PER_CHARACTER`: pauses, a jingle, a slow start.
LONGEST_FIXED_S = 10.0
#: Slow Chinese or Japanese takes 0.5 s a character, a spelt-out symbol or a digit of a long number about 1 s.
LONGEST_S_PER_CHARACTER = 2.0
#: Below this many characters all may be markup or emoji, which make no sound.
SHORTEST_FROM_CHARACTERS = 40
#: 500 characters a second. Fast speech is 25; one word in 20 words' worth of SSML tags still passes.
SHORTEST_S_PER_CHARACTER = 0.002
#: Rates beyond these are not rates (words a minute, say), or are ones that a cluster clamps.
SLOWEST_RATE, FASTEST_RATE = 0.1, 10.0

_BLANK = b" \t\r\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class NotAudio(Exception):
    """This body is not the audio that it says it is, or that was asked for.

    reason: a code, for programs and metrics. message: for people; never has any of the body's bytes in it.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Expected(msgspec.Struct, frozen=True):
    """What was asked for. format: lower case ("wav", "mp3"), None if left to the cluster. text_length: code points."""

    format: str | None
    sample_rate_hz: int | None
    text_length: int
    speaking_rate: float


class Measured(msgspec.Struct, frozen=True):
    """What the bytes say. container: "wav", "pcm", "mp3", "ogg/opus", "flac", "other".

    complete: the bytes prove that all is there; where a format has no such proof, that nothing speaks against it.
    why: "" when complete, else the reason, as a code.
    """

    container: str
    sample_rate_hz: int | None
    channels: int | None
    duration_ms: int | None
    complete: bool
    why: str


class Take(NamedTuple):
    """Resume me with exactly this many bytes; with fewer only when `cut()`."""

    length: int


class Skip(NamedTuple):
    """Resume me when this many bytes have gone by."""

    length: int


class Some(NamedTuple):
    """Resume me with whatever comes, at least one byte; with none only when `cut()`."""


Step: TypeAlias = Take | Skip | Some
Walk: TypeAlias = Generator[Step, bytes, None]


class Scan:
    """One body being read. A subclass is a format: it has a `walk`, which fills in what it finds.

    audible: the first sample was seen. position: bytes of the body that were read.
    why: the first reason found why it is not whole. samples: for each channel, None if not known.
    sound_at, frame_bytes: where the sound begins and how wide it is, where every frame of it has the same width; else 0.
    """

    #: Whether the body has an opening of its own, so that JSON or HTML in its place can be told from it.
    sniffs: ClassVar[bool] = True
    container = "other"

    def __init__(self, expected: Expected) -> None:
        self.expected = expected
        self.sample_rate_hz: int | None = None
        self.channels: int | None = None
        self.samples: int | None = None
        self.why = ""
        self.audible = False
        self.position = 0
        self.sound_at = self.frame_bytes = 0
        self._cut = False
        self._opening: bytes | None = b"" if self.sniffs else None
        self._held = bytearray()
        #: Bytes that the current step has had.
        self._had = 0
        self._walk: Walk | None = self.walk()
        self._step: Step = next(self._walk)

    def __repr__(self) -> str:
        heard = "audible" if self.audible else "silent"
        return f"<{type(self).__name__} {self.position} bytes, {heard}{', ' + self.why if self.why else ''}>"

    def walk(self) -> Walk:
        """The format, as steps. NotAudio only while not audible."""
        raise NotImplementedError

    @property
    def heard_samples(self) -> int | None:
        """Samples of each channel that were read so far; None: this format does not tell before its end."""
        return None

    @property
    def heard_s(self) -> float:
        """How long the sound is that was read so far; 0 where the bytes do not say."""
        if not (self.audible and self.sample_rate_hz):
            return 0.0
        samples = (self.position - self.sound_at) / self.frame_bytes if self.frame_bytes else self.samples or 0
        return samples / self.sample_rate_hz

    def cut(self) -> bool:
        """Whether the body ended before the last step was satisfied."""
        return self._cut

    def broken(self, refusal: str, why: str, message: str) -> None:
        """The bytes are not what they should be: before the first audio a refusal, later a reason not to store them."""
        if not self.audible:
            raise NotAudio(refusal, message)
        self.why = self.why or why

    def feed(self, chunk: bytes) -> None:
        """More of the body. NotAudio: it is not the audio that it says it is (never once it is audible)."""
        if self._opening is not None:
            self._opening += chunk
            if not _settled(self._opening):
                return
            chunk, self._opening = self._opening, None
        at, step = 0, self._step
        if isinstance(step, Skip) and self._had + len(chunk) < step.length:  # nearly all chunks of nearly all formats
            self.position += len(chunk)
            self._had += len(chunk)
            return
        while at < len(chunk):
            at += self._advance(chunk, at)

    def _advance(self, chunk: bytes, at: int) -> int:
        """Give the current step what it lacks; how many bytes it took."""
        step, here = self._step, len(chunk) - at
        if isinstance(step, Some):
            self.position += here
            self._resume(chunk[at:])
            return here
        used = min(step.length - self._had, here)
        self.position += used
        self._had += used
        satisfied = self._had == step.length
        if isinstance(step, Skip):
            if satisfied:
                self._resume(b"")
        elif satisfied and used == step.length:
            self._resume(chunk[at : at + used])
        else:
            self._held += chunk[at : at + used]
            if satisfied:
                self._resume(self._let_go())
        return used

    def _let_go(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held

    def _go_on(self, walk: Walk) -> None:
        """From here on this is walked."""
        self._walk, self._step = walk, next(walk)
        if not (isinstance(self._step, Some) or self._step.length):
            self._resume(b"")

    def _resume(self, brought: bytes) -> None:
        """Let the walk go on to the next step that needs something; when it is over, the rest goes by unseen."""
        self._had = 0
        walk = self._walk
        if walk is None:
            return
        try:
            self._step = walk.send(brought)
            while not (isinstance(self._step, Some) or self._step.length):
                self._step = walk.send(b"")
        except StopIteration:
            self._walk, self._step = None, Skip(REST)

    def finish(self) -> Measured:
        """The body has ended. NotAudio: there was no audio in it."""
        self._end()
        if not self.audible:
            raise NotAudio("empty_audio", "the cluster's answer ended before there was any audio in it")
        duration_ms = None
        if self.samples is not None and self.sample_rate_hz:
            duration_ms = round(self.samples * 1000 / self.sample_rate_hz)
        why = self.why or implausible(duration_ms, self.expected)
        return Measured(self.container, self.sample_rate_hz, self.channels, duration_ms, not why, why)

    def _end(self) -> None:
        """Let the walk see the end: from here on no step is satisfied."""
        self._cut = True
        while self._walk is not None:
            self._resume(self._let_go())


def _settled(opening: bytes) -> bool:
    """Whether a body that opens so may be audio; False if more of it is needed. NotAudio: it is text."""
    head = opening[:MAX_BLANK_BYTES]
    if _BYTE_ORDER_MARK.startswith(head):
        return False
    first = head.removeprefix(_BYTE_ORDER_MARK).lstrip(_BLANK)[:1]
    if first in (b"{", b"["):
        raise NotAudio("json_instead_of_audio", "the cluster said that this is audio and sent JSON")
    if first == b"<":
        raise NotAudio("html_instead_of_audio", "the cluster said that this is audio and sent HTML or XML")
    if not first and len(head) == MAX_BLANK_BYTES:
        raise NotAudio("text_instead_of_audio", "the cluster said that this is audio and sent white space")
    return bool(first)


def implausible(duration_ms: int | None, expected: Expected) -> str:
    """Why so long a sound can't be the whole of that text and no more; "" if it can.

    A cluster may ignore the speaking rate, so a rate only ever widens the bounds.
    """
    if duration_ms is None:
        return ""
    rate = min(max(expected.speaking_rate, SLOWEST_RATE), FASTEST_RATE)
    longest_s = LONGEST_FIXED_S + expected.text_length * LONGEST_S_PER_CHARACTER / min(rate, 1.0)
    shortest_s = expected.text_length * SHORTEST_S_PER_CHARACTER / max(rate, 1.0)
    if duration_ms > longest_s * 1000:
        return "too_long_for_text"
    if expected.text_length >= SHORTEST_FROM_CHARACTERS and duration_ms < shortest_s * 1000:
        return "too_short_for_text"
    return ""
