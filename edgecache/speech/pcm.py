"""Samples without a header: what the media type and the request say they are.

Keeps rule 2 as far as it can be kept here: headerless bytes prove nothing, so whole frames and a length that the text
can have are all that is asked for. Any byte may begin them, `{` too: they are never taken for JSON.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgecache.speech.scan import REST, Expected, Scan, Skip, Take, Walk

#: What OpenAI's dialect means by "pcm": 24 kHz, 16 bits, one channel.
DEFAULT_RATE_HZ = 24_000
#: G.711 of telephony (RFC 3551 §4.5.14, RFC 2046 §4.2).
G711_RATE_HZ = 8_000
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 768_000
MAX_CHANNELS = 64

_RATE_IN_NAME = re.compile(r"_(\d{4,6})(?:_|$)")
_BITS_IN_NAME = re.compile(r"(?:^|[_a-z])[sfu](8|16|24|32|64)(?:le|be)?$")
_LINEAR = re.compile(r"l(8|16|20|24|32)$")
_G711_IN_NAME = re.compile(r"(?:^|_)(?:u|mu|a)law(?:_|$)|^pcm[ua](?:_|$)")


@dataclass(frozen=True, slots=True)
class Layout:
    """How headerless samples lie in the bytes."""

    sample_rate_hz: int
    channels: int
    sample_bytes: int


def is_g711(name: str) -> bool:
    """Whether a format's name asks for µ-law or A-law."""
    return bool(_G711_IN_NAME.search(name))


def layout(subtype: str, parameters: Mapping[str, str], expected: Expected) -> Layout:
    """From `audio/<subtype>; rate=; channels=` first (RFC 3551), then from the request, then by custom."""
    asked = expected.format or ""
    g711 = is_g711(asked) or subtype in ("basic", "mulaw", "x-mulaw", "alaw", "x-alaw", "pcmu", "pcma")
    in_name = _RATE_IN_NAME.search(asked)
    rates = (
        _number(parameters.get("rate"), MIN_RATE_HZ, MAX_RATE_HZ),
        G711_RATE_HZ if g711 else None,
        expected.sample_rate_hz,
        int(in_name[1]) if in_name else None,
    )
    return Layout(
        sample_rate_hz=next((rate for rate in rates if rate), DEFAULT_RATE_HZ),
        channels=_number(parameters.get("channels"), 1, MAX_CHANNELS) or 1,
        sample_bytes=1 if g711 else _sample_bytes(subtype, parameters.get("format", ""), asked),
    )


def _sample_bytes(subtype: str, said: str, asked: str) -> int:
    found = _LINEAR.match(subtype) or _BITS_IN_NAME.search(said.lower()) or _BITS_IN_NAME.search(asked)
    return (int(found[1]) + 7) // 8 if found else 2


def _number(written: str | None, least: int, most: int) -> int | None:
    if written is None or not re.fullmatch(r"[0-9]{1,9}", written):
        return None
    number = int(written)
    return number if least <= number <= most else None


class Pcm(Scan):
    """Headerless samples being read."""

    container = "pcm"
    sniffs = False

    def __init__(self, expected: Expected, layout: Layout) -> None:
        self._layout = layout
        super().__init__(expected)

    @property
    def heard_samples(self) -> int | None:
        """All of it is sound."""
        return self.position // (self._layout.channels * self._layout.sample_bytes)

    def walk(self) -> Walk:
        """One whole frame, then the rest."""
        self.sample_rate_hz, self.channels = self._layout.sample_rate_hz, self._layout.channels
        self.frame_bytes = frame_bytes = self._layout.channels * self._layout.sample_bytes
        yield Take(frame_bytes)
        if self.cut():
            return
        self.audible = True
        yield Skip(REST)
        self.samples, over = divmod(self.position, frame_bytes)
        if over:
            self.why = "pcm_half_frame"
