"""When a WAV, MP3, Ogg or FLAC is whole, and what is wrong with it when it is not."""

import struct

import pytest

from edgecache.speech.flac import frame_head
from edgecache.speech.ogg import page_checksum
from tests.sounds import (
    BARE_MP3,
    DS64,
    EXTENSIBLE,
    FLAC,
    ID3,
    LIST,
    MP3,
    MP3_FRAME_BYTES,
    OPUS,
    SOUND,
    UNKNOWN,
    VORBIS,
    WAV,
    chunk,
    fmt,
    pages,
    riff,
    why,
)

WAVS = {
    "list before": (riff(fmt(), LIST, chunk(b"fact", bytes(4)), chunk(b"data", SOUND)), ""),
    "odd chunk before": (riff(chunk(b"note", b"odd"), fmt(), chunk(b"data", SOUND)), ""),
    "list after": (riff(fmt(), chunk(b"data", SOUND), LIST), ""),
    "odd sound, list after": (riff(fmt(bits=8), chunk(b"data", SOUND[:-1]), LIST), ""),
    "odd sound, no padding": (riff(fmt(bits=8), chunk(b"data", SOUND[:-1])[:-1]), ""),
    "streamed, ffmpeg": (riff(fmt(), chunk(b"data", SOUND, UNKNOWN), size=UNKNOWN), ""),
    "streamed, espeak": (riff(fmt(), chunk(b"data", SOUND, 0x7FFFF000), size=0x7FFFF024), ""),
    "streamed, less a header": (riff(fmt(), chunk(b"data", SOUND, UNKNOWN - 44), size=UNKNOWN - 8), ""),
    "streamed, zeros": (riff(fmt(), chunk(b"data", SOUND, 0), size=0), ""),
    "streamed, Python": (riff(fmt(), chunk(b"data", SOUND, 0), size=36), ""),
    "streamed, half a sample": (riff(fmt(), chunk(b"data", SOUND, UNKNOWN), size=UNKNOWN)[:-1], "wav_half_frame"),
    "RF64": (riff(DS64, fmt(), chunk(b"data", SOUND, UNKNOWN), size=UNKNOWN, magic=b"RF64"), ""),
    "RF64, short": (riff(DS64, fmt(), chunk(b"data", SOUND, UNKNOWN), size=UNKNOWN, magic=b"RF64")[:-2], "wav_short"),
    "float": (riff(fmt(tag=3, bits=32), chunk(b"data", SOUND)), ""),
    "A-law": (riff(fmt(tag=6, bits=8), chunk(b"data", SOUND)), ""),
    "mu-law": (riff(fmt(tag=7, bits=8), chunk(b"data", SOUND)), ""),
    "extensible": (riff(EXTENSIBLE, chunk(b"data", SOUND)), ""),
    "unknown codec": (riff(fmt(tag=0x11, bits=4, frame_bytes=256), chunk(b"data", SOUND)), "wav_codec"),
    "frame of another size": (riff(fmt(frame_bytes=4), chunk(b"data", SOUND)), "wav_bad_fmt"),
    "short": (WAV[:-1000], "wav_short"),
    "says more than it has": (riff(fmt(), chunk(b"data", SOUND, len(SOUND) * 2)), "wav_short"),
    "RIFF says more": (riff(fmt(), chunk(b"data", SOUND), size=len(WAV) + 100), "wav_short"),
    "RIFF says less": (riff(fmt(), chunk(b"data", SOUND), size=36), ""),
    "half a sample": (riff(fmt(), chunk(b"data", SOUND[:-1])), "wav_half_frame"),
    "garbage after": (WAV + b"\x00\x01\x02\x03\x04\x05\x06\x07\x08", "wav_garbage"),
    "a second wav after": (WAV + WAV, "wav_garbage"),
}


@pytest.mark.parametrize(("body", "result"), WAVS.values(), ids=WAVS)
def test_wav_is_whole_when_all_that_it_announces_is_there(body: bytes, result: str) -> None:
    assert why("audio/wav", body) == result


