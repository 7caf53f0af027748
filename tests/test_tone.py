"""The tone voice: the same everywhere, different for every utterance, and traceable byte by byte."""

import io
import subprocess
import sys
import wave

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.demo import pcm, tone
from edgecache.speech.utterance import Value

WINDOW_BYTES = 64

fields_of = st.fixed_dictionaries(
    {"text": st.text("aAb é你\n\0", min_size=1, max_size=6)},
    optional={
        "voice_id": st.sampled_from(["tone", "default", "anna"]),
        "language": st.sampled_from(["en", "de"]),
        "format": st.sampled_from(["wav", "pcm"]),
        "speaking_rate": st.sampled_from([0.5, 1.0, 1.1]),
        "mood": st.one_of(st.booleans(), st.integers(0, 3), st.text("ab", max_size=2)),
    },
)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"text": "Hello."}, id="plain"),
        pytest.param({"text": "你好 café", "format": "pcm", "sample_rate": 8000}, id="other script, raw, 8 kHz"),
        pytest.param({"text": "Hi", "speaking_rate": 2, "demo": {"bytes": 5000}}, id="fast, of a chosen size"),
    ],
)
def test_the_same_bytes_in_every_process(fields: dict[str, Value]) -> None:
    """An edge, its cluster and the check of what it served may be three processes."""
    asks = f"import sys; from edgecache.demo import tone; sys.stdout.buffer.write(tone.audio({fields!r}))"
    elsewhere = subprocess.run([sys.executable, "-c", asks], check=True, capture_output=True).stdout

    assert elsewhere == tone.audio(fields)


def test_defaults_said_or_unsaid_are_one_utterance() -> None:
    said = {**tone.DEFAULTS, "text": "Hello", "mood": None}

    assert tone.audio(said) == tone.audio({"text": "Hello"})


@given(one=fields_of, other=fields_of)
@settings(max_examples=60)
def test_utterances_share_no_window_of_samples(one: dict[str, Value], other: dict[str, Value]) -> None:
    if tone.audio(one) == tone.audio(other):
        assert tone.filled(one) == tone.filled(other)
        return

    ours, theirs = (tone.audio({**each, "demo": {"bytes": 6000}})[pcm.WAV_HEADER_BYTES :] for each in (one, other))

    windows = range(0, len(ours) - WINDOW_BYTES, WINDOW_BYTES)
    assert not [at for at in windows if ours[at : at + WINDOW_BYTES] == theirs[at : at + WINDOW_BYTES]]


def test_a_long_recording_does_not_repeat_itself() -> None:
    body = tone.audio({"text": "a", "format": "pcm", "demo": {"bytes": 64_000}})
    windows = [body[at : at + WINDOW_BYTES] for at in range(0, len(body), 2880)]

    assert len(set(windows)) == len(windows)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 24_000, 48_000])
def test_wav_is_whole_and_lasts_as_long_as_its_text(rate_hz: int) -> None:
    body = tone.audio({"text": "one two three", "sample_rate": rate_hz})

    with wave.open(io.BytesIO(body)) as read:
        assert (read.getnchannels(), read.getsampwidth(), read.getframerate()) == (1, 2, rate_hz)
        assert read.getnframes() == round(0.06 * rate_hz) * 13
        assert len(read.readframes(read.getnframes())) == len(body) - pcm.WAV_HEADER_BYTES


def test_it_can_be_heard() -> None:
    samples = pcm.samples(tone.audio({"text": "hum", "format": "pcm"}))

    assert max(samples) > 3000
    assert abs(sum(samples)) / len(samples) < 500, "no constant offset"


@pytest.mark.parametrize(("text", "rate", "times"), [("hello", 2.0, 0.5), ("hello", 0.5, 2.0), ("hello!", 1.0, 1.2)])
def test_length_follows_text_and_rate(text: str, rate: float, times: float) -> None:
    plain = len(tone.audio({"text": "hello", "format": "pcm"}))

    assert len(tone.audio({"text": text, "speaking_rate": rate, "format": "pcm"})) == plain * times


@pytest.mark.parametrize("form", ["wav", "pcm"])
@pytest.mark.parametrize("size", [44, 45, 4096, 32768, 100_001])
def test_the_whole_body_has_the_size_asked_for(form: str, size: int) -> None:
    by_field = tone.audio({"text": "a", "format": form, "demo": {"bytes": size}})
    by_process = tone.audio({"text": "a", "format": form}, size_bytes=size)

    assert len(by_field) == len(by_process) == size


HELLO: dict[str, Value] = {"text": "hello"}
BODY = tone.audio(HELLO)


@pytest.mark.parametrize(
    ("body", "whole", "wrong"),
    [
        pytest.param(BODY, True, None, id="whole"),
        pytest.param(BODY[:5000], False, None, id="prefix, and a prefix will do"),
        pytest.param(b"", False, None, id="nothing, and a prefix will do"),
        pytest.param(BODY[:5000], True, "5000 bytes instead of", id="prefix"),
        pytest.param(BODY + b"\0", False, "bytes instead of", id="too much"),
        pytest.param(BODY[:5000] + b"?" + BODY[5001:], True, "byte 5000 of", id="one byte"),
        pytest.param(tone.audio({"text": "hellp"}), True, "byte 44 of", id="another utterance"),
        pytest.param(BODY[:8000] + tone.audio({"text": "hellp"})[8000:], False, "of 14444", id="two spliced"),
    ],
)
def test_whose_bytes_are_these(body: bytes, whole: bool, wrong: str | None) -> None:
    found = tone.owner_mismatch(body, HELLO, whole=whole)

    assert found is None if wrong is None else wrong in (found or "")


@given(number=st.integers(0, (1 << tone.TAKE_BITS) - 1), form=st.sampled_from(["wav", "pcm"]))
@settings(max_examples=25)
def test_a_take_is_traced_too(number: int, form: str) -> None:
    fields: dict[str, Value] = {"text": "again", "format": form}
    body = tone.audio(fields, take=number)

    assert tone.take_in(body, form) == number
    assert tone.owner_mismatch(body, fields, takes=True) is None
    assert tone.owner_mismatch(body, fields) is not None
    assert tone.owner_mismatch(body, {**fields, "text": "agaim"}, takes=True) is not None


def test_what_needs_an_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="opus"):
        tone.audio({"text": "a", "format": "opus"})


@given(
    cuts=st.lists(st.integers(0, 400), max_size=8),
    rates=st.sampled_from([(22050, 24000), (22050, 8000), (22050, 22050), (8000, 48000)]),
)
@settings(max_examples=40)
def test_resampling_does_not_depend_on_where_pieces_are_cut(cuts: list[int], rates: tuple[int, int]) -> None:
    sound = tone.audio({"text": "x", "format": "pcm", "demo": {"bytes": 400}})
    whole = pcm.Resampler(*rates).feed(sound)
    pieces, start = pcm.Resampler(*rates), 0
    made = b""
    for end in [*sorted(cuts), len(sound)]:
        made += pieces.feed(sound[start:end])
        start = end

    assert made == whole
    assert len(whole) / len(sound) == pytest.approx(rates[1] / rates[0], rel=0.05)


def test_resampling_keeps_a_straight_line_straight() -> None:
    line = pcm.packed(range(0, 2000, 10))

    doubled = pcm.samples(pcm.Resampler(8000, 16_000).feed(line))

    assert list(doubled) == list(range(0, 1990, 5))
