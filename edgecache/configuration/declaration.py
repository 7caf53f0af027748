"""What may be configured, read from frozen dataclasses: a tree of sections, lists and leaves.

Keeps the rule that the file's keys follow from the field's name alone: the unit is dropped (`ttl_s` is `ttl`), unless
another field of the section has that name. A field of a type that can't be configured is our mistake: TypeError.
It does not know where values come from.
"""

import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from typing import Any, Literal

from edgecache.option import Option


class Kind(Enum):
    """What a leaf holds, as the documentation calls it."""

    TEXT = "text"
    PATH = "path"
    CHOICE = "choice"
    SWITCH = "true or false"
    WHOLE = "whole number"
    NUMBER = "number"
    DURATION = "duration"
    SIZE = "size"


#: Kinds whose values are the very text.
TEXTUAL = frozenset({Kind.TEXT, Kind.PATH, Kind.CHOICE})


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value. words: what it may say (choices), or may say besides a number. default: MISSING if it must be given."""

    key: str
    name: str
    option: Option
    kind: Kind
    default: Any
    optional: bool = False
    words: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Whether the operator has to give it."""
        return self.default is MISSING

    @property
    def file_key(self) -> str | None:
        """The key that names a file with the value instead."""
        return f"{self.key}_file" if self.option.secret else None


@dataclass(frozen=True, slots=True)
class Section:
    """Keys below a key: one dataclass. optional: the whole may be absent, which is another thing than its defaults."""

    key: str
    name: str
    option: Option
    part: type[Any]
    fields: "tuple[Declared, ...]"
    optional: bool = False

    @property
    def required(self) -> bool:
        """Never: a section that is absent has its defaults."""
        return False

    @property
    def keys(self) -> "dict[str, Declared]":
        """Every key it may have; a secret's `_file` key stands for the path."""
        keys: dict[str, Declared] = {}
        for declared in self.fields:
            keys[declared.key] = declared
            if isinstance(declared, Leaf) and declared.file_key:
                keys[declared.file_key] = file_leaf(declared)
        return keys


@dataclass(frozen=True, slots=True)
class Series:
    """A list. required: it has to have an element."""

    key: str
    name: str
    option: Option
    element: "Leaf | Section"
    required: bool


Declared = Leaf | Section | Series

_UNITS = {("_s", float): Kind.DURATION, ("_bytes", int): Kind.SIZE}
_KINDS = {bool: Kind.SWITCH, int: Kind.WHOLE, float: Kind.NUMBER, str: Kind.TEXT}


@cache
def declare(part: type[Any]) -> Section:
    """What may be configured in this dataclass."""
    return Section("", "", Option((part.__doc__ or "").strip().split("\n")[0]), part, tuple(_declared_in(part)))


def file_leaf(secret: Leaf) -> Leaf:
    """The key beside a secret that names a file with it."""
    option = Option(f"A file that holds `{secret.key}`.")
    return Leaf(f"{secret.key}_file", secret.name, option, Kind.PATH, None, optional=True)


def paths(section: Section, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key that may be given, from the top; "0" stands for a place in a list."""
    for key, declared in section.keys.items():
        here = (*above, key)
        while isinstance(declared, Series):
            here, declared = (*here, "0"), declared.element
        if isinstance(declared, Section):
            yield from paths(declared, here)
        else:
            yield here


def _declared_in(part: type[Any]) -> Iterator[Declared]:
    hints = typing.get_type_hints(part)
    ours = [each for each in fields(part) if each.init]
    names = {each.name for each in ours}
    for each in ours:
        if not isinstance(each.metadata.get("option"), Option):
            raise TypeError(f"{part.__name__}.{each.name} is not declared with option() or required()")
        try:
            yield _declared(each, hints[each.name], names - {each.name})
        except TypeError as error:
            raise TypeError(f"{part.__name__}.{each.name}: {error}") from error


def _declared(each: "Field[Any]", hint: Any, others: set[str]) -> Declared:
    option: Option = each.metadata["option"]
    hint, optional = _without_none(hint)
    if typing.get_origin(hint) is tuple:
        inner, rest = typing.get_args(hint)
        if rest is not ...:
            raise TypeError("a list must be tuple[X, ...]")
        if is_dataclass(inner) and isinstance(inner, type):
            below = declare(inner)
            element: Leaf | Section = Section("", "", below.option, inner, below.fields)
        else:
            element = _leaf("", option, inner, MISSING, False)
        return Series(each.name, each.name, option, element, each.default is MISSING)
    if is_dataclass(hint) and isinstance(hint, type):
        inside, stand_in = declare(hint).fields, each.default_factory
        if stand_in is not MISSING:
            inside = _with_defaults(inside, stand_in())
        return Section(each.name, each.name, option, hint, inside, optional)
    leaf = _leaf(each.name, option, hint, each.default, optional)
    return replace(leaf, key=leaf.name) if leaf.key in others else leaf


def _with_defaults(declared: tuple[Declared, ...], part: Any) -> tuple[Declared, ...]:
    """The same, but absent values are this part's: `admin` has another default port than `listen`."""

    def changed(each: Declared) -> Declared:
        held = getattr(part, each.name)
        match each:
            case Leaf() if not each.required:
                return replace(each, default=held)
            case Section() if not each.optional:
                return replace(each, fields=_with_defaults(each.fields, held))
            case _:
                return each

    return tuple(changed(each) for each in declared)


def _leaf(name: str, option: Option, hint: Any, default: Any, optional: bool) -> Leaf:
    if typing.get_origin(hint) is Literal:
        return Leaf(name, name, option, Kind.CHOICE, default, optional, typing.get_args(hint))
    hint, words = _without_words(hint)
    for (unit, held), kind in _UNITS.items():
        if name.endswith(unit) and hint is held:
            return Leaf(name.removesuffix(unit), name, option, kind, default, optional, words)
    if hint not in _KINDS:
        raise TypeError(f"{hint} can't be configured")
    is_path = hint is str and name.endswith(("_file", "_directory"))
    return Leaf(name, name, option, Kind.PATH if is_path else _KINDS[hint], default, optional, words)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _without_none(hint: Any) -> tuple[Any, bool]:
    rest = [each for each in _alternatives(hint) if each is not type(None)]
    if len(rest) == len(_alternatives(hint)):
        return hint, False
    if len(rest) != 1:
        raise TypeError("only one type may stand beside None")
    return rest[0], True


def _without_words(hint: Any) -> tuple[Any, tuple[str, ...]]:
    """`int | Literal["auto"]` is int, and the word "auto"."""
    plain = [each for each in _alternatives(hint) if typing.get_origin(each) is not Literal]
    words = [word for each in _alternatives(hint) for word in typing.get_args(each)]
    return (plain[0], tuple(words)) if len(plain) == 1 else (hint, ())
