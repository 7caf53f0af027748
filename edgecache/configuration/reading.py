"""From what was written to frozen dataclasses, with every mistake found on the way.

A value that is wrong is reported and its default stands in for it, so that all else can still be checked; who reads asks
`Findings.sound` before judging a value. It does not know which settings there are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecache.configuration import scalars
from edgecache.configuration.declaration import Declared, Kind, Leaf, Section, Series, file_leaf, paths
from edgecache.configuration.document import Listed, Mapped, Scalar, Written, failure
from edgecache.configuration.environment import expand
from edgecache.configuration.report import DEFAULT, Findings, Origin, shown, sounds_secret
from edgecache.configuration.scalars import Wrong

#: A file that holds one secret.
_MAX_SECRET_BYTES = 64 << 10


class Reading:
    """One reading of one tree."""

    def __init__(self, findings: Findings, environ: Mapping[str, str], directory: Path) -> None:
        """directory: what relative paths in the file are relative to."""
        self._findings = findings
        self._environ = environ
        self._directory = directory
        self._root: Section | None = None
        #: Where each value came from, by its key from the top.
        self.origins: dict[str, Origin] = {}
        #: The same for sections and places in lists that were written.
        self.places: dict[str, Origin] = {}

    def read(self, declared: Section, tree: Written | None, nowhere: Origin) -> Any:
        """The dataclass. nowhere: the place of what is missing from a tree that is not there."""
        self._root = declared
        self.places[""] = nowhere
        return self._section(declared, tree, "")

    def place(self, key: str) -> Origin:
        """Where this was written, or what is around it."""
        while key and key not in self.places and not self.given(key):
            key = key.rpartition(".")[0]
        return self.origins[key] if self.given(key) else self.places[key]

    def given(self, key: str) -> bool:
        """Whether this value was written at all."""
        return self.origins.get(key, DEFAULT) != DEFAULT

    def _any(self, declared: Declared, written: Written | None, key: str) -> Any:
        match declared:
            case Section():
                return self._section(declared, written, key)
            case Series():
                return self._series(declared, written, key)
            case Leaf():
                return self._leaf(declared, written, key)

    def _section(self, declared: Section, written: Written | None, key: str) -> Any:
        if written is not None and key:
            self.places[key] = written.origin
        if _absent(written):
            if declared.optional:
                return None
            written = None
        entries: dict[str, Written] = {}
        if isinstance(written, Mapped):
            entries = written.entries
            self._refuse_unknown(declared, written, key)
        elif written is not None:
            names = ", ".join(each.key for each in declared.fields[:6])
            hint = f"its keys begin with {names}" if len(declared.fields) > 6 else f"its keys: {names}"
            self._findings.add(written.origin, key, f"must be keys and values, not {_named(written)}", hint)
            self._hide(written)
        values: dict[str, Any] = {}
        for each in declared.fields:
            full = _below(key, each.key)
            if isinstance(each, Leaf) and each.file_key:
                values[each.name] = self._secret(each, entries, key)
            else:
                values[each.name] = self._any(each, entries.get(each.key), full)
        return declared.part(**values)

    def _series(self, declared: Series, written: Written | None, key: str) -> tuple[Any, ...]:
        origin = self.place(key) if written is None else written.origin
        self.places[key] = origin
        elements: list[Written] = []
        if isinstance(written, Listed):
            elements = written.elements
        elif written is not None and not _absent(written):
            self._findings.add(origin, key, f"must be a list, not {_named(written)}", 'begin each of them with "- "')
            self._hide(written)
            return ()
        if declared.required and not elements:
            self._findings.add(origin, key, "at least one is needed", declared.option.doc)
        if not elements:
            self.origins[key] = DEFAULT if written is None else origin
        return tuple(self._any(declared.element, each, f"{key}.{index}") for index, each in enumerate(elements))

    def _leaf(self, leaf: Leaf, written: Written | None, key: str) -> Any:
        stand_in = "" if leaf.required else leaf.default
        self.origins[key] = DEFAULT if written is None else written.origin
        if written is None:
            if leaf.required:
                self._findings.add(self.place(key), key, "is missing", leaf.option.doc)
            return stand_in
        if leaf.option.secret:
            self._hide(written)
        try:
            if not isinstance(written, Scalar):
                raise Wrong(f"must be a single value, not {_named(written)}")
            held = scalars.value(leaf, self._expanded(written))
            if leaf.option.secret and held == "" and leaf.default != "":
                raise Wrong("is empty")
        except Wrong as wrong:
            self._findings.add(written.origin, key, wrong.message, wrong.hint)
            return stand_in
        return self._path(held, written.origin) if leaf.kind is Kind.PATH and held else held

    def _secret(self, leaf: Leaf, entries: dict[str, Written], above: str) -> Any:
        """The value itself, or what the file holds that `<key>_file` names; the environment's word over the file's."""
        key, direct, named = _below(above, leaf.key), entries.get(leaf.key), entries.get(file_leaf(leaf).key)
        if _absent(named):
            return self._leaf(leaf, direct, key)
        assert named is not None
        if direct is not None and not _absent(direct):
            if direct.origin.variable and not named.origin.variable:
                return self._leaf(leaf, direct, key)
            if named.origin.variable is None or direct.origin.variable is not None:
                self._hide(direct)
                self._findings.add(named.origin, f"{key}_file", f"{leaf.key} is given too", "delete one of them")
                return leaf.default
        before = len(self._findings.problems)
        path = self._leaf(file_leaf(leaf), named, f"{key}_file")
        del self.origins[f"{key}_file"]
        self.origins[key] = named.origin
        if len(self._findings.problems) > before or path is None:
            return leaf.default
        try:
            return _read_secret(Path(path))
        except Wrong as wrong:
            self._findings.add(named.origin, f"{key}_file", f"{shown(path, 200)} {wrong.message}", wrong.hint)
            return leaf.default

    def _expanded(self, scalar: Scalar) -> Scalar:
        if not isinstance(scalar.value, str) or "${" not in scalar.text or scalar.origin.variable:
            return scalar
        text = expand(scalar.text, self._environ)
        if not text:
            raise Wrong("is empty: what it refers to has no value")
        return Scalar(text, text, scalar.origin, untyped=text != scalar.text)

    def _path(self, text: str, origin: Origin) -> str:
        return text if origin.variable else str(self._directory / text)

    def _refuse_unknown(self, declared: Section, written: Mapped, key: str) -> None:
        known = declared.keys
        for name, origin in written.keys.items():
            if name in known:
                continue
            full = _below(key, name)
            meant = scalars.nearest(name, known)
            if meant is None:
                elsewhere = [".".join(each) for each in paths(self._root or declared) if each[-1] == name]
                meant = elsewhere[0] if elsewhere else None
            hint = f'did you mean "{meant}"?' if meant else "its keys: " + ", ".join(known)
            self._findings.add(origin, full, "unknown key", hint)
            value = written.entries[name]
            if sounds_secret(name) or sounds_secret(meant or "") or not isinstance(value, Scalar):
                self._hide(value)

    def _hide(self, written: Written) -> None:
        if self._findings.source is None or (isinstance(written, Scalar) and _is_reference(written.text)):
            return
        self._findings.source.mask(written.origin)


def _read_secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_SECRET_BYTES + 1)
        text = raw.decode("utf-8-sig").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise Wrong(failure(error)) from error
    if len(raw) > _MAX_SECRET_BYTES:
        raise Wrong("is too large for a secret")
    if not text:
        raise Wrong("is empty")
    if not text.isprintable():
        raise Wrong("holds more than one line, or a control character")
    return text


def _named(written: Written) -> str:
    """What this is, without its value: it may be a secret that is out of place."""
    match written:
        case Mapped():
            return "keys and values"
        case Listed():
            return "a list"
        case Scalar():
            return "a single value"


def _absent(written: Written | None) -> bool:
    return written is None or (isinstance(written, Scalar) and written.value is None)


def _is_reference(text: str) -> bool:
    return text.startswith("${env:") and text.endswith("}") and text.count("}") == 1


def _below(above: str, key: str) -> str:
    return f"{above}.{key}" if above else key
