"""Speeko's wire API, ours: JSON of an utterance in, audio out. Both sides of the edge.

Keeps rule 1: what goes to a cluster is built from the utterance and never from the client's bytes; unknown fields are
part of the utterance; duplicate JSON keys, NaN, Infinity and half surrogate pairs are refused, so that no parser behind
the edge can read another meaning than the key has.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec

from edgecache.clusters.upstream import Outgoing
from edgecache.errors import ClientError
from edgecache.speech.utterance import Utterance, Value, utterance

#: What is meant when a field is absent. `format` and `sample_rate` have no default: the cluster's own holds.
DEFAULTS: Mapping[str, Value] = {"voice_id": "default", "language": "en", "speaking_rate": 1}
#: Fields that are numbers, also where a query string spells them.
NUMBERS = ("speaking_rate", "sample_rate")
#: Where a cluster tells when which word is heard: a path of its own, to be asked once the audio is over.
TIMINGS_HEADER = "Speech-Timings"
_MORE_IN = TIMINGS_HEADER.lower()
#: How a text is to be spoken: each sentence for itself, or all at once. A directive of delivery, never forwarded.
CHUNKINGS = ("sentence", "none")
WORDS = ("voice_id", "language", "format")
#: Identifiers longer than this are a mistake or an attack.
MAX_WORD = 256
MAX_FIELDS = 64
EXAMPLE = '{"text": "Hello"}'
#: Slower or faster than this is noise; Speeko, OpenAI and Kokoro take 0.25 to 4.
RATES = (0.05, 20.0)
SAMPLE_RATES_HZ = (4_000, 384_000)


class Request(NamedTuple):
    """What is asked for, and how it is to be delivered: `chunking` changes no audio, so it is no part of the utterance."""

    utterance: Utterance
    chunking: str | None = None


def read(body: bytes, max_characters: int) -> Utterance:
    """The utterance that a JSON body asks for. ClientError: it does not ask for one."""
    return request(body, max_characters).utterance


def request(body: bytes, max_characters: int) -> Request:
    """The same, with what it says of delivery."""
    return checked(read_fields(body), max_characters)


def read_fields(body: bytes) -> dict[str, Value]:
    """The fields of a JSON object. ClientError: it is none that can be read in one way only."""
    try:
        fields = _decoded(body.decode())
    except UnicodeDecodeError as error:
        raise ClientError(400, "bad_unicode", f"The body is not UTF-8 (at byte {error.start}).") from error
    except json.JSONDecodeError as error:
        raise ClientError(400, "bad_json", f"The body {_no_json(body, error)}; send such as {EXAMPLE}.") from error
    except RecursionError as error:
        raise ClientError(400, "too_deep", "The body is nested too deep.") from error
    except ValueError as error:  # an integer of thousands of digits
        raise ClientError(400, "bad_number", "The body holds a number of too many digits.") from error
    if not isinstance(fields, dict):
        raise ClientError(400, "bad_json", f"The body must be a JSON object such as {EXAMPLE}.")
    return fields


def _no_json(body: bytes, error: json.JSONDecodeError) -> str:
    if not body.strip():
        return "is empty"
    if body.startswith(BOM_UTF8):
        return "begins with a byte order mark, which JSON has not"
    return f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"


def _decoded(text: str) -> object:
    """As `_decoder` has it; without a search for white space around it, where there is none."""
    if text[:1] == "{":
        try:
            fields, end = _scan(text, 0)
        except StopIteration:  # `decode` says what is wrong
            end = -1
        if end == len(text):
            return fields
    return _decoder.decode(text)


def read_query(query: str, max_characters: int) -> Utterance:
    """The utterance that a query string asks for: the same as the JSON with the same fields."""
    return query_request(query, max_characters).utterance


def query_request(query: str, max_characters: int) -> Request:
    """The same, with what it says of delivery."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS, encoding="utf-8", errors="strict")
    except UnicodeDecodeError as error:
        raise ClientError(400, "bad_unicode", "The query is not percent-encoded UTF-8.") from error
    except ValueError as error:
        raise ClientError(400, "too_many_fields", f"The query has more than {MAX_FIELDS} fields.") from error
    fields = _unique(pairs)
    for name in NUMBERS:
        if name in fields:
            fields[name] = _number(name, str(fields[name]))
    return checked(fields, max_characters)


