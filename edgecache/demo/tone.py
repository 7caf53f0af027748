"""The tone voice: audio that is a function of the utterance, instant and the same on every machine.

Keeps the rule that any 64 bytes of samples, at any place, belong to one utterance only, so every byte that an edge
serves can be traced to what was asked for. It does not know HTTP, and it asks no library, clock or file.

Theory. A character is a grain of 60 ms: a tone from a small bank that is made once, XORed with 32 samples of very quiet
noise, repeated. Which tone, and the noise, are a keyed BLAKE2b of the utterance's canonical form, the character and its
place. The noise takes the low five bits of each sample (-60 dB): 160 bits a period, which no two utterances share.
A *take* (of a cluster that says the same thing differently each time) has its number mixed in, and begins with that
number in the low bits of eight samples, so that it can be traced as well.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import count, islice

from edgecache.demo.pcm import BYTES_PER_SAMPLE, WAV_HEADER_BYTES, packed, samples, wav_header
from edgecache.speech.utterance import Value, utterance

DEFAULTS: Mapping[str, Value] = {
    "voice_id": "default",
    "language": "en",
    "speaking_rate": 1.0,
    "format": "wav",
    "sample_rate": 24000,
}
#: A take's number: five bits in each of eight samples.
TAKE_BITS = 40

_CHARACTER_S = 0.06
_PERIOD_BYTES = 64
_NOISE_BITS = 5
_LOW_BITS = (1 << _NOISE_BITS) - 1
_RAMP = 8  # a tone swells and fades over an eighth of its grain, so that it does not click
_AMPLITUDE = 9000
_TABLE_BITS = 11
#: Three octaves of a pentatonic scale from G3: any sequence of these is bearable.
_PITCHES_HZ = tuple(196.0 * 2 ** (octave + step / 12) for octave in range(3) for step in (0, 2, 4, 7, 9))
_TIMBRES = ((1.0, 0.0, 0.0), (0.7, 0.3, 0.0), (0.6, 0.1, 0.3), (0.5, 0.3, 0.2))
_REST = -1


def filled(fields: Mapping[str, Value]) -> dict[str, Value]:
    """The fields with the wire's defaults where nothing is said."""
    return {**DEFAULTS, **{name: value for name, value in fields.items() if value is not None}}


def take_mark(take: int | None) -> bytes:
    """What a take begins with."""
    if take is None:
        return b""
    return packed([take >> shift & _LOW_BITS for shift in range(0, TAKE_BITS, _NOISE_BITS)])


def take_in(body: bytes, form: str = "wav") -> int | None:
    """The number of the take that these bytes begin; None: there are too few of them."""
    start = WAV_HEADER_BYTES if form == "wav" else 0
    mark = body[start : start + len(take_mark(0))]
    if len(mark) < len(take_mark(0)):
        return None
    return sum((low & _LOW_BITS) << place * _NOISE_BITS for place, low in enumerate(samples(mark)))


