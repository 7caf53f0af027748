"""Sounds made one by one into one stream that plays. Pure.

Samples are joined and framed once: each WAV is taken out of its container, and the first one's format goes before all.
MP3 frames follow each other without the tags and the Xing headers that count only their own. Sounds that differ in rate,
channels or coding are refused, as are containers that can't be joined without being made anew (Ogg, FLAC, MP4, WebM).
It does not know where sounds come from; that they are whole is for `formats` to say.
"""

from dataclasses import dataclass
from typing import Protocol

from edgecache.errors import ClientError, UpstreamError
from edgecache.speech import mpeg
from edgecache.speech.formats import Expected, kind_of, satisfying
from edgecache.speech.pcm import Layout, layout
from edgecache.speech.scan import REST
from edgecache.speech.wav import Wav, opening

JOINABLE = ("wav", "pcm", "g711", "mp3")
_ANY = Expected(None, None, 0, 1.0)


@dataclass(frozen=True, slots=True)
class Shape:
    """What sounds must have in common. coding: how samples are written. opening: what goes before the first of them."""

    coding: tuple[object, ...]
    sample_rate_hz: int
    channels: int
    opening: bytes = b""


class Part(Protocol):
    """One sound. shape: None until it is known, which is before the first byte is given. samples: given so far."""

    shape: Shape | None
    samples: int

    def feed(self, chunk: bytes) -> bytes: ...


class _Frames:
    """Cuts samples at whole frames: half a frame at an end would turn all that follows into noise."""

    def __init__(self, frame_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        joined = self._held + chunk if self._held else chunk
        over = len(joined) % self._frame_bytes
        self._held = joined[len(joined) - over :] if over else b""
        return joined[: len(joined) - over] if over else joined


class _Samples:
    """Headerless samples."""

    def __init__(self, media_type: str, lie: Layout) -> None:
        self.shape: Shape | None = Shape((media_type.lower(), lie), lie.sample_rate_hz, lie.channels)
        self.samples = 0
        self._frame_bytes = lie.channels * lie.sample_bytes
        self._frames = _Frames(self._frame_bytes)

    def feed(self, chunk: bytes) -> bytes:
        sound = self._frames.feed(chunk)
        self.samples += len(sound) // self._frame_bytes
        return sound


class _Wav:
    """A WAV without its container."""

    def __init__(self) -> None:
        self.shape: Shape | None = None
        self.samples = 0
        self._scan = Wav(_ANY)
        self._head: bytes | None = b""
        self._left = 0
        self._frames = _Frames(1)

    def feed(self, chunk: bytes) -> bytes:
        if self._head is not None:
            self._scan.feed(chunk)
            self._head += chunk
            if not self._scan.audible:
                return b""
            chunk, self._head = self._head[self._scan.sound_at :], None
            self._begin()
        sound = self._frames.feed(chunk[: self._left])
        self._left -= min(len(chunk), self._left)
        self.samples += len(sound) // self._scan.frame_bytes
        return sound

    def _begin(self) -> None:
        scan = self._scan
        assert scan.sample_rate_hz
        assert scan.channels
        self._left = scan.sound_bytes or REST
        self._frames = _Frames(scan.frame_bytes)
        self.shape = Shape(
            ("wav", scan.format_chunk[:2], scan.format_chunk[12:]),
            scan.sample_rate_hz,
            scan.channels,
            opening(scan.format_chunk),
        )


class _Mp3:
    """MP3 frames alone."""

    def __init__(self) -> None:
        self.shape: Shape | None = None
        self.samples = 0
        self._held = b""
        self._skip = 0
        self._first = True

    def feed(self, chunk: bytes) -> bytes:
        held, given, at = self._held + chunk, [], 0
        while True:
            if self._skip:
                passed = min(self._skip, len(held) - at)
                self._skip -= passed
                at += passed
            if len(held) - at < 10:  # the longest head: an ID3 tag's
                break
            found = mpeg.frame(held[at : at + 4])
            if found is None:
                self._skip = mpeg.tag_bytes(held[at : at + 10]) or 1
            elif len(held) - at < found.length_bytes:
                break
            else:
                given.append(self._frame(found, held[at : at + found.length_bytes]))
                at += found.length_bytes
        self._held = held[at:]
        return b"".join(given)

    def _frame(self, found: mpeg.Frame, whole: bytes) -> bytes:
        first, self._first = self._first, False
        if first and whole[4 + found.side_bytes :][:4] in (b"Xing", b"Info"):
            return b""
        self.shape = self.shape or Shape(found.kind, found.sample_rate_hz, found.channels)
        self.samples += found.samples
        return whole


class Joiner:
    """One stream under way. `begin` a sound, `feed` it; then the next."""

    def __init__(self) -> None:
        self.shape: Shape | None = None
        #: Of the sounds before this one.
        self._samples = 0
        self._part: Part | None = None

    def __repr__(self) -> str:
        return f"<Joiner {self.position_ms} ms>"

    def begin(self, media_type: str, asked_format: str | None, asked_rate_hz: int | None) -> None:
        """A sound of this `Content-Type` is next. ClientError: such sounds can't be joined."""
        if self._part is not None:
            self._samples += self._part.samples
        self._part = _part(media_type, Expected(asked_format, asked_rate_hz, 0, 1.0))

    def give_up(self) -> None:
        """The sound under way is dropped; for when none of it was given."""
        self._part = None

    def feed(self, chunk: bytes) -> bytes:
        """What is next in the stream. UpstreamError: this sound differs from those before it."""
        part = self._part
        assert part is not None
        sound = part.feed(chunk)
        if not sound:
            return b""
        shape = part.shape
        assert shape is not None
        if self.shape is None:
            self.shape = shape
            return shape.opening + sound
        if shape != self.shape:
            raise UpstreamError(
                502,
                "sentences_differ",
                "The cluster gave one sentence in another sample rate or coding than the first.",
            )
        return sound

    @property
    def position_ms(self) -> int:
        """How much has been given, as it sounds."""
        return self._ms(self._samples + (self._part.samples if self._part else 0))

    @property
    def begins_ms(self) -> int:
        """Where the sound under way begins."""
        return self._ms(self._samples)

    def _ms(self, samples: int) -> int:
        return round(samples * 1000 / self.shape.sample_rate_hz) if self.shape else 0


def may_be_joined(asked_format: str | None) -> bool:
    """Whether sounds in this format can be joined, as far as its name tells."""
    kinds = satisfying(asked_format)
    return not kinds or kinds[0] in JOINABLE


def _part(media_type: str, expected: Expected) -> Part:
    kind, subtype, parameters = kind_of(media_type, expected)
    match kind:
        case "wav":
            return _Wav()
        case "mp3":
            return _Mp3()
        case "pcm" | "g711":
            return _Samples(media_type, layout(subtype, parameters, expected))
        case _:
            raise not_joinable(media_type)


def not_joinable(what: str) -> ClientError:
    """Why long text can't be had in this."""
    return ClientError(
        422,
        "not_joinable",
        f"Long text is joined from its sentences, and {what[:60]} can't be without being made anew: ask for wav, pcm, "
        'mulaw, alaw or mp3, or send a shorter text with "chunking": "none".',
        param="format",
    )
