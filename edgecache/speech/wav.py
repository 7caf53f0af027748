"""RIFF/WAVE: is all of the sound there?

Keeps rule 2 for WAV: it is whole when every chunk that it announces is there, the RIFF's own size included. Sizes that
only mean "until the end" (a writer that can't seek back) prove nothing and contradict nothing. It knows the chunks
(Multimedia Programming Interface 1.0; RF64: EBU Tech 3306) and not the samples.
"""

import struct

import msgspec

from edgecache.speech.scan import REST, NotAudio, Scan, Skip, Take, Walk

#: Between RIFF and data there are a few hundred bytes at most.
MAX_HEADER_BYTES = 64 * 1024
#: From here up a size is a placeholder: sox and espeak-ng write 0x7FFFF000, ffmpeg 0xFFFFFFFF, others that less a
#: header's length. A real sound of 2 GiB is far beyond what an edge stores.
PLACEHOLDER_FROM = 0x7FFF0000
#: Sound "to the end" in heads of ours. sox takes it without a warning, and 0xFFFFFFFF with one.
OPEN_BYTES = 0x7FFFF000

_CHUNK = struct.Struct("<4sI")
#: All before the sound of a WAV that has nothing but a format chunk of the least size there, as nearly all have.
_PLAIN = struct.Struct("<4sI4s4sI16s4sI")
_FMT = struct.Struct("<HHIIHH")
_SIZES = struct.Struct("<QQ")
_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE


