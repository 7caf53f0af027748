"""FLAC (RFC 9639): frames found by their headers, the last one proven by its checksum.

Keeps rule 2 for FLAC: it is whole when its frames are numbered without a gap, the last one's CRC-16 holds and, where
STREAMINFO says how many samples there are, there are so many. A writer that can't seek leaves that at 0: then an end
between two frames can't be told from the real end. It does not decode: damage inside a frame that is not the last
goes unseen, and of cuts inside the last frame a CRC-16 takes one in 65,536 for an end.
Zeros after the end are padding to it.

Theory. A FLAC frame does not say how long it is; the next one begins where a header with the right sync code, the right
number and a right CRC-8 is. All three by chance is rarer than a memory fault. What is held is the frame being read.
"""

from dataclasses import dataclass

from edgecache.speech.scan import REST, NotAudio, Scan, Skip, Some, Take, Walk

#: Metadata blocks before the first frame, pictures included.
MAX_HEADER_BYTES = 1024 * 1024
#: Encoders use 4096 or 4608 samples a frame: 9-18 KB if it does not compress at all. Its CRC-16 is computed at the end,
#: in Python, at about 10 MB/s.
MAX_FRAME_BYTES = 128 * 1024
#: The longest frame header (RFC 9639 §9.1).
_LONGEST_HEAD_BYTES = 16
_STREAMINFO_BYTES = 34
_BLOCK_SIZES = {1: 192} | {n: 576 << n - 2 for n in range(2, 6)} | {n: 256 << n - 8 for n in range(8, 16)}


def _table(polynomial: int, bits: int) -> tuple[int, ...]:
    """A CRC's remainder for each byte, highest bit first."""
    top, mask, table = 1 << bits - 1, (1 << bits) - 1, []
    for byte in range(256):
        crc = byte << bits - 8
        for _ in range(8):
            crc = (crc << 1 ^ (polynomial if crc & top else 0)) & mask
        table.append(crc)
    return tuple(table)


_CRC8 = _table(0x07, 8)
_CRC16 = _table(0x8005, 16)


@dataclass(frozen=True, slots=True)
class FrameHead:
    """number: of the frame where all are of one size, else of its first sample. samples: in this frame."""

    number: int
    samples: int
    length_bytes: int


def frame_head(head: bytes) -> FrameHead | None:
    """The frame header that these bytes begin with; None: they don't, or not a whole one (RFC 9639 §9.1)."""
    if len(head) < 6 or head[0] != 0xFF or head[1] not in (0xF8, 0xF9):
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    if size_code == 0 or rate_code == 15 or head[3] >> 4 > 10 or head[3] & 1 or head[3] >> 1 & 7 == 3:
        return None
    number_bytes = _number_bytes(head[4])
    at = 4 + number_bytes
    size_bytes = {6: 1, 7: 2}.get(size_code, 0)
    length = at + size_bytes + {12: 1, 13: 2, 14: 2}.get(rate_code, 0) + 1
    if number_bytes == 0 or len(head) < length or _remainder8(head[:length]):
        return None
    samples = _BLOCK_SIZES[size_code] if not size_bytes else int.from_bytes(head[at : at + size_bytes], "big") + 1
    return FrameHead(_number(head[4:at]), samples, length)


def _number_bytes(first: int) -> int:
    """How long a number is that begins so (like UTF-8, up to seven bytes); 0: none does."""
    ones = 8 - (first ^ 0xFF).bit_length()
    return 1 if ones == 0 else ones if 2 <= ones <= 7 else 0


def _number(coded: bytes) -> int:
    if len(coded) == 1:
        return coded[0]
    number = coded[0] & 0x7F >> len(coded)
    for byte in coded[1:]:
        number = number << 6 | byte & 0x3F
    return number


def _remainder8(head: bytes) -> int:
    crc = 0
    for byte in head:
        crc = _CRC8[crc ^ byte]
    return crc


def remainder16(frame: bytes | bytearray) -> int:
    """0 for a whole frame, its CRC-16 included."""
    crc, table = 0, _CRC16
    for byte in frame:
        crc = (crc << 8 & 0xFF00) ^ table[crc >> 8 ^ byte]
    return crc


