"""Sounds joined into one that plays, however their bytes come, and what can't be joined."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.errors import ClientError, UpstreamError
from edgecache.speech.formats import Measured, NotAudio
from edgecache.speech.joining import Joiner, may_be_joined
from edgecache.speech.wav import with_true_sizes
from tests.sounds import (
    BARE_MP3,
    EXTENSIBLE,
    FLAC,
    ID3,
    LIST,
    MP3,
    OPUS,
    SOUND,
    UNKNOWN,
    WAV,
    chunk,
    fmt,
    riff,
    verdict,
)

STREAMED = riff(fmt(), chunk(b"data", SOUND, UNKNOWN), size=UNKNOWN)
MULAW_WAV = riff(fmt(tag=7, bits=8), chunk(b"data", SOUND))
ALAW_WAV = riff(fmt(tag=6, bits=8), chunk(b"data", SOUND))
TAGGED_MP3 = ID3 + BARE_MP3 + b"TAG" + bytes(125)


def joined(media_type: str, bodies: list[bytes], size: int = 1 << 20, asked: str | None = None) -> tuple[bytes, Joiner]:
    joiner, stream = Joiner(), b""
    for body in bodies:
        joiner.begin(media_type, asked, None)
        for at in range(0, len(body), size):
            stream += joiner.feed(body[at : at + size])
    return stream, joiner


@pytest.mark.parametrize("size", [1 << 20, 1000, 7, 1], ids=["whole", "thousands", "sevens", "bytes"])
@pytest.mark.parametrize(
    ("media_type", "bodies", "container", "duration_ms", "overhead_bytes"),
    [
        pytest.param(
            "audio/wav", [WAV, STREAMED, riff(fmt(), LIST, chunk(b"data", SOUND), LIST)], "wav", 1152, 44, id="wav"
        ),
        pytest.param("audio/x-wav", [MULAW_WAV, MULAW_WAV], "wav", 1536, 44, id="mu-law in wav"),
        pytest.param("audio/wav", [ALAW_WAV, ALAW_WAV], "wav", 1536, 44, id="A-law in wav"),
        pytest.param("audio/wav", [riff(EXTENSIBLE, chunk(b"data", SOUND))] * 2, "wav", 768, 68, id="extensible wav"),
        pytest.param("audio/pcm", [SOUND, SOUND], "pcm", 256, 0, id="pcm"),
        pytest.param("audio/basic", [SOUND, SOUND], "pcm", 1536, 0, id="mu-law"),
        pytest.param("audio/PCMA", [SOUND, SOUND], "pcm", 1536, 0, id="A-law"),
    ],
)
def test_samples_are_joined_and_framed_once(
    media_type: str, bodies: list[bytes], container: str, duration_ms: int, overhead_bytes: int, size: int
) -> None:
    stream, joiner = joined(media_type, bodies, size)
    assert len(stream) == overhead_bytes + len(bodies) * len(SOUND)
    assert stream.endswith(SOUND * len(bodies))
    found = verdict(media_type, [stream])
    assert isinstance(found, Measured)
    assert (found.container, found.duration_ms, found.complete) == (container, duration_ms, True)
    assert (joiner.begins_ms, joiner.position_ms) == (duration_ms - duration_ms // len(bodies), duration_ms)


@pytest.mark.parametrize("size", [1 << 20, 100, 1])
def test_mp3_frames_are_joined_without_what_counts_only_its_own(size: int) -> None:
    stream, joiner = joined("audio/mpeg", [MP3, BARE_MP3, TAGGED_MP3], size)
    assert stream == BARE_MP3 * 3
    assert (joiner.begins_ms, joiner.position_ms) == (792, 1188)


def test_a_sample_that_is_cut_in_half_does_not_turn_the_next_ones_into_noise() -> None:
    stream, _ = joined("audio/pcm", [SOUND[:-1], SOUND])
    assert stream == SOUND[:-2] + SOUND


@pytest.mark.parametrize(
    ("media_type", "first", "second"),
    [
        pytest.param("audio/wav", WAV, riff(fmt(rate_hz=16_000), chunk(b"data", SOUND)), id="rate"),
        pytest.param("audio/wav", WAV, riff(fmt(channels=2), chunk(b"data", SOUND)), id="channels"),
        pytest.param("audio/wav", MULAW_WAV, ALAW_WAV, id="coding"),
    ],
)
def test_sounds_that_differ_are_not_joined(media_type: str, first: bytes, second: bytes) -> None:
    joiner = Joiner()
    joiner.begin(media_type, None, None)
    joiner.feed(first)
    joiner.begin(media_type, None, None)
    with pytest.raises(UpstreamError) as told:
        joiner.feed(second)
    assert told.value.code == "sentences_differ"


def test_raw_samples_of_different_types_are_not_joined() -> None:
    joiner = Joiner()
    joiner.begin("audio/PCMU", None, None)
    joiner.feed(SOUND)
    joiner.begin("audio/PCMA", None, None)
    with pytest.raises(UpstreamError):
        joiner.feed(SOUND)


@pytest.mark.parametrize("media_type", ["audio/ogg", "audio/flac", "audio/webm", "audio/aac", "audio/mp4"])
def test_what_can_not_be_joined_is_refused_with_what_can(media_type: str) -> None:
    with pytest.raises(ClientError) as told:
        joined(media_type, [OPUS, FLAC])
    assert (told.value.status, told.value.code, told.value.param) == (422, "not_joinable", "format")
    assert "wav, pcm" in told.value.message


def test_a_sound_of_another_format_than_was_asked_for_is_refused() -> None:
    with pytest.raises(NotAudio):
        joined("audio/mpeg", [MP3], asked="wav")


@pytest.mark.parametrize(
    ("asked", "may"),
    [(None, True), ("wav", True), ("pcm_16000", True), ("ulaw_8000", True), ("mp3", True), ("unheard_of", True)]
    + [(name, False) for name in ("opus", "ogg", "flac", "aac", "webm", "m4a")],
)
def test_which_formats_may_be_joined_by_their_names(asked: str | None, may: bool) -> None:
    assert may_be_joined(asked) is may


@given(st.binary(max_size=300), st.sampled_from([b"", WAV[:44], ID3[:10], BARE_MP3[:108]]), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_any_bytes_come_to_a_value_or_an_error_of_ours(noise: bytes, before: bytes, size: int) -> None:
    for media_type in ("audio/wav", "audio/mpeg", "audio/pcm"):
        try:
            stream, _ = joined(media_type, [before + noise], size)
        except NotAudio:
            continue
        assert len(stream) <= len(before + noise) + 100


# A streamed WAV, once it is a recording.


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(STREAMED, id="ffmpeg"),
        pytest.param(riff(fmt(), chunk(b"data", SOUND, 0x7FFFF000), size=0x7FFFF024), id="sox"),
        pytest.param(riff(fmt(), chunk(b"data", SOUND, 0), size=0), id="zeros"),
        pytest.param(riff(fmt(), chunk(b"data", SOUND, 0), size=36), id="Python"),
        pytest.param(riff(fmt(), chunk(b"data", SOUND), size=UNKNOWN), id="riff alone"),
        pytest.param(WAV, id="already true"),
    ],
)
def test_a_streamed_wav_is_told_its_sizes(body: bytes) -> None:
    assert with_true_sizes(body) == WAV


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(riff(fmt(), chunk(b"data", SOUND), LIST), id="chunks behind"),
        pytest.param(riff(fmt(bits=8), chunk(b"data", SOUND[:-1])[:-1]), id="no padding"),
        pytest.param(riff(fmt(), chunk(b"data", SOUND, UNKNOWN), size=UNKNOWN, magic=b"RF64"), id="RF64"),
        pytest.param(b"RIFF", id="a part"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_true_sizes_and_what_is_no_wav_are_left_alone(body: bytes) -> None:
    assert with_true_sizes(body) == body


def test_chunks_before_the_sound_stay() -> None:
    body = riff(LIST, fmt(), LIST, chunk(b"data", SOUND, UNKNOWN), size=UNKNOWN)
    assert with_true_sizes(body) == riff(LIST, fmt(), LIST, chunk(b"data", SOUND))
