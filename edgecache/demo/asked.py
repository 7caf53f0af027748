"""One request to the demo cluster, read: what is to be said, and how the cluster is to behave for it.

Keeps the rule that a bad request is refused with the reason before any synthesis. It does not know HTTP.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgecache.demo.knobs import Knobs
from edgecache.demo.tone import filled
from edgecache.errors import ClientError
from edgecache.speech.utterance import Value, utterance

TEXT_CHARACTERS = 10_000
RATES_HZ = (8000, 48_000)
SPEAKING_RATES = (0.25, 4.0)
#: Media types by format; the first two are written here, the others by an encoder.
FORMATS: Mapping[str, str] = {
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
}
_VOICE = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_+-]{0,63}")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that can be spoken. sample_rate_hz None: the voice's own."""

    fields: Mapping[str, Value]
    text: str
    voice: str
    language: str
    format: str
    speaking_rate: float
    sample_rate_hz: int | None
    knobs: Knobs


def read(body: bytes, knobs: Knobs) -> Asked:
    """The request in this JSON. ClientError: what is wrong with it."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ClientError(400, "bad_json", f"the body is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise ClientError(400, "bad_json", "the body has to be a JSON object")
    fields = utterance(filled(said)).fields
    return Asked(
        fields=said,
        text=_text(fields.get("text")),
        voice=_name(fields, "voice_id", "voice_not_found"),
        language=_name(fields, "language", "voice_not_found"),
        format=_format(fields.get("format")),
        speaking_rate=_number(fields, "speaking_rate", SPEAKING_RATES),
        sample_rate_hz=_rate_hz(fields, said.get("sample_rate")),
        knobs=knobs.turned(fields.get("demo")),
    )


def _text(text: Value) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ClientError(422, "text_missing", "text has to be a string with something to say in it", param="text")
    if len(text) > TEXT_CHARACTERS:
        message = f"text has {len(text)} characters; {TEXT_CHARACTERS} is the most"
        raise ClientError(422, "text_too_long", message, param="text")
    return text


def _name(fields: Mapping[str, Value], param: str, code: str) -> str:
    name = fields.get(param)
    if not isinstance(name, str) or not _VOICE.fullmatch(name):
        raise ClientError(422, code, f"there is no {param} {name!r}", param=param)
    return name


def _format(asked: Value) -> str:
    named = asked.lower() if isinstance(asked, str) else ""
    if named not in FORMATS:
        message = f"format has to be one of {', '.join(FORMATS)}"
        raise ClientError(422, "format_not_supported", message, param="format")
    return named


def _rate_hz(fields: Mapping[str, Value], said: Value) -> int | None:
    number = _number(fields, "sample_rate", RATES_HZ)
    if not number.is_integer():
        raise ClientError(422, "bad_sample_rate", "sample_rate has to be a whole number", param="sample_rate")
    return None if said is None else int(number)


def _number(fields: Mapping[str, Value], param: str, bounds: tuple[float, float]) -> float:
    number = fields.get(param)
    low, high = bounds
    if isinstance(number, bool) or not isinstance(number, int | float) or not low <= number <= high:
        raise ClientError(422, f"bad_{param}", f"{param} has to be a number between {low:g} and {high:g}", param=param)
    return float(number)
