"""Sounds to listen to in tests, and what they turn out to be.

`tests/audio` has 0.3 s of a sine tone, made with ffmpeg (`-f lavfi -i sine=frequency=440:duration=0.3`, bitexact);
`stream.mp3` is one without a Xing header, `tone.ogg` is Vorbis.
"""

import struct
from itertools import pairwise
from pathlib import Path

import pytest

from edgecache.speech.formats import Expected, Measured, NotAudio, inspector

AUDIO = Path(__file__).parent / "audio"
ANY = Expected(format=None, sample_rate_hz=None, text_length=10, speaking_rate=1.0)
RATE_HZ = 8000
SOUND = bytes(range(256)) * 24
UNKNOWN = 0xFFFFFFFF


def sample(name: str) -> bytes:
    return (AUDIO / name).read_bytes()


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    length = len(content) if size is None else size
    return name + struct.pack("<I", length) + content + bytes(len(content) % 2)


def fmt(tag: int = 1, channels: int = 1, rate_hz: int = RATE_HZ, bits: int = 16, frame_bytes: int = 0) -> bytes:
    align = frame_bytes or channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * align, align, bits))


def riff(*chunks: bytes, size: int | None = None, magic: bytes = b"RIFF") -> bytes:
    content = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(content) if size is None else size) + content


WAV = riff(fmt(), chunk(b"data", SOUND))
LIST = chunk(b"LIST", b"INFOISFT\x05\x00\x00\x00tests\x00")
DS64 = chunk(b"ds64", struct.pack("<QQQI", 72 + len(SOUND), len(SOUND), len(SOUND) // 2, 0))
EXTENSIBLE = chunk(
    b"fmt ", struct.pack("<HHIIHHHHIH", 0xFFFE, 1, RATE_HZ, 2 * RATE_HZ, 2, 16, 22, 16, 4, 1) + bytes(14)
)
ID3 = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)

MP3, BARE_MP3, FLAC = sample("tone.mp3"), sample("stream.mp3"), sample("tone.flac")
OPUS, VORBIS = sample("tone.opus"), sample("tone.ogg")
#: Every frame of the MP3 samples.
MP3_FRAME_BYTES = 108

WHOLE = {
    "wav": ("audio/wav", WAV),
    "mp3": ("audio/mpeg", MP3),
    "mp3 stream": ("audio/mpeg", BARE_MP3),
    "opus": ("audio/ogg", OPUS),
    "vorbis": ("audio/ogg", VORBIS),
    "flac": ("audio/flac", FLAC),
    "pcm": ("audio/pcm", SOUND),
    "mulaw": ("audio/basic", SOUND),
    "other": ("audio/aac", b"\xff\xf1" + SOUND),
}
whole = pytest.mark.parametrize(("media_type", "body"), WHOLE.values(), ids=WHOLE)


def pages(body: bytes) -> list[bytes]:
    """The pages of an Ogg."""
    starts = [at for at in range(len(body)) if body.startswith(b"OggS", at)]
    return [body[start:end] for start, end in pairwise([*starts, len(body)])]


def verdict(media_type: str, chunks: list[bytes], expected: Expected = ANY) -> Measured | str:
    """What these chunks turn out to be; a refusal's reason. No refusal after the first audio."""
    try:
        listening = inspector(media_type, expected)
    except NotAudio as error:
        return error.reason
    try:
        for each in chunks:
            listening.feed(each)
        return listening.finish()
    except NotAudio as error:
        assert not listening.audible
        return error.reason


def why(media_type: str, body: bytes, expected: Expected = ANY) -> str:
    """ "" for a whole one, else the reason of the refusal or of the incompleteness."""
    found = verdict(media_type, [body], expected)
    if isinstance(found, str):
        return f"refused: {found}"
    assert found.complete == (not found.why)
    return found.why


def first_audio(media_type: str, body: bytes, expected: Expected = ANY) -> int | None:
    """After how many bytes the body is audible."""
    listening = inspector(media_type, expected)
    for at in range(len(body)):
        listening.feed(body[at : at + 1])
        if listening.audible:
            return at + 1
    return None
