"""How deliveries are read by libraries that nobody here wrote, and what they say was heard."""

import io
import json
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from google.protobuf.message import DecodeError
from google.protobuf.proto import parse_length_prefixed
from httpx_sse import EventSource, ServerSentEvent

from edgecache.dialects.speech_pb2 import TtsStreamResponse


@dataclass
class Spoken:
    """One answer as its client understands it. ended: "done", "error", or "" if it was cut off."""

    metadata: dict[str, Any] = field(default_factory=dict)
    audio: bytes = b""
    chunks: list[dict[str, Any]] = field(default_factory=list)
    sentences: list[dict[str, Any]] = field(default_factory=list)
    ended: str = ""
    end: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """What is true of every answer, whole or not."""
        assert [each["sequence_number"] for each in self.chunks] == list(range(len(self.chunks)))
        offsets = [each["offset_ms"] for each in self.chunks]
        if None not in offsets:
            for before, after in zip(self.chunks, self.chunks[1:], strict=False):
                assert before["offset_ms"] + before["duration_ms"] == after["offset_ms"]


def events(body: bytes) -> list[ServerSentEvent]:
    """As httpx-sse reads them. What is not yet whole is no event."""
    answer = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=body)
    return list(EventSource(answer).iter_sse())


def of_events(body: bytes) -> Spoken:
    spoken = Spoken()
    for event in events(body):
        told = json.loads(event.data)
        assert spoken.ended == "", "nothing follows an end"
        match event.event:
            case "metadata":
                assert not spoken.metadata
                spoken.metadata = told
            case "audio":
                spoken.audio += b64decode(told.pop("audio"), validate=True)
                spoken.chunks.append(told)
            case "sentence":
                spoken.sentences.append(told)
            case end:
                assert end in ("done", "error")
                spoken.ended, spoken.end = end, told
    spoken.check()
    return spoken


def messages(body: bytes) -> Iterator[TtsStreamResponse]:
    """As protobuf's own parser reads them. A message that is not whole ends it."""
    stream = io.BytesIO(body)
    while stream.tell() < len(body):
        try:
            message = parse_length_prefixed(TtsStreamResponse, stream)
        except (DecodeError, ValueError, IndexError):
            return
        yield message


def of_messages(body: bytes) -> Spoken:
    spoken = Spoken()
    for message in messages(body):
        take(spoken, message)
    spoken.check()
    return spoken


def take(spoken: Spoken, message: TtsStreamResponse) -> None:
    """One more message."""
    assert spoken.ended == "", "nothing follows an end"
    match message.WhichOneof("event"):
        case "metadata":
            assert not spoken.metadata
            told = message.metadata
            spoken.metadata = {
                "format": told.format,
                "media_type": told.media_type,
                "sample_rate": told.sample_rate or None,
                "channels": told.channels or None,
                "duration_ms": told.duration_ms if told.HasField("duration_ms") else None,
                "cache": told.cache,
                "key": told.key or None,
            }
        case "audio":
            chunk = message.audio
            offset_ms = chunk.timestamp_ms if chunk.HasField("timestamp_ms") else None
            if chunk.is_final:
                assert chunk.audio_data == b""
                assert chunk.sequence_number == len(spoken.chunks)
                spoken.ended, spoken.end = "done", {"duration_ms": offset_ms}
                return
            spoken.audio += chunk.audio_data
            duration_ms = chunk.duration_ms if chunk.HasField("duration_ms") else None
            spoken.chunks.append(
                {"sequence_number": chunk.sequence_number, "offset_ms": offset_ms, "duration_ms": duration_ms}
            )
        case "error":
            spoken.ended = "error"
            spoken.end = {"status": message.error.status, "error": {"code": message.error.code}}
        case "sentence":
            spoken.sentences.append({"index": message.sentence.index})
        case other:
            raise AssertionError(other)