class Flac(Scan):
    """A FLAC being read."""

    container = "flac"
    _total = 0
    _least_bytes = 0
    _sync = b""
    _next_number = 0

    @property
    def heard_samples(self) -> int | None:
        """Of all frames that have begun."""
        return self.samples or 0

    def walk(self) -> Walk:
        """Metadata, then frames."""
        magic = yield Take(4)
        if self.cut():
            return
        if magic != b"fLaC":
            raise NotAudio("not_flac", "the cluster said that this is FLAC, and it does not begin as one")
        last = False
        while not last:
            head = yield Take(4)
            if self.cut():
                return
            last, kind, size = head[0] >= 0x80, head[0] & 0x7F, int.from_bytes(head[1:], "big")
            if kind == 127 or (kind == 0) != (self.sample_rate_hz is None) or (kind == 0 and size != _STREAMINFO_BYTES):
                raise NotAudio("not_flac", "a FLAC whose metadata are out of order")
            if self.position + size > MAX_HEADER_BYTES:
                raise NotAudio("header_too_big", f"a FLAC with more than {MAX_HEADER_BYTES} bytes before its sound")
            if kind == 0:
                self._streaminfo((yield Take(size)))
            else:
                yield Skip(size)
        self._sync = yield Take(2)
        if self.cut():
            return
        if self._sync not in (b"\xff\xf8", b"\xff\xf9"):
            raise NotAudio("not_flac", "a FLAC whose metadata are not followed by a frame")
        yield from self._frames()

    def _streaminfo(self, block: bytes) -> None:
        if self.cut():
            return
        self._least_bytes = int.from_bytes(block[4:7], "big")
        bits = int.from_bytes(block[10:18], "big")
        self.sample_rate_hz, self.channels = bits >> 44, (bits >> 41 & 7) + 1
        self._total = bits & (1 << 36) - 1
        if not self.sample_rate_hz:
            raise NotAudio("not_flac", "a FLAC without a sample rate")

    def _frames(self) -> Walk:
        """Holds one frame at a time; `at` is how far it was searched for the next one's header."""
        held, at = bytearray(self._sync), 0
        while True:
            piece = yield Some()
            held += piece
            at = self._search(held, at)
            if at > MAX_FRAME_BYTES:
                self.broken("not_flac", "flac_lost_sync", "a FLAC with no second frame")
                yield Skip(REST)
                return
            if self.cut():
                break
        self._last(held)

    def _search(self, held: bytearray, at: int) -> int:
        """Drops all frames but the last one in `held`. Where to go on when there is more."""
        while (found := held.find(self._sync, at)) != -1 and found <= MAX_FRAME_BYTES:
            if len(held) - found < _LONGEST_HEAD_BYTES and not self.cut():
                return found
            head = frame_head(bytes(held[found : found + _LONGEST_HEAD_BYTES]))
            if head and self._is_next(head):
                self._begin(head)
                del held[:found]
                at = head.length_bytes
            elif self.audible:
                at = found + 1
            elif self.cut():
                break
            else:
                raise NotAudio("not_flac", "a FLAC whose first frame header is damaged")
        return max(at, len(held) - 1)

    def _is_next(self, head: FrameHead) -> bool:
        return head.number == self._next_number or not self.audible

    def _begin(self, head: FrameHead) -> None:
        if head.number != self._next_number:
            self.why = "flac_no_start"
        self.audible = True
        self.samples = (self.samples or 0) + head.samples
        # RFC 9639 §9.1.5: frames are counted where all have one size, samples where they don't.
        self._next_number = head.number + (1 if self._sync == b"\xff\xf8" else head.samples)

    def _last(self, held: bytearray) -> None:
        """The body is over: whether what is held is a whole frame, and the last."""
        if self.samples is None:
            return
        if len(held) < self._least_bytes or self.samples < self._total or remainder16(held):
            self.why = self.why or "flac_truncated"
        elif self._total and self.samples > self._total:
            self.why = self.why or "flac_overrun"