class _Fmt(msgspec.Struct, frozen=True):
    tag: int
    channels: int
    sample_rate_hz: int
    frame_bytes: int
    bits: int

    @property
    def doubt(self) -> str:
        """Why the samples may not decode as they should; "" if they will."""
        if self.tag not in (_PCM, _FLOAT, _ALAW, _MULAW):
            return "wav_codec"
        return "" if self.frame_bytes == self.channels * ((self.bits + 7) // 8) else "wav_bad_fmt"


class Wav(Scan):
    """A WAV being read."""

    container = "wav"
    #: The format chunk as it came, where the sound begins, and how long it is (REST: to the end), once it is audible.
    format_chunk = b""
    sound_at = 0
    sound_bytes = 0
    frame_bytes = 0
    _fmt: _Fmt | None = None
    _riff_bytes = 0
    _announced_bytes = 0

    @property
    def heard_samples(self) -> int | None:
        """From the sound's first byte on."""
        if not self.sound_at:
            return 0
        passed_bytes = min(self.position - self.sound_at, self.sound_bytes)
        return passed_bytes // self.frame_bytes

    def feed(self, chunk: bytes) -> None:
        """More of the body. One that begins plainly is read in one step to where its sound begins."""
        if not self.position and self._opening == b"" and len(chunk) >= _PLAIN.size:
            riff, riff_bytes, wave, first, fmt_bytes, content, name, size = _PLAIN.unpack_from(chunk)
            if (riff, wave, first, fmt_bytes, name) == (b"RIFF", b"WAVE", b"fmt ", _FMT.size, b"data"):
                self._opening = None
                self.position, self._riff_bytes = _PLAIN.size, _real(riff_bytes)
                fmt = self._describe(content)
                self._announced_bytes = self._sound_bytes(size)
                self._begin_sound(fmt)
                frame_ends = _PLAIN.size + fmt.frame_bytes
                if len(chunk) >= frame_ends and self._announced_bytes >= fmt.frame_bytes:
                    self.position, self.audible, self.why = frame_ends, True, fmt.doubt
                    self._go_on(self._behind_sound(self._heard_sound(fmt)))
                else:
                    self._go_on(self._behind_sound(self._sound(fmt)))
                chunk = chunk[self.position :]
        super().feed(chunk)

    def walk(self) -> Walk:
        """The RIFF head, the chunks up to the sound, the sound, the chunks after it."""
        magic = yield Take(4)
        if not self.cut() and magic not in (b"RIFF", b"RF64", b"BW64"):
            raise NotAudio("not_wav", "the cluster said that this is WAV, and it does not begin as one")
        head = yield Take(8)
        if self.cut():
            return
        if head[4:] != b"WAVE":
            raise NotAudio("not_wav", "the cluster said that this is WAV, and it is another kind of RIFF")
        self._riff_bytes = _real(int.from_bytes(head[:4], "little"))
        yield from self._header()
        if self.cut():
            return
        if self._fmt is None:
            raise NotAudio("not_wav", "a WAV whose sound begins before its format is said")
        self._begin_sound(self._fmt)
        yield from self._behind_sound(self._sound(self._fmt))

    def _behind_sound(self, sound: Walk) -> Walk:
        """The sound, and what is to come after it."""
        yield from sound
        if not self.cut():
            yield from self._trailer()
        # Also a short trailer makes it short: a size that is not kept proves nothing.
        if not self.why and self._riff_bytes and self.position < self._riff_bytes + 8:
            self.why = "wav_short"

    def _header(self) -> Walk:
        """Up to the first byte of the sound."""
        while True:
            head = yield Take(_CHUNK.size)
            if self.cut():
                return
            name, size = _CHUNK.unpack(head)
            if name == b"data":
                self._announced_bytes = self._sound_bytes(size)
                return
            if not _is_name(name):
                raise NotAudio("not_wav", "a WAV with something other than chunks before its sound")
            if self.position + size > MAX_HEADER_BYTES:
                raise NotAudio("header_too_big", f"a WAV with more than {MAX_HEADER_BYTES} bytes before its sound")
            content = yield Take(size + size % 2)
            if self.cut():
                return
            if name == b"fmt ":
                self._describe(content)
            elif name == b"ds64" and size >= _SIZES.size:
                riff_bytes, sound_bytes = _SIZES.unpack_from(content)
                self._riff_bytes, self._announced_bytes = _real(riff_bytes, 1 << 62), _real(sound_bytes, 1 << 62)

    def _describe(self, content: bytes) -> _Fmt:
        fmt = self._fmt = _fmt(content)
        self.format_chunk = content
        self.sample_rate_hz, self.channels = fmt.sample_rate_hz, fmt.channels
        return fmt

    def _sound_bytes(self, size: int) -> int:
        """How long the sound is; REST if until the end. RF64 says it in ds64, and 0xFFFFFFFF here."""
        if _real(size):
            return size
        if size and self._announced_bytes:
            return self._announced_bytes
        # Python's wave writes RIFF 36, data 0 when it can't seek. A RIFF that goes on after it means what it says.
        really_empty = size == 0 and self._riff_bytes + 8 > self.position
        return 0 if really_empty else REST

    def _begin_sound(self, fmt: _Fmt) -> None:
        self.sound_at, self.sound_bytes, self.frame_bytes = self.position, self._announced_bytes, fmt.frame_bytes

    def _sound(self, fmt: _Fmt) -> Walk:
        size = self.sound_bytes
        if size < fmt.frame_bytes:
            yield Skip(size + size % 2)
            return
        yield Take(fmt.frame_bytes)
        if self.cut():
            return
        self.audible = True
        self.why = fmt.doubt
        yield from self._heard_sound(fmt)

    def _heard_sound(self, fmt: _Fmt) -> Walk:
        """Behind its first frame."""
        size = self.sound_bytes
        yield Skip(size - fmt.frame_bytes)
        heard = self.position - self.sound_at
        if fmt.tag in (_PCM, _FLOAT, _ALAW, _MULAW):
            self.samples = heard // fmt.frame_bytes
        if self.cut() and size != REST:
            self.why = self.why or "wav_short"
        elif heard % fmt.frame_bytes:
            self.why = self.why or "wav_half_frame"
        if not self.cut() and size % 2:
            yield Skip(1)

    def _trailer(self) -> Walk:
        """Chunks after the sound (LIST, id3, cue). A second RIFF or data is sound that players will not play."""
        while True:
            head = yield Take(_CHUNK.size)
            if self.cut():
                self.why = self.why or ("wav_garbage" if head else "")
                return
            name, size = _CHUNK.unpack(head)
            if not _is_name(name) or name in (b"RIFF", b"data"):
                self.why = self.why or "wav_garbage"
                return
            ends = self.position + size
            yield Skip(size + size % 2)
            if self.cut():
                self.why = self.why or ("wav_short" if self.position < ends else "")
                return


def opening(format_chunk: bytes) -> bytes:
    """The head of a WAV whose length is not known yet, as sox writes it into a pipe: what all players play to the end."""
    fmt = _CHUNK.pack(b"fmt ", len(format_chunk)) + format_chunk
    head_bytes = 4 + len(fmt) + _CHUNK.size
    return _CHUNK.pack(b"RIFF", OPEN_BYTES + head_bytes) + b"WAVE" + fmt + _CHUNK.pack(b"data", OPEN_BYTES)


def with_true_sizes(sound: bytes) -> bytes:
    """A whole WAV, as long as before, that says how long it is where its writer could not know.

    RF64, which says it elsewhere, is left as it is.
    """
    riff_bytes, at = int.from_bytes(sound[4:8], "little"), 12
    while sound[:4] == b"RIFF" and at + _CHUNK.size <= len(sound):
        name, size = _CHUNK.unpack_from(sound, at)
        at += _CHUNK.size
        if name == b"data":
            true_bytes = size if _real(size) else len(sound) - at
            if (size, _real(riff_bytes)) == (true_bytes, riff_bytes):
                break
            head = b"RIFF" + (len(sound) - 8).to_bytes(4, "little") + sound[8 : at - 4]
            return b"".join((head, true_bytes.to_bytes(4, "little"), memoryview(sound)[at:]))
        at += size + size % 2
    return sound


def _real(size: int, placeholder_from: int = PLACEHOLDER_FROM) -> int:
    """The size, or 0 if it only stands for one that was not known."""
    return size if size < placeholder_from else 0


def _is_name(name: bytes) -> bool:
    return name.isascii() and name.decode().isprintable()


def _fmt(content: bytes) -> _Fmt:
    if len(content) < _FMT.size:
        raise NotAudio("not_wav", "a WAV whose format chunk is too short")
    tag, channels, sample_rate_hz, _, frame_bytes, bits = _FMT.unpack_from(content)
    if tag == _EXTENSIBLE and len(content) >= 26:
        tag = int.from_bytes(content[24:26], "little")
    if not (channels and sample_rate_hz and frame_bytes):
        raise NotAudio("not_wav", "a WAV whose format chunk has no channels, no sample rate or no frame")
    return _Fmt(tag, channels, sample_rate_hz, frame_bytes, bits)
