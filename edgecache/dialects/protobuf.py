"""The protobuf spelling of Speeko's requests: a `TtsStreamRequest` is the same utterance as the JSON with the same fields.

Keeps rule 1: fields of numbers that this edge does not know are refused, because they can neither be part of the
utterance nor be passed on; any field that has only a name goes into `others`. It does not know how answers are framed.
"""

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct
from google.protobuf.struct_pb2 import Value as WireValue
from google.protobuf.unknown_fields import UnknownFieldSet

from edgecache.dialects import speeko
from edgecache.dialects.speech_pb2 import TtsStreamRequest
from edgecache.errors import ClientError
from edgecache.speech.utterance import Utterance, Value

MEDIA_TYPES = frozenset({"application/x-protobuf", "application/protobuf", "application/vnd.google.protobuf"})
#: What is said about a message and not part of what is spoken.
_OF_THE_SOCKET = ("type", "id", "no_store", "no_cache")


def is_protobuf(content_type: str) -> bool:
    """Whether a body of this `Content-Type` is one of these messages."""
    return content_type.partition(";")[0].strip().lower() in MEDIA_TYPES


def read(body: bytes, max_characters: int) -> Utterance:
    """The utterance that a request body asks for. ClientError: it does not ask for one."""
    return request(body, max_characters).utterance


def request(body: bytes, max_characters: int) -> speeko.Request:
    """The same, with what it says of delivery."""
    fields = read_fields(body)
    for name in _OF_THE_SOCKET:
        if name in fields:
            raise ClientError(400, "bad_field", f"{name} is for WebSockets alone; here it has no effect.", param=name)
    return speeko.checked(fields, max_characters)


def read_fields(body: bytes) -> dict[str, Value]:
    """The fields of one message, as JSON would have them. ClientError: it is none."""
    try:
        message = TtsStreamRequest.FromString(body)
    except DecodeError as error:
        raise ClientError(
            400, "bad_protobuf", "This is not a TtsStreamRequest (edgecache/dialects/speech.proto)."
        ) from error
    if len(UnknownFieldSet(message)):
        told = (
            "The message has a field whose number is not known here; a field that has only a name goes into `others`."
        )
        raise ClientError(400, "unknown_field", told)
    fields: dict[str, Value] = {
        each.name: value for each, value in message.ListFields() if not isinstance(value, Struct)
    }
    others = _fields(message.others)
    for name in others:
        if name in fields or name in _OF_THE_SOCKET:
            raise ClientError(400, "duplicate_field", "`others` may not have a field that has a number.", param=name)
    return {**fields, **others}


def _fields(struct: Struct) -> dict[str, Value]:
    return {name: _value(value) for name, value in struct.fields.items()}


def _value(wire: WireValue) -> Value:
    match wire.WhichOneof("kind"):
        case "number_value":
            return wire.number_value
        case "string_value":
            return wire.string_value
        case "bool_value":
            return wire.bool_value
        case "struct_value":
            return _fields(wire.struct_value)
        case "list_value":
            return [_value(each) for each in wire.list_value.values]
        case _:
            return None
