"""Ogg (RFC 3533): Opus (RFC 7845) and Vorbis by name, any other codec by its pages.

Keeps rule 2 for Ogg: it is whole when no page is missing, cut or changed (numbers, packets that go on, checksums) and the
last one says that it is the last. It does not decode. Links of a chain (files joined end to end) are read one by one.
A live stream that does not begin at sample 0 measures longer than it sounds.

Theory. Ogg's CRC-32 has zlib's polynomial but takes each byte's bits from the top. Turning the bits of all bytes round
(`bytes.translate`), starting from 0 and turning the result round makes zlib compute it, at C's speed.
"""

import struct
import zlib
from collections.abc import Generator
from dataclasses import dataclass

from edgecache.speech.scan import REST, NotAudio, Scan, Skip, Step, Take, Walk

#: Headers and comments before the first sound, a cover picture included.
MAX_HEADER_BYTES = 1024 * 1024
#: An Opus granule counts samples at 48 kHz, whatever rate went in (RFC 7845 §4).
OPUS_RATE_HZ = 48_000

_PAGE = struct.Struct("<4sBBQIIIB")
_CONTINUES, _BEGINS, _ENDS = 1, 2, 4
#: No packet ends on this page.
_NO_GRANULE = 0xFFFFFFFFFFFFFFFF
_TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class _Page:
    flags: int
    granule: int
    serial: int
    number: int
    lacing: bytes
    body: bytes

    @property
    def packets_ended(self) -> int:
        return sum(length < 255 for length in self.lacing)

    @property
    def goes_on(self) -> bool:
        """Whether its last packet continues on the next page."""
        return self.lacing[-1:] == b"\xff"


@dataclass(frozen=True, slots=True)
class _Codec:
    """name: "opus", "vorbis", "" for others. headers: packets before the sound. skipped: samples that are not played."""

    name: str
    headers: int
    rate_hz: int | None = None
    channels: int | None = None
    skipped: int = 0


class Ogg(Scan):
    """An Ogg being read."""

    _codec: _Codec | None = None
    _headers_left = 1

    def walk(self) -> Walk:
        """Links, until there are no more bytes or they are not Ogg."""
        self.samples = 0
        ended = True
        while ended:
            page = yield from self._page()
            if page is None:
                break
            if not page.flags & _BEGINS:
                self.broken("not_ogg", "ogg_garbage", "an Ogg that does not begin with a first page")
                break
            ended = yield from self._link(page)
        yield Skip(REST)

    def _link(self, page: _Page) -> Generator[Step, bytes, bool]:
        """One logical stream whose first page was read. Whether it came to its end."""
        codec = self._meet(_codec(page.body))
        self._headers_left = codec.headers
        granule, before = 0, self.samples or 0
        while True:
            self._headers_left -= page.packets_ended
            if page.granule < granule:
                self.broken("not_ogg", "ogg_lost_pages", "an Ogg whose time runs backwards")
            granule = granule if page.granule == _NO_GRANULE else page.granule
            self.samples = before + max(granule - codec.skipped, 0)
            if page.flags & _ENDS:
                break
            following = yield from self._page()
            if following is None:
                self.why = self.why or "ogg_no_eos"
                break
            if not _follows(page, following):
                self.broken("not_ogg", "ogg_lost_pages", "an Ogg with pages missing or of several streams")
            page = following
        if page.goes_on:
            self.why = self.why or "ogg_half_packet"
        return bool(page.flags & _ENDS)

    def _meet(self, codec: _Codec) -> _Codec:
        """Takes over the codec's facts; a later link has to be as the first."""
        asked = self.expected.format or ""
        if any(name in asked and name != codec.name for name in ("opus", "vorbis")):
            self.broken("format_mismatch", "ogg_mixed", "an Ogg with another codec than was asked for")
        if self._codec is None:
            self._codec = codec
            self.container = "ogg/opus" if codec.name == "opus" else "other"
            self.sample_rate_hz, self.channels = codec.rate_hz, codec.channels
        elif (codec.name, codec.rate_hz) != (self._codec.name, self._codec.rate_hz):
            self.broken("not_ogg", "ogg_mixed", "an Ogg whose links have different codecs or rates")
        return codec

    def _page(self) -> Generator[Step, bytes, _Page | None]:
        """The next page. None: there is none, or what comes is not one."""
        magic = yield Take(4)
        if self.cut():
            self.why = self.why or ("ogg_truncated" if magic else "")
            return None
        if magic != b"OggS":
            self.broken("not_ogg", "ogg_garbage", "the cluster said that this is Ogg, and there are no Ogg pages")
            return None
        head = magic + (yield Take(_PAGE.size - 4))
        lacing = b"" if self.cut() else (yield Take(head[-1]))
        body = b"" if self.cut() else (yield from self._page_body(head, lacing))
        if self.cut():
            self.why = self.why or "ogg_truncated"
            return None
        _, version, flags, granule, serial, number, checksum, _ = _PAGE.unpack(head)
        if version or page_checksum(head[:22] + bytes(4) + head[26:] + lacing + body) != checksum:
            self.broken("not_ogg", "ogg_bad_checksum", "an Ogg with a damaged page")
        return _Page(flags, granule, serial, number, lacing, body)

    def _page_body(self, head: bytes, lacing: bytes) -> Generator[Step, bytes, bytes]:
        """A page's packets. Its first byte after the headers is audible at once: the page itself may be slow to come."""
        size = sum(lacing)
        if not self.audible and self.position + size > MAX_HEADER_BYTES:
            raise NotAudio("header_too_big", f"an Ogg with more than {MAX_HEADER_BYTES} bytes before its sound")
        first = yield Take(min(size, 1))
        if first and self._headers_left <= 0 and not head[5] & _BEGINS:
            self.audible = True
        return first + (yield Take(size - len(first)))


def _follows(page: _Page, following: _Page) -> bool:
    """Whether these are neighbours in one stream."""
    return (
        following.serial == page.serial
        and following.number == (page.number + 1) & 0xFFFFFFFF
        and not following.flags & _BEGINS
        and (not following.lacing or bool(following.flags & _CONTINUES) == page.goes_on)
    )


def _codec(head: bytes) -> _Codec:
    """The codec whose first packet this is."""
    if head[:8] == b"OpusHead" and len(head) >= 19:
        return _Codec("opus", 2, OPUS_RATE_HZ, head[9], int.from_bytes(head[10:12], "little"))
    if head[:7] == b"\x01vorbis" and len(head) >= 16:
        return _Codec("vorbis", 3, int.from_bytes(head[12:16], "little"), head[11])
    return _Codec("", 1)


def page_checksum(page: bytes) -> int:
    """The page's CRC-32 (RFC 3533 §6), its own field zero."""
    turned = zlib.crc32(page.translate(_TURNED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{turned:032b}"[::-1], 2)
