"""What may be configured as JSON Schema (draft 2020-12), so that editors complete and check the file.

Keeps the rule that whatever the reader takes the schema takes; the reader is the stricter of the two (bounds of
durations and sizes are in descriptions alone). It does not know which settings there are.
"""

from typing import Any

from edgecache.configuration import scalars, units
from edgecache.configuration.declaration import TEXTUAL, Declared, Kind, Leaf, Section, Series

Schema = dict[str, Any]

_DEFINITIONS: Schema = {
    "reference": {"description": "From the environment: ${env:NAME}.", "type": "string", "pattern": r"\$\{env:[^}]+\}"},
    "duration": {
        "anyOf": [
            {"type": "string", "pattern": units.DURATION_PATTERN},
            {"const": 0},
            {"$ref": "#/$defs/reference"},
        ]
    },
    "size": {"anyOf": [{"type": "string", "pattern": units.SIZE_PATTERN}, {"const": 0}, {"$ref": "#/$defs/reference"}]},
}
_TYPES = {Kind.SWITCH: "boolean", Kind.WHOLE: "integer", Kind.NUMBER: "number"}
_REFERRED = {Kind.DURATION: "duration", Kind.SIZE: "size"}


def schema(declared: Section, title: str) -> Schema:
    """The whole schema."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **_section(declared),
        "$defs": _DEFINITIONS,
    }


def _any(declared: Declared) -> Schema:
    match declared:
        case Section():
            return _section(declared)
        case Series():
            return _series(declared)
        case Leaf():
            return _leaf(declared)


def _section(declared: Section) -> Schema:
    described: Schema = {"description": declared.option.doc} if declared.option.doc else {}
    required = [each.key for each in declared.fields if each.required]
    return {
        **described,
        "type": ["object", "null"] if declared.key else "object",
        "properties": {key: _any(each) for key, each in declared.keys.items()},
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _series(declared: Series) -> Schema:
    return {
        "description": declared.option.doc,
        "type": "array" if declared.required else ["array", "null"],
        "items": _any(declared.element),
        **({"minItems": 1} if declared.required else {"default": []}),
    }


def _leaf(leaf: Leaf) -> Schema:
    limits = scalars.bounds(leaf)
    stated: Schema = {"description": leaf.option.doc + (f" {limits.capitalize()}." if limits else "")}
    if not leaf.required:
        stated["default"] = _default(leaf)
    if leaf.kind in TEXTUAL:
        return {**stated, **_textual(leaf)}
    if leaf.kind in _REFERRED:
        ways: list[Schema] = [{"$ref": f"#/$defs/{_REFERRED[leaf.kind]}"}]
    else:
        ways = [{"type": _TYPES[leaf.kind], **_limits(leaf)}, {"$ref": "#/$defs/reference"}]
    ways += [{"enum": list(leaf.words)}] if leaf.words else []
    ways += [{"type": "null"}] if leaf.optional else []
    return {**stated, **ways[0]} if len(ways) == 1 else {**stated, "anyOf": ways}


def _textual(leaf: Leaf) -> Schema:
    if leaf.kind is Kind.CHOICE:
        return {"anyOf": [{"enum": [*leaf.words, *([None] if leaf.optional else [])]}, {"$ref": "#/$defs/reference"}]}
    secret: Schema = {"writeOnly": True} if leaf.option.secret else {}
    return {"type": ["string", "null"] if leaf.optional else "string", **secret}


def _limits(leaf: Leaf) -> Schema:
    named = {"minimum": leaf.option.minimum, "maximum": leaf.option.maximum}
    return {name: limit for name, limit in named.items() if limit is not None}


def _default(leaf: Leaf) -> Any:
    if leaf.default is None or leaf.kind not in _REFERRED:
        return leaf.default
    spelled = scalars.spell(leaf, leaf.default)
    return 0 if spelled in ("0", "0s") else spelled
