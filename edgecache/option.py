"""How a part says what may be configured about it.

A part declares a frozen dataclass; each field is an `option(...)`. `settings` reads the declarations, so a part never
imports `settings`. Units are in field names and not in the file's keys: the field `ttl_s` is the key `ttl` and takes a
duration ("24h"), the field `max_size_bytes` is the key `max_size` and takes a size ("512MiB").
"""

from dataclasses import MISSING, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of one configurable field besides its name and type.

    doc: one sentence for the schema. minimum, maximum: inclusive, in the field's own unit. secret: never shown, and may
    be given as `<key>_file` too.
    """

    doc: str
    minimum: float | None = None
    maximum: float | None = None
    secret: bool = False


def option(
    default: Any,
    doc: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    secret: bool = False,
) -> Any:
    """A configurable field with a default value (a class or function makes a fresh one)."""
    metadata = {"option": Option(doc, minimum, maximum, secret)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata, repr=not secret)


def required(doc: str, *, secret: bool = False) -> Any:
    """A configurable field that the operator has to give."""
    return field(default=MISSING, metadata={"option": Option(doc, secret=secret)}, repr=not secret)
