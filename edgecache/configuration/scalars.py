"""One value: from what was written to what a field holds, and back. Pure.

Keeps the rule that what `spell` writes is read as the same value. `Wrong` says what is wrong in words for an operator.
It does not know where the value was written, nor which key it is for.
"""

import difflib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from edgecache.configuration import units
from edgecache.configuration.declaration import TEXTUAL, Kind, Leaf
from edgecache.configuration.document import Plain, Scalar, plain
from edgecache.configuration.report import HIDDEN, shown, without_userinfo

#: Text that YAML needs no quotes for, if it is not another kind of value.
_BARE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")


class Wrong(Exception):
    """This value can't be; hint says what could."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def value(leaf: Leaf, scalar: Scalar) -> Any:
    """What the field holds. Wrong: it can't hold this."""
    given: Plain = scalar.value
    if scalar.untyped:
        given = scalar.text if leaf.kind in TEXTUAL else plain(scalar.text)
        if leaf.optional and given in (None, ""):
            return None
    if given is None:
        if leaf.optional:
            return None
        raise Wrong("has no value", None if leaf.required else f"leave the key out for {spell(leaf, leaf.default)}")
    quoted = "this" if leaf.option.secret else shown(scalar.text)
    if leaf.kind is not Kind.CHOICE and isinstance(given, str) and given in leaf.words:
        return given
    held = _READERS[leaf.kind](leaf, given, quoted)
    _check_bounds(leaf, held)
    return held


def spell(leaf: Leaf, held: Any) -> str:
    """The value as the file would write it; secrets are stars."""
    if held is None:
        return "null"
    if leaf.option.secret:
        return HIDDEN if held else '""'
    if isinstance(held, str) and held in leaf.words:
        return spell_text(held)
    match leaf.kind:
        case Kind.DURATION:
            return units.spell_duration(held)
        case Kind.SIZE:
            return units.spell_size(held)
        case Kind.NUMBER:
            return f"{held:.17f}".rstrip("0").rstrip(".") if "e" in repr(held) else repr(held)
        case _ if isinstance(held, str):
            return spell_text(without_userinfo(held))
        case _:
            return json.dumps(held)


def spell_text(text: str) -> str:
    """The text, in quotes if YAML needs them."""
    return text if _BARE.fullmatch(text) and plain(text) == text else json.dumps(text, ensure_ascii=False)


def bounds(leaf: Leaf) -> str:
    """Between what and what, in words with units; empty if any value will do."""
    low, high = leaf.option.minimum, leaf.option.maximum
    if low is not None and high is not None:
        return f"between {_bound(leaf, low)} and {_bound(leaf, high)}"
    if low is not None and (low > 0 or leaf.kind in (Kind.WHOLE, Kind.NUMBER)):
        return f"at least {_bound(leaf, low)}"
    return "" if high is None else f"at most {_bound(leaf, high)}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """What was probably meant."""
    by_fold = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(word.casefold(), list(by_fold), n=1, cutoff=0.6)
    return by_fold[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The same as a question, for a report."""
    meant = nearest(word, known)
    return f'did you mean "{meant}"?' if meant else None


def _bound(leaf: Leaf, limit: float) -> str:
    return spell(leaf, int(limit) if leaf.kind in (Kind.SIZE, Kind.WHOLE) else limit)


def _check_bounds(leaf: Leaf, held: Any) -> None:
    low, high = leaf.option.minimum, leaf.option.maximum
    if isinstance(held, (int, float)) and not ((low is None or held >= low) and (high is None or held <= high)):
        raise Wrong(f"must be {bounds(leaf)}, not {spell(leaf, held)}")


def _text(leaf: Leaf, given: Plain, quoted: str) -> str:
    if not isinstance(given, str):
        what = "true or false" if isinstance(given, bool) else "a number"
        raise Wrong(f"must be text, and this is {what}", None if leaf.option.secret else f"write it as {quoted}")
    if given.endswith("\n"):
        raise Wrong("ends with a line break", "write it in one line, or end the block with |-")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in given):
        raise Wrong("holds a control character")
    return given


def _choice(leaf: Leaf, given: Plain, quoted: str) -> str:
    if isinstance(given, str) and given in leaf.words:
        return given
    raise Wrong(f"must be {_one_of(leaf.words)}, not {quoted}", did_you_mean(quoted.strip('"'), leaf.words))


def _switch(leaf: Leaf, given: Plain, quoted: str) -> bool:
    if isinstance(given, bool):
        return given
    meant = {"yes": True, "on": True, "y": True, "1": True, "true": True}
    meant |= {"no": False, "off": False, "n": False, "0": False, "false": False}
    word = meant.get(str(given).casefold())
    hint = f"write {json.dumps(word)}, without quotes" if word is not None else None
    raise Wrong(f"must be true or false, not {quoted}", hint)


def _whole(leaf: Leaf, given: Plain, quoted: str) -> int:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    what = "a whole number" + "".join(f' or "{word}"' for word in leaf.words)
    raise Wrong(f"must be {what}, not {quoted}", did_you_mean(str(given), leaf.words) or _number_hint(given))


def _number(leaf: Leaf, given: Plain, quoted: str) -> float:
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return float(given)
    raise Wrong(f"must be a number, not {quoted}", _number_hint(given))


def _number_hint(given: Plain) -> str | None:
    if isinstance(given, str) and isinstance(plain(given), (int, float)):
        return "write it without quotes"
    if isinstance(given, str) and re.match(r"[-+]?\.?[0-9]", given):
        return "write it in plain decimal digits"
    return None


def _duration(leaf: Leaf, given: Plain, quoted: str) -> float:
    return float(_measured(_DURATION, given, quoted, leaf.words))


def _size(leaf: Leaf, given: Plain, quoted: str) -> int:
    return int(_measured(_SIZE, given, quoted))


@dataclass(frozen=True, slots=True)
class _Measure:
    """What a number with a unit is called, and how it is read. usual: the units that a bare number most likely lacks."""

    what: str
    read: Callable[[str], float]
    examples: tuple[str, ...]
    usual: tuple[str, ...]


_DURATION = _Measure("duration", units.duration, ("24h", "20ms", "1h30m"), ("s", "ms"))
_SIZE = _Measure("size", units.size, ("512MiB", "64KiB", "10MB"), ("MiB", "KiB"))


def _measured(measure: _Measure, given: Plain, quoted: str, words: tuple[str, ...] = ()) -> float:
    number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if number and not given:
        return 0
    if number:
        sign = "must not be less than 0" if str(given).startswith("-") else f"has no unit: {given} of what?"
        ways = " or ".join(f'"{given}{unit}"' for unit in measure.usual)
        raise Wrong(sign, f"write it as {ways}" if "unit" in sign else None)
    hint = "write it as in " + ", ".join(f'"{example}"' for example in (*words, *measure.examples))
    if not isinstance(given, str):
        raise Wrong(f"must be a {measure.what}, not {quoted}", hint)
    try:
        return measure.read(given)
    except ValueError as error:
        raise Wrong(f"{quoted} {error}", hint) from None


def _one_of(words: tuple[str, ...]) -> str:
    quoted = [f'"{word}"' for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


_READERS: dict[Kind, Callable[[Leaf, Plain, str], Any]] = {
    Kind.TEXT: _text,
    Kind.PATH: _text,
    Kind.CHOICE: _choice,
    Kind.SWITCH: _switch,
    Kind.WHOLE: _whole,
    Kind.NUMBER: _number,
    Kind.DURATION: _duration,
    Kind.SIZE: _size,
}
