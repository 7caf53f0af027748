from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TtsStreamRequest(_message.Message):
    __slots__ = ("text", "voice_id", "language", "speaking_rate", "format", "sample_rate", "others", "type", "id", "no_store", "no_cache")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VOICE_ID_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    SPEAKING_RATE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NO_STORE_FIELD_NUMBER: _ClassVar[int]
    NO_CACHE_FIELD_NUMBER: _ClassVar[int]
    text: str
    voice_id: str
    language: str
    speaking_rate: float
    format: str
    sample_rate: int
    others: _struct_pb2.Struct
    type: str
    id: str
    no_store: bool
    no_cache: bool
    def __init__(self, text: _Optional[str] = ..., voice_id: _Optional[str] = ..., language: _Optional[str] = ..., speaking_rate: _Optional[float] = ..., format: _Optional[str] = ..., sample_rate: _Optional[int] = ..., others: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., type: _Optional[str] = ..., id: _Optional[str] = ..., no_store: _Optional[bool] = ..., no_cache: _Optional[bool] = ...) -> None: ...

class TtsStreamResponse(_message.Message):
    __slots__ = ("id", "metadata", "audio", "error", "sentence", "complete", "cancelled")
    ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    id: str
    metadata: StreamMetadata
    audio: AudioChunk
    error: StreamError
    sentence: Sentence
    complete: SynthesisComplete
    cancelled: Cancelled
    def __init__(self, id: _Optional[str] = ..., metadata: _Optional[_Union[StreamMetadata, _Mapping]] = ..., audio: _Optional[_Union[AudioChunk, _Mapping]] = ..., error: _Optional[_Union[StreamError, _Mapping]] = ..., sentence: _Optional[_Union[Sentence, _Mapping]] = ..., complete: _Optional[_Union[SynthesisComplete, _Mapping]] = ..., cancelled: _Optional[_Union[Cancelled, _Mapping]] = ...) -> None: ...

class StreamMetadata(_message.Message):
    __slots__ = ("sample_rate", "channels", "format", "duration_ms", "media_type", "cache", "key")
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    sample_rate: int
    channels: int
    format: str
    duration_ms: int
    media_type: str
    cache: str
    key: str
    def __init__(self, sample_rate: _Optional[int] = ..., channels: _Optional[int] = ..., format: _Optional[str] = ..., duration_ms: _Optional[int] = ..., media_type: _Optional[str] = ..., cache: _Optional[str] = ..., key: _Optional[str] = ...) -> None: ...

class AudioChunk(_message.Message):
    __slots__ = ("audio_data", "sequence_number", "is_final", "timestamp_ms", "duration_ms")
    AUDIO_DATA_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    IS_FINAL_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    audio_data: bytes
    sequence_number: int
    is_final: bool
    timestamp_ms: int
    duration_ms: int
    def __init__(self, audio_data: _Optional[bytes] = ..., sequence_number: _Optional[int] = ..., is_final: _Optional[bool] = ..., timestamp_ms: _Optional[int] = ..., duration_ms: _Optional[int] = ...) -> None: ...

class StreamError(_message.Message):
    __slots__ = ("status", "code", "message", "param", "retry_after_s")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PARAM_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    status: int
    code: str
    message: str
    param: str
    retry_after_s: int
    def __init__(self, status: _Optional[int] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., param: _Optional[str] = ..., retry_after_s: _Optional[int] = ...) -> None: ...

class Sentence(_message.Message):
    __slots__ = ("index", "text_start", "text_end", "offset_ms")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_START_FIELD_NUMBER: _ClassVar[int]
    TEXT_END_FIELD_NUMBER: _ClassVar[int]
    OFFSET_MS_FIELD_NUMBER: _ClassVar[int]
    index: int
    text_start: int
    text_end: int
    offset_ms: int
    def __init__(self, index: _Optional[int] = ..., text_start: _Optional[int] = ..., text_end: _Optional[int] = ..., offset_ms: _Optional[int] = ...) -> None: ...

class SynthesisComplete(_message.Message):
    __slots__ = ("duration_ms", "cache", "bytes", "chunks")
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    duration_ms: int
    cache: str
    bytes: int
    chunks: int
    def __init__(self, duration_ms: _Optional[int] = ..., cache: _Optional[str] = ..., bytes: _Optional[int] = ..., chunks: _Optional[int] = ...) -> None: ...

class Cancelled(_message.Message):
    __slots__ = ("stopped",)
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    stopped: int
    def __init__(self, stopped: _Optional[int] = ...) -> None: ...