MP3S = {
    "tags before and after": (ID3 + BARE_MP3 + b"TAG" + bytes(125), ""),
    "two joined, with tags": (MP3 + ID3 + MP3, ""),
    "no Xing, last frame gone": (BARE_MP3[:-MP3_FRAME_BYTES], ""),
    "Xing, last frame gone": (MP3[:-MP3_FRAME_BYTES], "mp3_short"),
    "Xing without counts": (MP3.replace(b"Info\x00\x00\x00\x0f", b"Info\x00\x00\x00\x00")[:-MP3_FRAME_BYTES], ""),
    "half a frame": (BARE_MP3[:-1], "mp3_half_frame"),
    "half a header": (BARE_MP3 + b"\xff\xf3", "mp3_half_frame"),
    "half a tag": (BARE_MP3 + ID3[:-1], "mp3_half_frame"),
    "a byte lost midway": (
        BARE_MP3[: 3 * MP3_FRAME_BYTES + 50] + BARE_MP3[3 * MP3_FRAME_BYTES + 51 :],
        "mp3_lost_sync",
    ),
    "an error midway": (BARE_MP3[: 3 * MP3_FRAME_BYTES] + b'{"error": "out of memory"}', "mp3_lost_sync"),
    "another rate midway": (BARE_MP3 + b"\xff\xfb\x90\x00" + bytes(413), "mp3_lost_sync"),
}


@pytest.mark.parametrize(("body", "result"), MP3S.values(), ids=MP3S)
def test_mp3_is_whole_when_every_frame_is_and_none_is_missed(body: bytes, result: str) -> None:
    assert why("audio/mpeg", body) == result


def with_page(n: int, at: int, changed: bytes) -> bytes:
    """The Opus sample with bytes of a page changed, and the page's checksum set right."""
    all_pages = pages(OPUS)
    page = all_pages[n]
    page = page[:at] + changed + page[at + len(changed) :]
    page = page[:22] + bytes(4) + page[26:]
    all_pages[n] = page[:22] + struct.pack("<I", page_checksum(page)) + page[26:]
    return b"".join(all_pages)


OGGS = {
    "no last page": (b"".join(pages(OPUS)[:-1]), "ogg_no_eos"),
    "last page not marked": (with_page(-1, 5, b"\x00"), "ogg_no_eos"),
    "cut": (OPUS[:-1], "ogg_truncated"),
    "a page lost": (b"".join(pages(OPUS)[:3] + pages(OPUS)[4:]), "ogg_lost_pages"),
    "a page of another stream": (with_page(3, 14, b"\x01\x02\x03\x04"), "ogg_lost_pages"),
    "time runs backwards": (with_page(4, 6, bytes(8)), "ogg_lost_pages"),
    "a bit changed": (OPUS[:-1] + bytes([OPUS[-1] ^ 1]), "ogg_bad_checksum"),
    "garbage after": (OPUS + b"{}{}{}", "ogg_garbage"),
    "a page after the last": (OPUS + pages(OPUS)[3], "ogg_garbage"),
    "two joined": (OPUS + OPUS, ""),
    "two joined, second cut": (OPUS + OPUS[:-1], "ogg_truncated"),
    "two codecs joined": (OPUS + VORBIS, "ogg_mixed"),
}


@pytest.mark.parametrize(("body", "result"), OGGS.values(), ids=OGGS)
def test_ogg_is_whole_when_no_page_is_missing_and_the_last_says_so(body: bytes, result: str) -> None:
    assert why("audio/ogg", body) == result


FRAMES = [at for at in range(42, len(FLAC)) if frame_head(FLAC[at : at + 16])]
UNCOUNTED = FLAC[:21] + bytes([FLAC[21] & 0xF0]) + bytes(4) + FLAC[26:]
FLACS = {
    "samples not counted": (UNCOUNTED, ""),
    "not counted, last frame gone": (UNCOUNTED[: FRAMES[-1]], ""),
    "not counted, cut": (UNCOUNTED[:-1], "flac_truncated"),
    "last frame gone": (FLAC[: FRAMES[-1]], "flac_truncated"),
    "cut": (FLAC[:-1], "flac_truncated"),
    "a frame lost": (FLAC[: FRAMES[1]] + FLAC[FRAMES[2] :], "flac_truncated"),
    "the first frame lost": (FLAC[:42] + FLAC[FRAMES[1] :], "flac_no_start"),
    "garbage after": (FLAC + b"\x01", "flac_truncated"),
    "zeros after": (FLAC + bytes(8), ""),
    "much garbage after": (FLAC + bytes(200_000), "flac_lost_sync"),
    "more than counted": (FLAC[:25] + bytes([FLAC[25] - 1]) + FLAC[26:], "flac_overrun"),
}


@pytest.mark.parametrize(("body", "result"), FLACS.values(), ids=FLACS)
def test_flac_is_whole_when_its_frames_are_and_are_as_many_as_it_says(body: bytes, result: str) -> None:
    assert why("audio/flac", body) == result


def test_headerless_samples_end_with_a_whole_one() -> None:
    assert why("audio/pcm", SOUND[:-1]) == "pcm_half_frame"
