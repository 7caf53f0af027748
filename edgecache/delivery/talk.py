"""What is said over a WebSocket, both ways: JSON texts and binary audio, or protobuf messages. Pure.

Keeps rule 1: a message is read as a request body is. Its `type`, `id`, `no_store` and `no_cache` are about the message;
every other field is part of the utterance. It does not know when anything is said.
"""

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import msgspec

from edgecache.cache.lookup import Directives
from edgecache.delivery.problem import told
from edgecache.delivery.protobuf import Messages
from edgecache.delivery.sse import completed
from edgecache.dialects import protobuf, speeko
from edgecache.errors import ClientError, SpeechError
from edgecache.fill.telling import About, End, Piece, Sentence
from edgecache.speech.utterance import Utterance, Value

#: An id is sent back with everything that is said of its utterance.
MAX_ID_CHARACTERS = 128
JSON, PROTOBUF = "edgecache.json", "edgecache.protobuf"

Id: TypeAlias = str | int | None
#: A text or a binary message.
Message: TypeAlias = str | bytes
Fields: TypeAlias = Mapping[str, Value]


class Speak(msgspec.Struct, frozen=True):
    """Speak this, behind what was asked for before."""

    id: Id
    asked: speeko.Request
    directives: Directives


class Text(msgspec.Struct, frozen=True):
    """More of a text that comes bit by bit. utterance: how it is to be spoken; its own words mean nothing."""

    id: Id
    text: str
    utterance: Utterance
    directives: Directives


class Flush(msgspec.Struct, frozen=True):
    """That text is all there."""

    id: Id


class Cancel(msgspec.Struct, frozen=True):
    """Stop this one, or all."""

    id: Id


class Setup(msgspec.Struct, frozen=True):
    """From here on: fields that are meant where a text does not have them, and whether nothing is to be kept."""

    defaults: Fields
    no_store: bool


Said: TypeAlias = Speak | Text | Flush | Cancel | Setup


class Unreadable(ClientError):
    """A message that is not as it must be; `id` is its own, if that could be read."""

    id: Id = None

    @classmethod
    def of(cls, error: SpeechError, id: Id) -> "Unreadable":
        """This error, said of that text."""
        unreadable = cls(error.status, error.code, error.message, error.param, error.retry_after_s)
        unreadable.id = id
        return unreadable


def read(message: Message, session: Setup, max_characters: int) -> Said:
    """What a client says. Unreadable: it says nothing that can be done."""
    own_id: Id = None
    try:
        fields = protobuf.read_fields(message) if isinstance(message, bytes) else speeko.read_fields(message.encode())
        own_id = _id(fields.pop("id", None))
        return _said(str(fields.pop("type", "speak")), own_id, fields, session, max_characters)
    except ClientError as error:
        raise Unreadable.of(error, own_id) from error


def _said(kind: str, own_id: Id, fields: dict[str, Value], session: Setup, max_characters: int) -> Said:
    no_store, no_cache = _flag(fields, "no_store") or session.no_store, _flag(fields, "no_cache")
    directives = Directives(no_cache=no_cache, no_store=no_store)
    match kind:
        case "speak":
            return Speak(own_id, speeko.checked({**session.defaults, **fields}, max_characters), directives)
        case "text":
            text = fields.pop("text", None)
            if not isinstance(text, str) or "\0" in text:
                raise ClientError(400, "bad_text", "text must be a string without NUL characters.", param="text")
            manner = speeko.checked({**session.defaults, **fields, "text": "x"}, max_characters).utterance
            return Text(own_id, text, manner, directives)
        case "flush":
            return Flush(own_id)
        case "cancel":
            return Cancel(own_id)
        case "session":
            # What was said to be private stays so: only another session may be kept.
            speeko.checked({**fields, "text": "x"}, 1)
            return Setup(fields, no_store)
        case _:
            raise ClientError(400, "unknown_type", "type can be speak, text, flush, cancel or session.", param="type")


def _id(given: Value) -> Id:
    if given is None or (isinstance(given, int) and not isinstance(given, bool) and abs(given) < 2**53):
        return given
    if isinstance(given, str) and len(given) <= MAX_ID_CHARACTERS:
        return given
    raise ClientError(
        400, "bad_id", f"id must be a string of at most {MAX_ID_CHARACTERS}, or a whole number.", param="id"
    )


def _flag(fields: dict[str, Value], name: str) -> bool:
    flag = fields.pop(name, None)
    if flag is not None and not isinstance(flag, bool):
        raise ClientError(400, "bad_type", f"{name} must be true or false.", param=name)
    return bool(flag)


class Tongue(Protocol):
    """How things are said of one utterance. An empty list: nothing is."""

    def begin(self, about: About) -> list[Message]: ...
    def sentence(self, sentence: Sentence) -> list[Message]: ...
    def piece(self, piece: Piece) -> list[Message]: ...
    def end(self, about: About, end: End) -> list[Message]: ...
    def error(self, error: SpeechError) -> list[Message]: ...
    def cancelled(self, stopped: int) -> list[Message]: ...


class InJson:
    """Texts of JSON, and audio as it is."""

    def __init__(self, id: Id) -> None:
        self._id = id

    def begin(self, about: About) -> list[Message]:
        """Nothing: many clients take the first text for the end."""
        return []

    def sentence(self, sentence: Sentence) -> list[Message]:
        """The audio that follows is of this sentence."""
        return [self._text("sentence", msgspec.structs.asdict(sentence))]

    def piece(self, piece: Piece) -> list[Message]:
        """Some of the audio."""
        return [piece.audio]

    def end(self, about: About, end: End) -> list[Message]:
        """That was all, and what it was."""
        facts = {"format": about.format, "media_type": about.media_type, "sample_rate": about.sample_rate_hz}
        return [self._text("synthesis_complete", {**completed(about, end), **facts, "key": about.key})]

    def error(self, error: SpeechError) -> list[Message]:
        """It broke off, or there is none."""
        return [
            self._text("error", {"status": error.status, "retry_after_s": error.retry_after_s, "error": told(error)})
        ]

    def cancelled(self, stopped: int) -> list[Message]:
        """No byte of it follows."""
        return [self._text("cancelled", {"stopped": stopped})]

    def _text(self, kind: str, content: Mapping[str, object]) -> str:
        return msgspec.json.encode({"type": kind, "id": self._id, **content}).decode()


class InProtobuf:
    """Binary messages, each a `TtsStreamResponse`."""

    def __init__(self, id: Id) -> None:
        self._messages = Messages("" if id is None else str(id))

    def begin(self, about: About) -> list[Message]:
        """What is known when the speech begins."""
        return [self._messages.begin(about)]

    def sentence(self, sentence: Sentence) -> list[Message]:
        """The audio that follows is of this sentence."""
        return [self._messages.sentence(sentence)]

    def piece(self, piece: Piece) -> list[Message]:
        """Some of the audio."""
        return [self._messages.piece(piece)]

    def end(self, about: About, end: End) -> list[Message]:
        """That was all, and what it was."""
        return [self._messages.end(end), self._messages.complete(about, end)]

    def error(self, error: SpeechError) -> list[Message]:
        """It broke off, or there is none."""
        return [self._messages.error(error)]

    def cancelled(self, stopped: int) -> list[Message]:
        """No byte of it follows."""
        return [self._messages.cancelled(stopped)]


def tongue(protocol: str, id: Id) -> Tongue:
    """How this subprotocol says things."""
    return InProtobuf(id) if protocol == PROTOBUF else InJson(id)