class Tone:
    """The audio of one utterance, before and with its container."""

    __slots__ = ("_digest", "_grain_bytes", "_mark", "_text", "audio_bytes", "format", "header", "rate_hz")

    def __init__(self, fields: Mapping[str, Value], *, size_bytes: int = 0, take: int | None = None) -> None:
        """size_bytes: how long the whole body is to be (0: as the text); the field `demo.bytes` goes first."""
        asked = utterance(filled(fields))
        self._mark = take_mark(take)
        self._digest = hashlib.blake2b(asked.canonical + self._mark, digest_size=32).digest()
        self._text = asked.text or " "
        self.format = asked.format or "wav"
        self.rate_hz = asked.sample_rate_hz or 24000
        grain_samples = max(_PERIOD_BYTES // BYTES_PER_SAMPLE, round(_CHARACTER_S * self.rate_hz / asked.speaking_rate))
        self._grain_bytes = grain_samples * BYTES_PER_SAMPLE
        self.audio_bytes = self._length(_own_size(asked.fields) or size_bytes)
        self.header = wav_header(self.rate_hz, self.audio_bytes) if self.format == "wav" else b""

    def _length(self, size_bytes: int) -> int:
        if not size_bytes:
            return len(self._mark) + len(self._text) * self._grain_bytes
        return max(0, size_bytes - WAV_HEADER_BYTES) if self.format == "wav" else size_bytes

    def grains(self) -> Iterator[bytes]:
        """The samples, a character at a time; the text is said over and over when more is asked for."""
        yield self._mark[: self.audio_bytes]
        left = self.audio_bytes - len(self._mark)
        place = 0
        while left > 0:
            grain = self._grain(place)
            yield grain if left >= len(grain) else grain[:left]
            left -= len(grain)
            place += 1

    def _grain(self, place: int) -> bytes:
        character = self._text[place % len(self._text)]
        noise = hashlib.blake2b(
            place.to_bytes(4, "big") + character.encode(), key=self._digest, digest_size=_PERIOD_BYTES
        ).digest()
        size = self._grain_bytes
        pitch = _REST if character.isspace() else noise[1] % len(_PITCHES_HZ)
        sound = _bank(pitch, noise[3] % len(_TIMBRES), size, self.rate_hz)
        spread = int.from_bytes((noise * (size // _PERIOD_BYTES + 1))[:size], "little")
        return (sound ^ (spread & _low_bits(size))).to_bytes(size, "little")


def _own_size(fields: Mapping[str, Value]) -> int:
    demo = fields.get("demo")
    size = demo.get("bytes") if isinstance(demo, dict) else None
    return size if isinstance(size, int) and size > 0 else 0


def audio(fields: Mapping[str, Value], *, size_bytes: int = 0, take: int | None = None) -> bytes:
    """The whole body that the tone voice answers these fields with. ValueError: a format that needs an encoder."""
    tone = Tone(fields, size_bytes=size_bytes, take=take)
    if tone.format not in ("wav", "pcm"):
        raise ValueError(f"what {tone.format} looks like is known to its encoder only; ask for wav or pcm")
    return tone.header + b"".join(tone.grains())


def owner_mismatch(
    body: bytes, fields: Mapping[str, Value], *, whole: bool = True, size_bytes: int = 0, takes: bool = False
) -> str | None:
    """None: these bytes are what belongs to the utterance. Else what is wrong with them.

    whole: all of it has to be there; else a prefix will do. takes: the cluster makes takes; any one of them will do.
    """
    take = take_in(body, utterance(filled(fields)).format or "wav") if takes else None
    due = audio(fields, size_bytes=size_bytes, take=take)
    if body == due or (not whole and due.startswith(body)):
        return None
    for place, (is_there, belongs) in enumerate(zip(body, due, strict=False)):
        if is_there != belongs:
            return f"byte {place} of {len(due)} belongs to something else"
    return f"{len(body)} bytes instead of {len(due)}"


@lru_cache(maxsize=16)
def _low_bits(size: int) -> int:
    return int.from_bytes((bytes([_LOW_BITS, 0]) * (size // 2 + 1))[:size], "little")


@lru_cache(maxsize=1024)
def _bank(pitch: int, timbre: int, size: int, rate_hz: int) -> int:
    """One tone of the bank as a number, so that noise is one XOR away."""
    if pitch == _REST:
        return 0
    table = _period(timbre)
    step = round(_PITCHES_HZ[pitch] / rate_hz * (1 << 32))
    shift, mask = 32 - _TABLE_BITS, (1 << _TABLE_BITS) - 1
    sound = [table[(phase >> shift) & mask] for phase in islice(count(0, step), size // BYTES_PER_SAMPLE)]
    ramp = len(sound) // _RAMP
    for place in range(ramp):
        sound[place] = sound[place] * place // ramp
        sound[-1 - place] = sound[-1 - place] * place // ramp
    return int.from_bytes(packed(sound), "little")


@lru_cache(maxsize=len(_TIMBRES))
def _period(timbre: int) -> tuple[int, ...]:
    """One period of a timbre: a sine and a few of its overtones."""
    size = 1 << _TABLE_BITS
    return tuple(
        round(
            _AMPLITUDE
            * sum(loud * math.sin(2 * math.pi * part * n / size) for part, loud in enumerate(_TIMBRES[timbre], start=1))
        )
        for n in range(size)
    )
