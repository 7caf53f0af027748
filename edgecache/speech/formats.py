"""Facts about audio: what a cluster's answer is, from its media type and, bit by bit, from its bytes.

Keeps rule 2 (only a rendering that is proven whole is stored) and finds the first audio, until which headers to the
client are held back. It does no I/O and does not know HTTP; each format's own facts are in its module.

An answer is refused (`NotAudio`) when its media type is not audio or contradicts what was asked for, and when its
bytes contradict the media type before there was any audio. What is wrong later makes it incomplete.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

from edgecache.speech.flac import Flac
from edgecache.speech.mpeg import Mpeg
from edgecache.speech.ogg import Ogg
from edgecache.speech.pcm import Pcm, layout
from edgecache.speech.scan import REST, Expected, Measured, NotAudio, Scan, Skip, Take, Walk
from edgecache.speech.wav import Wav

__all__ = ["Expected", "Inspector", "Measured", "NotAudio", "inspector"]

#: Of a media type that is quoted in a message.
_QUOTED_CHARACTERS = 60

_MEDIA_TYPE = re.compile(r"\s*([\w.+-]+)\s*/\s*([\w.+-]+)\s*", re.ASCII)
_PARAMETER = re.compile(r"""\s*([\w.+-]+)\s*=\s*"?([^";]*?)"?\s*""", re.ASCII)

#: `audio/<subtype>` to the kind of bytes it stands for. A subtype that is not here is another kind of audio.
_KINDS = {
    **dict.fromkeys(("wav", "x-wav", "wave", "vnd.wave", "x-pn-wav"), "wav"),
    **dict.fromkeys(("pcm", "x-pcm", "raw", "x-raw", "l8", "l16", "l20", "l24"), "pcm"),
    **dict.fromkeys(("basic", "mulaw", "x-mulaw", "alaw", "x-alaw", "pcmu", "pcma"), "g711"),
    **dict.fromkeys(("mpeg", "mp3", "x-mp3", "x-mpeg", "mpeg3", "x-mpeg-3", "mpg"), "mp3"),
    **dict.fromkeys(("ogg", "opus", "x-ogg", "x-opus", "vorbis"), "ogg"),
    **dict.fromkeys(("flac", "x-flac"), "flac"),
    **dict.fromkeys(("aac", "aacp", "x-aac", "x-hx-aac-adts"), "aac"),
    **dict.fromkeys(("mp4", "x-m4a", "m4a", "mp4a-latm"), "mp4"),
    "webm": "webm",
}
#: A format asked for, to the kinds that satisfy it; the first is what `application/octet-stream` is then taken for.
_SATISFYING = {
    **dict.fromkeys(("wav", "wave", "riff"), ("wav",)),
    **dict.fromkeys(("pcm", "raw", "l16"), ("pcm",)),
    **dict.fromkeys(("linear16", "linear"), ("pcm", "wav")),
    **dict.fromkeys(("mulaw", "ulaw", "alaw", "pcmu", "pcma", "pcm_mulaw", "pcm_alaw"), ("g711", "pcm", "wav")),
    **dict.fromkeys(("mp3", "mpeg"), ("mp3",)),
    **dict.fromkeys(("ogg", "vorbis"), ("ogg",)),
    "opus": ("ogg", "webm"),
    "flac": ("flac",),
    "aac": ("aac", "mp4"),
    **dict.fromkeys(("m4a", "mp4"), ("mp4", "aac")),
    "webm": ("webm",),
}


class Inspector(Protocol):
    """One body being listened to. Bounded memory; the work is in proportion to the bytes."""

    def feed(self, chunk: bytes) -> None:
        """More of the body. NotAudio: the bytes contradict the media type (never once it is audible)."""

    @property
    def audible(self) -> bool:
        """Whether the first sample or frame past the header was seen."""

    @property
    def container(self) -> str:
        """What the bytes are; right from the first sample on, as are the next three."""

    @property
    def sample_rate_hz(self) -> int | None: ...
    @property
    def channels(self) -> int | None: ...
    @property
    def heard_samples(self) -> int | None:
        """Samples of each channel that were read so far; None: this format does not tell before its end."""

    @property
    def heard_s(self) -> float:
        """How long the sound is that was heard so far; 0 where the bytes do not say."""

    def finish(self) -> Measured:
        """The body has ended. NotAudio("empty_audio"): there was no audio at all."""


class _Other(Scan):
    """A format that is not looked into: audible from its first byte, whole when its framing says so."""

    def walk(self) -> Walk:
        yield Take(1)
        if not self.cut():
            self.audible = True
            yield Skip(REST)


_SCANS: Mapping[str, Callable[[Expected], Scan]] = {"wav": Wav, "mp3": Mpeg, "ogg": Ogg, "flac": Flac}


def inspector(media_type: str, expected: Expected) -> Inspector:
    """Listens to a body of this `Content-Type`. NotAudio: it is no audio, or not the kind that was asked for."""
    kind, subtype, parameters = kind_of(media_type, expected)
    if kind in ("pcm", "g711"):
        return Pcm(expected, layout(subtype, parameters, expected))
    return _SCANS.get(kind, _Other)(expected)


def kind_of(media_type: str, expected: Expected) -> tuple[str, str, Mapping[str, str]]:
    """The kind of bytes that this `Content-Type` stands for, its subtype and its parameters. NotAudio: as in `inspector`."""
    subtype, parameters = _audio(media_type)
    wanted = satisfying(expected.format)
    if subtype:
        kind = _KINDS.get(subtype, "other")
    elif wanted:
        kind = wanted[0]
    else:
        raise NotAudio("media_type", "the cluster said application/octet-stream and no known format was asked for")
    if wanted and kind != "other" and kind not in wanted:
        raise NotAudio("format_mismatch", f"{expected.format} was asked for and the cluster said audio/{subtype}")
    return kind, subtype, parameters


@lru_cache(maxsize=64)
def _audio(media_type: str) -> tuple[str, Mapping[str, str]]:
    """The subtype of `audio/…` in lower case, and its parameters; "" as subtype for application/octet-stream."""
    essence, *rest = media_type.split(";")
    found = _MEDIA_TYPE.fullmatch(essence.lower())
    parameters = {each[1].lower(): each[2] for each in map(_PARAMETER.fullmatch, rest) if each}
    match found and found.groups():
        case ("audio", subtype):
            return subtype, parameters
        case ("application", "octet-stream"):
            return "", parameters
        case _:
            said = repr(media_type[:_QUOTED_CHARACTERS]) if media_type.strip() else "no media type"
            raise NotAudio("media_type", f"the cluster answered with {said}, which is not audio")


@lru_cache(maxsize=64)
def satisfying(asked: str | None) -> tuple[str, ...]:
    """The kinds that a format asked for may come as; none if it is not known. "mp3_44100_128" is mp3."""
    if asked is None:
        return ()
    return _SATISFYING.get(asked) or _SATISFYING.get(re.split("[_-]", asked, maxsplit=1)[0], ())
