"""What a cluster that refuses an utterance names as its reason. Pure.

Keeps rule 8: of what it wrote only identifiers are taken, of its error's code and of the field it is about; never prose,
which may say what was to be said.
"""

import re
from typing import NamedTuple

import msgspec

#: A longer refusal is not read.
MAX_BYTES = 4096
_CODE = re.compile(r"[a-z][a-z0-9]*(?:[_.-][a-z0-9]+)+")
_FIELD = re.compile(r"[a-z][a-z0-9_]*")
MAX_CHARACTERS = 64


class Named(NamedTuple):
    """code: what is wrong; param: with which field. Empty, None: it does not say."""

    code: str = ""
    param: str | None = None


UNNAMED = Named()


def named(body: bytes) -> Named:
    """Of `{"error": {"code", "param"}}`, as OpenAI and we write it, or `{"detail": [{"type", "loc"}]}`, as FastAPI does."""
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return UNNAMED
    match told:
        case {"error": dict(error)}:
            code, param = error.get("code"), error.get("param")
        case {"detail": [{"type": code, "loc": [*_, param]}, *_]}:
            pass
        case _:
            return UNNAMED
    return Named(_identifier(_CODE, code) or "", _identifier(_FIELD, param))


def _identifier(kind: re.Pattern[str], word: object) -> str | None:
    return word if isinstance(word, str) and len(word) <= MAX_CHARACTERS and kind.fullmatch(word) else None
