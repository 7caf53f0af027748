"""What an answer of a cluster turns out to be: refused, incomplete or whole, however its bytes arrive."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgecache.speech.formats import Expected, Measured, NotAudio, inspector
from tests.sounds import (
    ANY,
    BARE_MP3,
    FLAC,
    ID3,
    LIST,
    MP3,
    MP3_FRAME_BYTES,
    OPUS,
    RATE_HZ,
    SOUND,
    UNKNOWN,
    VORBIS,
    WAV,
    WHOLE,
    chunk,
    first_audio,
    fmt,
    pages,
    riff,
    verdict,
    whole,
    why,
)

XING = MP3.rfind(b"\xff\xf3", 0, MP3.find(b"Info") + 1)


@pytest.mark.parametrize(
    ("name", "container", "rate_hz", "duration_ms"),
    [
        ("wav", "wav", 8000, 384),
        ("mp3", "mp3", 16000, 396),
        ("mp3 stream", "mp3", 16000, 396),
        ("opus", "ogg/opus", 48000, 300),
        ("vorbis", "other", 8000, 300),
        ("flac", "flac", 8000, 300),
        ("pcm", "pcm", 24000, 128),
        ("mulaw", "pcm", 8000, 768),
    ],
)
def test_a_whole_one_says_what_it_is(name: str, container: str, rate_hz: int, duration_ms: int) -> None:
    media_type, body = WHOLE[name]
    assert verdict(media_type, [body]) == Measured(container, rate_hz, 1, duration_ms, complete=True, why="")


def test_another_audio_type_is_taken_at_its_word() -> None:
    assert verdict("audio/webm", [b"\x1a\x45", b""]) == Measured("other", None, None, None, complete=True, why="")


@pytest.mark.parametrize(
    ("media_type", "asked", "rate_hz", "channels", "duration_ms"),
    [
        ("audio/pcm;rate=16000", ANY, 16000, 1, 192),
        ('AUDIO/L16 ; RATE="48000"; channels=2', ANY, 48000, 2, 32),
        ("audio/l24;rate=8000", ANY, 8000, 1, 256),
        ("audio/x-raw;format=F32LE;rate=8000", ANY, 8000, 1, 192),
        ("audio/pcm;rate=fast;channels=0", ANY, 24000, 1, 128),
        ("audio/pcm", replace(ANY, format="pcm", sample_rate_hz=8000), 8000, 1, 384),
        ("audio/pcm", replace(ANY, format="pcm_44100"), 44100, 1, 70),
        ("audio/pcm", replace(ANY, format="pcm_mulaw"), 8000, 1, 768),
        ("audio/PCMU", replace(ANY, sample_rate_hz=24000), 8000, 1, 768),
        ("application/octet-stream", replace(ANY, format="pcm"), 24000, 1, 128),
        ("application/octet-stream", replace(ANY, format="ulaw_8000"), 8000, 1, 768),
    ],
)
def test_headerless_samples_are_measured_as_the_type_and_the_request_say(
    media_type: str, asked: Expected, rate_hz: int, channels: int, duration_ms: int
) -> None:
    measured = Measured("pcm", rate_hz, channels, duration_ms, complete=True, why="")
    assert verdict(media_type, [SOUND], asked) == measured


MEDIA_TYPES = [
    ("", None, "refused: media_type"),
    ("application/json", None, "refused: media_type"),
    ("text/html; charset=utf-8", "wav", "refused: media_type"),
    ("video/mp4", None, "refused: media_type"),
    ("audio/", None, "refused: media_type"),
    ("audio", None, "refused: media_type"),
    ("audio/wav, text/html", None, "refused: media_type"),
    ("application/octet-stream", None, "refused: media_type"),
    ("application/octet-stream", "telepathy", "refused: media_type"),
    ("application/octet-stream", "wav", ""),
    ("application/octet-stream", "mp3", "refused: not_mp3"),
    (" Audio/X-WAV ; codecs=1", "wav", ""),
    ("audio/wave", None, ""),
    ("audio/vnd.wave", "telepathy", ""),
    ("audio/wav", "linear16", ""),
    ("audio/wav", "mulaw", ""),
    ("audio/wav", "mp3", "refused: format_mismatch"),
    ("audio/wav", "pcm", "refused: format_mismatch"),
    ("audio/mpeg", "wav", "refused: format_mismatch"),
    ("audio/mpeg", "mp3_44100_128", "refused: not_mp3"),
    ("audio/ogg", "opus", "refused: not_ogg"),
    ("audio/aac", "opus", "refused: format_mismatch"),
    ("audio/flac", "flac", "refused: not_flac"),
    ("audio/mp4", "aac", ""),
    ("audio/webm;codecs=opus", "opus", ""),
]


@pytest.mark.parametrize(("media_type", "asked", "result"), MEDIA_TYPES, ids=[f"{m}, {a}" for m, a, _ in MEDIA_TYPES])
def test_the_media_type_is_audio_and_what_was_asked_for(media_type: str, asked: str | None, result: str) -> None:
    assert why(media_type, WAV, replace(ANY, format=asked)) == result


def test_a_codec_that_was_not_asked_for_is_refused() -> None:
    assert why("audio/ogg", VORBIS, replace(ANY, format="opus")) == "refused: format_mismatch"
    assert why("audio/ogg", OPUS, replace(ANY, format="opus_48000_32")) == ""


SNIFFED = ["audio/wav", "audio/mpeg", "audio/ogg", "audio/flac", "audio/aac"]


@pytest.mark.parametrize("media_type", SNIFFED)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": "no voice"}', "json_instead_of_audio"),
        (b'\xef\xbb\xbf \r\n[{"error": 1}]', "json_instead_of_audio"),
        (b"<!DOCTYPE html><html>", "html_instead_of_audio"),
        (b"\n\n<?xml version='1.0'?>", "html_instead_of_audio"),
        (b" " * 5000, "text_instead_of_audio"),
        (b" \n", "empty_audio"),
        (b"", "empty_audio"),
    ],
    ids=["json", "json with mark", "html", "xml", "blanks", "short blanks", "nothing"],
)
def test_text_that_says_it_is_audio_is_refused(media_type: str, body: bytes, reason: str) -> None:
    assert verdict(media_type, [body]) == verdict(media_type, [bytes([byte]) for byte in body]) == reason


def test_a_refusal_comes_with_the_first_byte_that_shows_it_and_quotes_nothing() -> None:
    listening = inspector("audio/mpeg", ANY)
    with pytest.raises(NotAudio, match=r"sent JSON$") as refusal:
        listening.feed(b"{")
    assert refusal.value.reason == "json_instead_of_audio"


@pytest.mark.parametrize("opening", [b"{}", b"[1", b"<h", b"  "])
def test_headerless_samples_may_begin_with_anything(opening: bytes) -> None:
    assert why("audio/pcm", opening + SOUND) == why("audio/basic", opening + SOUND) == ""


BROKEN = {
    "text as mp3": ("audio/mpeg", b"Internal Server Error", "not_mp3"),
    "aac as mp3": ("audio/mpeg", b"\xff\xf1\x50\x80" + SOUND, "not_mp3"),
    "wav as mp3": ("audio/mpeg", WAV, "not_mp3"),
    "mp3 as wav": ("audio/wav", MP3, "not_wav"),
    "free-format mp3": ("audio/mpeg", b"\xff\xfb\x00\x00" + SOUND, "not_mp3"),
    "endless id3": ("audio/mpeg", b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + SOUND, "header_too_big"),
    "broken id3": ("audio/mpeg", b"ID3\x04\x00\x00\xff\x7f\x7f\x7f" + SOUND, "not_mp3"),
    "only id3": ("audio/mpeg", ID3, "empty_audio"),
    "only a Xing header": ("audio/mpeg", MP3[:200], "empty_audio"),
    "avi": ("audio/wav", b"RIFF\x00\x00\x00\x00AVI LIST", "not_wav"),
    "no fmt": ("audio/wav", riff(chunk(b"data", SOUND)), "not_wav"),
    "short fmt": ("audio/wav", riff(chunk(b"fmt ", bytes(14)), chunk(b"data", SOUND)), "not_wav"),
    "no channels": ("audio/wav", riff(fmt(channels=0), chunk(b"data", SOUND)), "not_wav"),
    "wav without chunks": ("audio/wav", riff(bytes(64)), "not_wav"),
    "big wav header": (
        "audio/wav",
        riff(fmt(), chunk(b"JUNK", bytes(70_000)), chunk(b"data", SOUND)),
        "header_too_big",
    ),
    "only a wav header": ("audio/wav", WAV[:44], "empty_audio"),
    "empty wav": ("audio/wav", riff(fmt(), chunk(b"data", b"")), "empty_audio"),
    "empty wav with a list": ("audio/wav", riff(fmt(), chunk(b"data", b""), LIST), "empty_audio"),
    "empty streamed wav": ("audio/wav", riff(fmt(), chunk(b"data", b"", UNKNOWN), size=UNKNOWN), "empty_audio"),
    "half a sample": ("audio/wav", riff(fmt(), chunk(b"data", b"1")), "empty_audio"),
    "half a pcm sample": ("audio/pcm", b"1", "empty_audio"),
    "damaged ogg head": ("audio/ogg", OPUS[:40] + b"\xff" + OPUS[41:], "not_ogg"),
    "only ogg heads": ("audio/ogg", OPUS[: OPUS.rfind(b"OpusTags")], "empty_audio"),
    "only a flac head": ("audio/flac", FLAC[:42], "empty_audio"),
    "flac without frames": ("audio/flac", FLAC[:42] + SOUND, "not_flac"),
    "flac frame damaged": ("audio/flac", FLAC[:42] + b"\xff\xf8" + SOUND, "not_flac"),
    "flac without streaminfo": ("audio/flac", b"fLaC\x84\x00\x00\x04" + bytes(16), "not_flac"),
    "big flac header": (
        "audio/flac",
        b"fLaC\x00" + FLAC[5:42] + b"\x06\xff\xff\xff" + SOUND,
        "header_too_big",
    ),
}


@pytest.mark.parametrize(("media_type", "body", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_body_without_the_audio_it_announces_is_refused(media_type: str, body: bytes, reason: str) -> None:
    assert why(media_type, body) == f"refused: {reason}"


@pytest.mark.parametrize(
    ("name", "header_bytes", "at_most"),
    [
        ("wav", 44, 2),
        ("mp3", XING + 144, 48),
        ("mp3 stream", 0, 48),
        ("opus", sum(map(len, pages(OPUS)[:2])), 64),
        ("flac", 42, 16),
        ("pcm", 0, 2),
        ("other", 0, 1),
    ],
)
def test_first_audio_is_heard_soon_after_the_header(name: str, header_bytes: int, at_most: int) -> None:
    heard = first_audio(*WHOLE[name])
    assert heard is not None
    assert header_bytes < heard <= header_bytes + at_most


@pytest.mark.parametrize(
    ("characters", "rate", "duration_s", "result"),
    [
        (1, 1.0, 5, ""),
        (0, 1.0, 9, ""),
        (1, 1.0, 13, "too_long_for_text"),
        (7, 1.0, 20, ""),  # 1000000, spelt out
        (100, 1.0, 50, ""),  # slow Chinese
        (100, 0.25, 200, ""),
        (100, 4.0, 50, ""),  # a cluster that ignores the rate
        (100, 150.0, 50, ""),  # words a minute
        (100, 1.0, 211, "too_long_for_text"),
        (39, 1.0, 0.01, ""),
        (240, 1.0, 0.5, ""),  # one word in much SSML
        (240, 1.0, 0.4, "too_short_for_text"),
        (5000, 1.0, 9, "too_short_for_text"),
        (5000, 2.0, 9, ""),
    ],
)
def test_a_sound_of_a_length_that_the_text_cannot_have_is_not_whole(
    characters: int, rate: float, duration_s: float, result: str
) -> None:
    asked = replace(ANY, text_length=characters, speaking_rate=rate)
    sound = bytes(2 * int(duration_s * RATE_HZ))
    assert why("audio/pcm;rate=8000", sound, asked) == result
    assert why("audio/wav", riff(fmt(), chunk(b"data", sound)), asked) == result


@whole
def test_a_cut_anywhere_is_never_whole(media_type: str, body: bytes) -> None:
    if media_type in ("audio/pcm", "audio/basic", "audio/aac"):
        return  # nothing in the bytes says where they end
    taken_for_whole = [at for at in range(len(body)) if why(media_type, body[:at]) == ""]
    # Between two frames of an MP3 without a Xing header the end can't be told.
    assert taken_for_whole == (list(range(MP3_FRAME_BYTES, len(body), MP3_FRAME_BYTES)) if body == BARE_MP3 else [])


@pytest.mark.parametrize("sound_bytes", range(6))
@pytest.mark.parametrize("announced", [0, 1, 2, 3, 4, 100, UNKNOWN])
@pytest.mark.parametrize("behind", [b"", b"\0", LIST])
def test_a_short_wav_is_the_same_in_one_piece_and_byte_by_byte(sound_bytes: int, announced: int, behind: bytes) -> None:
    body = riff(fmt(), chunk(b"data", bytes(sound_bytes), announced), behind)
    cuts = [[body[:at], body[at:]] for at in range(1, len(body))]
    assert all(verdict("audio/wav", each) == verdict("audio/wav", [body]) for each in cuts)
    assert verdict("audio/wav", [body[at : at + 1] for at in range(len(body))]) == verdict("audio/wav", [body])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """A known body, with bytes changed, dropped or repeated; or any bytes."""
    media_type, body = draw(
        st.sampled_from([*WHOLE.values(), ("audio/mpeg", BARE_MP3 + MP3), ("audio/ogg", OPUS + OPUS)])
    )
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=6)) + body[at + draw(st.integers(0, 6)) :]
    if draw(st.booleans()):
        body = body[: draw(st.integers(0, len(body)))]
    return media_type, draw(st.sampled_from([body, body, body, draw(st.binary(max_size=300))]))


@given(bodies(), st.lists(st.integers(0, 6000), max_size=12))
@settings(max_examples=150, deadline=None)
def test_any_bytes_in_any_chunks_end_in_one_and_the_same_verdict(case: tuple[str, bytes], cuts: list[int]) -> None:
    media_type, body = case
    bounds = [0, *sorted(cuts), len(body)]
    at_once = verdict(media_type, [body])
    assert verdict(media_type, [body[start:end] for start, end in pairwise(bounds)]) == at_once
    assert verdict(media_type, [body[at : at + 1] for at in range(len(body))]) == at_once


@given(st.text(max_size=80), st.none() | st.text(max_size=20))
@settings(max_examples=150, deadline=None)
def test_any_media_type_is_audio_or_refused(media_type: str, asked: str | None) -> None:
    verdict(media_type, [SOUND], replace(ANY, format=asked))


@whole
def test_what_is_held_of_a_long_body_is_bounded(media_type: str, body: bytes) -> None:
    piece = bytes(64 * 1024)
    listening = inspector(media_type, ANY)
    tracemalloc.start()
    try:
        for each in (body[:-20], *[piece] * 128):
            listening.feed(each)
        assert tracemalloc.get_traced_memory()[1] < 512 * 1024
    finally:
        tracemalloc.stop()
