"""How a scripted cluster answers next, and what it was asked: words that the bench and the cluster's process share. Pure."""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bench.bare_cluster import wav

WAV_HEAD_BYTES = 44
#: A second of 24 kHz PCM of 16 bits, what every text here is spoken in.
SECOND_BYTES = 48_000
SPEECH_BYTES = WAV_HEAD_BYTES + SECOND_BYTES


@dataclass(frozen=True, slots=True)
class Act:
    """How it answers. body: instead of speech. sent: the share of the body after which it breaks off. lasts_s: how long
    it speaks, evenly. holds: after half of the body it waits to be told to go on. dead: it listens no more."""

    status: int = 200
    media_type: str = "audio/wav"
    body: str | None = None
    framing: str = "chunked"  # or length, or close: HTTP/1.0, the body ends with the connection
    sent: float = 1.0
    announced: float = 1.0  # of how many times its audio a WAV's head tells
    thinks_s: float = 0.0
    lasts_s: float = 0.0
    holds: bool = False
    dead: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    def head(self, size: int) -> bytes:
        """Of an answer whose body has so many bytes."""
        lines = ["HTTP/1.0" if self.framing == "close" else "HTTP/1.1", f" {self.status} Said\r\n"]
        lines.append(f"Content-Type: {self.media_type}\r\n")
        lines += [f"{name}: {value}\r\n" for name, value in self.headers.items()]
        if self.framing == "length":
            lines.append(f"Content-Length: {size}\r\n")
        lines.append("Transfer-Encoding: chunked\r\n" if self.framing == "chunked" else "")
        lines.append("Connection: close\r\n" if self.framing == "close" else "")
        return ("".join(lines) + "\r\n").encode()

    def framed(self, piece: bytes) -> bytes:
        """A piece of the body on the wire."""
        return b"%x\r\n%s\r\n" % (len(piece), piece) if self.framing == "chunked" else piece

    @property
    def end(self) -> bytes:
        return b"0\r\n\r\n" if self.framing == "chunked" else b""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for speech, as the cluster got it. ended: it has sent all of its answer."""

    said: Mapping[str, Any]
    headers: Mapping[str, str]
    ended: bool = False


def speech(said: Mapping[str, Any], number: int, announced: float = 1.0) -> bytes:
    """A WAV that no other utterance has, and no other synthesis of this one."""
    named = repr((said.get("text"), said.get("voice_id"), said.get("speaking_rate"), number)).encode()
    samples = hashlib.shake_128(named).digest(SECOND_BYTES)
    # Quiet noise: eight bits of each sixteen.
    samples = struct.pack(f"<{len(samples) // 2}h", *(struct.unpack(f"{len(samples)}b", samples)[::2]))
    return wav(WAV_HEAD_BYTES + int(SECOND_BYTES * announced))[:WAV_HEAD_BYTES] + samples


def read_act(told: bytes) -> Act:
    """What `told` tells."""
    return msgspec.json.decode(told, type=Act)


def told(act: Act) -> bytes:
    return msgspec.json.encode(act)
