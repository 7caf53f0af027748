"""The environment over the file: `EDGECACHE_CACHE__TTL=24h` is `cache: {ttl: 24h}`, and `${env:NAME}` within its text.

Keeps the rule that a variable that sets nothing is a mistake and not ignored, save those that are known not to be ours.
It does not read the process's environment: it is handed one.
"""

import re
from collections.abc import Collection, Iterator, Mapping

from edgecache.configuration.declaration import Leaf, Section, Series, paths
from edgecache.configuration.document import Listed, Mapped, Scalar, Written
from edgecache.configuration.report import Findings, Origin
from edgecache.configuration.scalars import Wrong, nearest

#: What Kubernetes sets in every pod of a namespace in which a Service is called `edgecache` or `edgecache-...`.
_SERVICE_LINK = re.compile(
    r"(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?)"
)
_SERVICE_ADDRESS = re.compile(r"(?:[A-Z0-9_]+_)?PORT=(?:tcp|udp|sctp)://.*")
_REFERENCE = re.compile(r"\$(?P<escaped>\$)?\{(?P<inside>[^}]*)(?P<closed>\}?)")
_NAME = re.compile(r"env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)")

_Place = Mapped | Listed


class Overlay:
    """Lays variables over a tree."""

    def __init__(self, declared: Section, prefix: str, findings: Findings, others: Collection[str] = ()) -> None:
        """others: variables with the prefix that are no settings."""
        self._declared = declared
        self._prefix = prefix
        self._findings = findings
        self._others = frozenset(others)

    def lay(self, tree: Written | None, environ: Mapping[str, str]) -> Written | None:
        """The tree with the variables' values in it; the tree itself may be changed."""
        ours = [name for name in environ if name.startswith(self._prefix)]
        used = set(_referred(tree)) if tree is not None else set()
        for name in sorted(ours, key=_by_number):
            if name in self._others or name in used or self._is_service_link(name, environ[name]):
                continue
            tree = self._set(tree, name, environ[name])
        return tree

    def _is_service_link(self, name: str, text: str) -> bool:
        rest = name.removeprefix(self._prefix)
        linked = _SERVICE_LINK.fullmatch(rest) or _SERVICE_ADDRESS.fullmatch(f"{rest}={text}")
        return linked is not None and "__" not in rest

    def _set(self, tree: Written | None, name: str, text: str) -> Written | None:
        origin = Origin(variable=name)
        path = name.removeprefix(self._prefix).split("__")
        keys = tuple(word.lower() for word in path)
        key = ".".join(keys)
        if not self._leads_to_leaf(keys) or any(word != word.upper() for word in path):
            known = {self._prefix + "__".join(each).upper() for each in paths(self._declared)}
            close = nearest(re.sub(r"(?<=__)[0-9]+(?=__|$)", "0", name), known)
            what = "is no setting" if close else "is no setting; `__` goes down a level, as in EDGECACHE_CACHE__TTL"
            self._findings.add(origin, name, what, f"did you mean {close}?" if close else None)
            return tree
        if any("\udc80" <= character <= "\udcff" for character in text):
            self._findings.add(origin, key, "is not UTF-8")
            return tree
        if tree is None or _is_null(tree):
            tree = Mapped(origin)
        try:
            _put(tree, keys, Scalar(text, text, origin, untyped=True))
        except Wrong as wrong:
            self._findings.add(origin, key, wrong.message, wrong.hint)
        return tree

    def _leads_to_leaf(self, keys: tuple[str, ...]) -> bool:
        at: Leaf | Section | Series | None = self._declared
        for key in keys:
            match at:
                case Section():
                    at = at.keys.get(key)
                case Series():
                    at = at.element if key.isascii() and key.isdigit() and len(key) < 5 else None
                case _:
                    return False
        return isinstance(at, Leaf)


def expand(text: str, environ: Mapping[str, str]) -> str:
    """The text with each `${env:NAME}` replaced; `$${` is a plain `${`. Wrong: no such variable, or no such form."""

    def replaced(match: re.Match[str]) -> str:
        if match["escaped"]:
            return match.group()[1:]
        named = _NAME.fullmatch(match["inside"])
        if named is None or not match["closed"]:
            word = re.sub(r"\W", "", match["inside"].removeprefix("env:")) or "NAME"
            raise Wrong("has a ${...} that is not understood", f"write ${{env:{word}}}; a plain ${{ is $${{")
        found = environ.get(named["name"])
        if found is None:
            raise Wrong(f"the environment variable {named['name']} is not set", f"set {named['name']}")
        if any("\udc80" <= character <= "\udcff" for character in found):
            raise Wrong(f"the environment variable {named['name']} is not UTF-8")
        return found

    return _REFERENCE.sub(replaced, text)


def _put(tree: Written, keys: tuple[str, ...], scalar: Scalar) -> None:
    """Wrong: a place in a list that would leave a gap. What can't have keys is left as it is, to be reported later."""
    at: Written | None = tree
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        below = None if last else _place_for(keys[depth + 1], scalar.origin)
        match at:
            case Mapped():
                if last or key not in at.entries or _is_null(at.entries[key]):
                    at.entries[key], at.keys[key] = below or scalar, scalar.origin
                at = at.entries[key]
            case Listed() if key.isdigit():
                index = int(key)
                if index > len(at.elements):
                    raise Wrong(f"the list has {len(at.elements)} so far, so that the next is {len(at.elements)}")
                if index == len(at.elements):
                    at.elements.append(below or scalar)
                elif last or _is_null(at.elements[index]):
                    at.elements[index] = below or scalar
                at = at.elements[index]
            case _:
                return


def _place_for(key: str, origin: Origin) -> _Place:
    return Listed([], origin) if key.isdigit() else Mapped(origin)


def _is_null(written: Written) -> bool:
    return isinstance(written, Scalar) and written.value is None


def _referred(written: Written) -> Iterator[str]:
    """The variables that the file's text refers to."""
    match written:
        case Mapped(entries=entries):
            for each in entries.values():
                yield from _referred(each)
        case Listed(elements=elements):
            for each in elements:
                yield from _referred(each)
        case Scalar(text=text):
            for match in _REFERENCE.finditer(text):
                named = _NAME.fullmatch(match["inside"])
                if named:
                    yield named["name"]


def _by_number(name: str) -> list[tuple[int, str]]:
    """So that place 2 of a list is set before place 10."""
    return [(int(word), "") if word.isascii() and word.isdigit() else (-1, word) for word in name.split("__")]
