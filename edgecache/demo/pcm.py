"""Raw audio of the demo cluster: mono, signed 16 bit, little-endian samples, and the WAV header before them.

Keeps one rule: sizes in a header are either right or say that they are not known. It does not know where samples come
from nor how fast they are sent.
"""

import struct
import sys
from array import array
from collections.abc import Iterable

BYTES_PER_SAMPLE = 2
WAV_HEADER_BYTES = 44
#: What a WAV header says when the length is not known yet: as much as fits (what ffmpeg writes into a pipe).
UNKNOWN_BYTES = 0xFFFFFFFF

_WAV = struct.Struct("<4sI4s4sIHHIIHH4sI")


def wav_header(rate_hz: int, audio_bytes: int | None) -> bytes:
    """The 44 bytes before the samples; None: the length is not known yet."""
    whole = UNKNOWN_BYTES if audio_bytes is None else audio_bytes + WAV_HEADER_BYTES - 8
    samples = UNKNOWN_BYTES if audio_bytes is None else audio_bytes
    second_bytes = rate_hz * BYTES_PER_SAMPLE
    return _WAV.pack(
        *(b"RIFF", whole, b"WAVE", b"fmt ", 16, 1, 1, rate_hz, second_bytes, BYTES_PER_SAMPLE, 16, b"data", samples)
    )


def seconds(audio_bytes: int, rate_hz: int) -> float:
    """How long so many bytes sound."""
    return audio_bytes / (rate_hz * BYTES_PER_SAMPLE)


def samples(pcm: bytes) -> "array[int]":
    """The samples in these bytes, on a machine of either byte order."""
    read = array("h", pcm)
    if sys.byteorder == "big":
        read.byteswap()
    return read


def packed(sound: Iterable[int]) -> bytes:
    """These samples as bytes."""
    written = array("h", sound)
    if sys.byteorder == "big":
        written.byteswap()
    return written.tobytes()


class Resampler:
    """Linear interpolation from one sample rate to another, piece by piece.

    Whole numbers throughout, so the result does not depend on where the pieces are cut.
    """

    __slots__ = ("_at", "_from_hz", "_held", "_last", "_to_hz")

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._from_hz = from_hz
        self._to_hz = to_hz
        # Where the next sample lies, in 1/to_hz of an input sample after `_last`; `_last` is None before the first.
        self._at = 0
        self._last: int | None = None
        self._held = b""

    def feed(self, pcm: bytes) -> bytes:
        """The samples that can be told by now."""
        pcm = self._held + pcm
        even = len(pcm) & ~1
        self._held = pcm[even:]
        if self._from_hz == self._to_hz:
            return pcm[:even]
        known = samples(pcm[:even])
        if self._last is not None:
            known.insert(0, self._last)
        if not known:
            return b""
        unit = self._to_hz
        end = (len(known) - 1) * unit
        made = [
            known[at // unit] + (known[at // unit + 1] - known[at // unit]) * (at % unit) // unit
            for at in range(self._at, end, self._from_hz)
        ]
        self._at += len(made) * self._from_hz - end
        self._last = known[-1]
        return packed(made)