class Speeko:
    """How a Speeko cluster is asked."""

    def ask(self, base_url: str, api_key: str | None, wanted: Utterance) -> Outgoing:
        """The request for this utterance."""
        return Outgoing(f"{base_url}/v1/tts", _headers(api_key), body(wanted), _MORE_IN)


@lru_cache(maxsize=256)
def _headers(api_key: str | None) -> Mapping[str, str]:
    """The same for all that is asked with this key, so that it is spelled out once."""
    key = {} if api_key is None else {"X-API-Key": api_key}
    return MappingProxyType({"Content-Type": "application/json", "Accept": "audio/*", **key})


def body(wanted: Utterance) -> bytes:
    """The JSON that asks for this utterance, and for nothing else."""
    try:
        return msgspec.json.encode(wanted.fields)
    except OverflowError:  # a whole number of more than 64 bits
        return _encoder.encode(wanted.fields).encode()


def _unique(pairs: Sequence[tuple[str, Value]]) -> dict[str, Value]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ClientError(400, "duplicate_field", "The same field is given twice.", param=_shown(twice))
    return fields


def _shown(name: str) -> str:
    """A field name from outside, safe to send back."""
    return name.encode("ascii", "replace").decode()[:64]


def _refuse_constant(constant: str) -> Value:
    raise ClientError(400, "bad_number", f"{constant} is not a JSON number.")


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
_scan: Callable[[str, int], tuple[object, int]] = vars(_decoder)["scan_once"]


def _number(name: str, spelled: str) -> Value:
    try:
        return msgspec.json.decode(spelled.encode(), type=int | float)
    except msgspec.MsgspecError as error:
        raise ClientError(400, "bad_type", f"{name} must be a number.", param=name) from error


def checked(fields: dict[str, Value], max_characters: int) -> Request:
    """What these fields ask for, however they were spelled. ClientError: one of them is not as it must be."""
    if len(fields) > MAX_FIELDS:
        raise ClientError(400, "too_many_fields", f"More than {MAX_FIELDS} fields.")
    text = fields.get("text")
    if not isinstance(text, str):
        wrong = "text is missing" if text is None else "text must be a string"
        raise ClientError(400, "missing_text", f"{wrong}: what is to be spoken.", param="text")
    if not text.strip():
        raise ClientError(400, "empty_text", "text is empty: there is nothing to speak.", param="text")
    if "\0" in text:
        raise ClientError(400, "bad_text", "text holds a NUL character, where many engines would stop.", param="text")
    if len(text) > max_characters:
        raise ClientError(
            413, "text_too_long", f"text has {len(text)} characters; this edge takes {max_characters}.", param="text"
        )
    chunking = fields.pop("chunking", None)
    if chunking is not None and chunking not in CHUNKINGS:
        raise ClientError(400, "bad_chunking", f"chunking must be one of {', '.join(CHUNKINGS)}.", param="chunking")
    wanted = utterance({**DEFAULTS, **{name: value for name, value in fields.items() if value is not None}})
    _check_types(wanted.fields)
    return Request(wanted, None if chunking is None else str(chunking))


def _check_types(fields: Mapping[str, Value]) -> None:
    for name in WORDS:
        word = fields.get(name, "")
        if not isinstance(word, str) or len(word) > MAX_WORD:
            raise ClientError(400, "bad_type", f"{name} must be a string of at most {MAX_WORD}.", param=name)
    rate = fields["speaking_rate"]
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not RATES[0] <= rate <= RATES[1]:
        raise ClientError(
            400, "bad_rate", f"speaking_rate must be a number from {RATES[0]} to {RATES[1]}.", param="speaking_rate"
        )
    sample_rate = fields.get("sample_rate", 24_000)
    if (
        isinstance(sample_rate, bool)
        or not isinstance(sample_rate, int)
        or not SAMPLE_RATES_HZ[0] <= sample_rate <= SAMPLE_RATES_HZ[1]
    ):
        raise ClientError(
            400,
            "bad_sample_rate",
            f"sample_rate must be a whole number of Hz from {SAMPLE_RATES_HZ[0]} to {SAMPLE_RATES_HZ[1]}.",
            param="sample_rate",
        )
