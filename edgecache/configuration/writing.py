"""Settings written out: each value as the file would say it, and the table of all keys for the documentation.

Keeps rule 8 for secrets: they are stars. It does not know which settings there are.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from edgecache.configuration import scalars
from edgecache.configuration.declaration import Declared, Kind, Leaf, Section, Series
from edgecache.configuration.report import DEFAULT, Origin


def rows(
    declared: Section, part: Any, origins: Mapping[str, Origin], above: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Every key with its value and where that came from."""
    for each in declared.fields:
        key = f"{above}.{each.key}" if above else each.key
        yield from _rows(each, getattr(part, each.name), origins, key)


def _rows(declared: Declared, held: Any, origins: Mapping[str, Origin], key: str) -> Iterator[tuple[str, str, str]]:
    match declared:
        case Section() if held is not None:
            yield from rows(declared, held, origins, key)
        case Series() if held:
            for index, each in enumerate(held):
                yield from _rows(declared.element, each, origins, f"{key}.{index}")
        case Leaf():
            yield key, scalars.spell(declared, held), str(origins.get(key, DEFAULT))
        case _:
            yield key, "null" if held is None else "[]", str(origins.get(key, DEFAULT))


def reference(declared: Section) -> str:
    """All keys as Markdown: a table for each section."""
    parts: list[str] = []
    own = [each for each in declared.fields if isinstance(each, Leaf)]
    if own:
        parts.append(_table("At the top", "", own))
    for each in declared.fields:
        parts += _sections(each, each.key)
    return "\n\n".join(parts) + "\n"


def _sections(declared: Declared, key: str) -> Iterator[str]:
    match declared:
        case Series(element=Section() as element):
            yield from _one(element, f"{key}[]", declared.option.doc)
        case Section():
            yield from _one(declared, key, declared.option.doc)
        case _:
            return


def _one(section: Section, key: str, doc: str) -> Iterator[str]:
    own = [each for each in section.fields if not isinstance(each, Section)]
    yield _table(f"`{key}`", doc, own)
    for each in section.fields:
        if isinstance(each, Section):
            yield from _sections(each, f"{key}.{each.key}")


def _table(title: str, doc: str, declared: list[Any]) -> str:
    lines = [f"### {title}", ""]
    lines += [doc, ""] if doc else []
    lines += ["| key | what it is | default | meaning |", "|---|---|---|---|"]
    lines += [_line(each) for each in declared]
    return "\n".join(lines)


def _line(declared: Leaf | Series) -> str:
    if isinstance(declared, Series):
        inner = declared.element
        what = f"list of {_what(inner)}" if isinstance(inner, Leaf) else "list"
        default = "required" if declared.required else "`[]`"
        key = f"`{declared.key}`"
    else:
        what, key = _what(declared), f"`{declared.key}`"
        default = "required" if declared.required else _default(declared)
        if declared.file_key:
            key += f", `{declared.file_key}`"
            what += ", secret"
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (key, what, default, declared.option.doc)) + " |"


def _what(leaf: Leaf) -> str:
    words = ", ".join(f"`{word}`" for word in leaf.words)
    if leaf.kind is Kind.CHOICE:
        return words
    limits = scalars.bounds(leaf)
    return f"{leaf.kind.value}" + (f" or {words}" if words else "") + (f", {limits}" if limits else "")


def _default(leaf: Leaf) -> str:
    if leaf.default is None:
        return "absent"
    return f"`{scalars.spell(leaf, leaf.default)}`"
