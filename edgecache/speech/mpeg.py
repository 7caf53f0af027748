"""MPEG audio (MP3): one frame after the other to the very end.

Keeps rule 2 for MP3: it is whole when every frame is, and when there are as many as its Xing header promises, if it has
one. Without such a header an end between two frames can't be told from the real end. It knows frame headers (ISO/IEC
11172-3 §2.4.1.3, 13818-3, and "MPEG 2.5"), ID3 and Xing; it does not decode.
"""

from dataclasses import dataclass
from functools import lru_cache

from edgecache.speech.scan import REST, Scan, Skip, Take, Walk

#: ID3v2 tags before the first frame, pictures included.
MAX_TAG_BYTES = 1024 * 1024
_ID3V1_BYTES = 128
#: From a Xing header's name to the end of its byte count.
_XING_BYTES = 16

_RATES_HZ = (44_100, 48_000, 32_000)
_LAYER_3_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_LAYER_2_KBPS = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_LAYER_1_KBPS = tuple(range(32, 449, 32))
_LOW_LAYER_1_KBPS = (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_LOW_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_KBPS = {
    (True, 1): _LAYER_1_KBPS,
    (True, 2): _LAYER_2_KBPS,
    (True, 3): _LAYER_3_KBPS,
    (False, 1): _LOW_LAYER_1_KBPS,
    (False, 2): _LOW_KBPS,
    (False, 3): _LOW_KBPS,
}
#: The version bits: 2.5, reserved, 2, 1. What a rate of MPEG 1 is divided by.
_DIVISORS = (4, 0, 2, 1)


@dataclass(frozen=True, slots=True)
class Frame:
    """What a frame's four bytes of header say. length_bytes: header included. side_bytes: before a Xing header."""

    kind: tuple[int, int, int]
    sample_rate_hz: int
    channels: int
    samples: int
    length_bytes: int
    side_bytes: int


@lru_cache(maxsize=256)
def frame(head: bytes) -> Frame | None:
    """The frame that these four bytes begin; None: none does. Free-format frames (no bit rate said) count as none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    divisor, layer = _DIVISORS[head[1] >> 3 & 3], 4 - (head[1] >> 1 & 3)
    bit_rate, rate = head[2] >> 4, head[2] >> 2 & 3
    if divisor == 0 or layer == 4 or bit_rate in (0, 15) or rate == 3 or head[3] & 3 == 2:
        return None
    full, padding, mono = divisor == 1, head[2] >> 1 & 1, head[3] >> 6 == 3
    sample_rate_hz = _RATES_HZ[rate] // divisor
    bits_a_second = _KBPS[full, layer][bit_rate - 1] * 1000
    samples = {1: 384, 2: 1152, 3: 1152 if full else 576}[layer]
    slot_bytes = 4 if layer == 1 else 1
    slots = samples * bits_a_second // (8 * slot_bytes * sample_rate_hz) + padding
    side_bytes = (17 if mono else 32) if full else (9 if mono else 17)
    checksum_bytes = 0 if head[1] & 1 else 2
    return Frame(
        kind=(divisor, layer, sample_rate_hz),
        sample_rate_hz=sample_rate_hz,
        channels=1 if mono else 2,
        samples=samples,
        length_bytes=slots * slot_bytes,
        side_bytes=checksum_bytes + side_bytes,
    )


def tag_bytes(head: bytes) -> int:
    """How long the tag is that these ten bytes begin; 0: they begin none."""
    if head[:3] == b"TAG":
        return _ID3V1_BYTES
    if head[:3] != b"ID3" or len(head) < 10 or max(head[6:10]) > 0x7F:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)


class Mpeg(Scan):
    """An MP3 being read. Layers I and II, which `audio/mpeg` may be too, are read the same way."""

    container = "mp3"
    _promised_frames = 0
    _promised_bytes = 0
    _frames = 0
    _frame_bytes = 0

    @property
    def heard_samples(self) -> int | None:
        """Of whole frames."""
        return self.samples

    def walk(self) -> Walk:
        """Tags and frames in any order: joined MP3s have tags in their midst."""
        first: Frame | None = None
        self.samples = 0
        while not self.why:
            head = yield Take(4)
            if self.cut():
                self.why = "mp3_half_frame" if head else self._short()
                return
            found = frame(head)
            if head[:3] == b"ID3":
                yield from self._id3v2()
            elif head[:3] == b"TAG":
                yield from self._over(_ID3V1_BYTES - 4)
            elif found is None or (first and found.kind != first.kind):
                self.broken(
                    "not_mp3", "mp3_lost_sync", "the cluster said that this is MP3, and there are no MP3 frames"
                )
            elif first is None:
                first = found
                yield from self._first(found)
            else:
                yield from self._frame(found)
        yield Skip(REST)

    def _over(self, count: int) -> Walk:
        yield Skip(count)
        if self.cut():
            self.why = self.why or "mp3_half_frame"

    def _id3v2(self) -> Walk:
        """ID3v2 §3.1: version, flags, a size of four times seven bits. "ID3" and the major version are read."""
        head = yield Take(6)
        if self.cut():
            self.why = "mp3_half_frame"
            return
        if max(head[2:]) > 0x7F:
            self.broken("not_mp3", "mp3_lost_sync", "an MP3 whose ID3 tag has no size")
            return
        size = head[2] << 21 | head[3] << 14 | head[4] << 7 | head[5]
        footer_bytes = 10 if head[1] & 0x10 else 0
        if size > MAX_TAG_BYTES or (not self.audible and self.position + size > MAX_TAG_BYTES):
            self.broken("header_too_big", "mp3_lost_sync", f"an MP3 with more than {MAX_TAG_BYTES} bytes of tags")
            return
        yield from self._over(size + footer_bytes)

    def _first(self, found: Frame) -> Walk:
        """The first frame may be a Xing header: a frame of silence that says how many are to come."""
        self.sample_rate_hz, self.channels = found.sample_rate_hz, found.channels
        wanted = min(found.side_bytes + _XING_BYTES, found.length_bytes - 4)
        content = yield Take(wanted)
        if self.cut():
            return
        if content[found.side_bytes :][:4] in (b"Xing", b"Info"):
            self._promise(content[found.side_bytes + 4 :])
            self._frame_bytes += found.length_bytes
            yield from self._over(found.length_bytes - 4 - wanted)
        else:
            yield from self._frame(found, seen=wanted)

    def _promise(self, fields: bytes) -> None:
        """Xing: flags, then a count of frames (this one not included) and one of bytes (included) if their flag is set."""
        flags = int.from_bytes(fields[:4], "big")
        counts = [int.from_bytes(fields[at : at + 4], "big") for at in (4, 8)]
        if flags & 1:
            self._promised_frames = counts.pop(0)
        if flags & 2:
            self._promised_bytes = counts.pop(0)

    def _short(self) -> str:
        """At an end between frames: whether a Xing header promised more. Zero is what a writer that can't seek leaves."""
        whole = self._frames >= self._promised_frames and self._frame_bytes >= self._promised_bytes
        return "" if whole else "mp3_short"

    def _frame(self, found: Frame, seen: int = 0) -> Walk:
        self.audible = True
        yield from self._over(found.length_bytes - 4 - seen)
        if not self.cut():
            self._frames += 1
            self._frame_bytes += found.length_bytes
            self.samples = self._frames * found.samples
