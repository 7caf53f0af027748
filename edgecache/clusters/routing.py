"""Where an utterance may go at all: routes of the operator, by namespace, voice and language. Pure.

Keeps: what a route holds back never leaves, also not when every cluster that is allowed is down: a route bars, and no
other rule lifts it. All routes that match an utterance hold at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec

from edgecache.option import option, required


@dataclass(frozen=True, slots=True)
class Route:
    """Utterances that match all of its patterns go only to clusters in one of its groups."""

    name: str = required("What it is called in errors and in /clusters.")
    groups: tuple[str, ...] = required("Only clusters in one of these `groups` are asked.")
    namespaces: tuple[str, ...] = option(
        (), "Namespaces of API keys that it is for, such as `key-acme` or `key-*`. Absent: all."
    )
    voices: tuple[str, ...] = option((), "Voices that it is for, such as `en-*`. Absent: all.")
    languages: tuple[str, ...] = option((), "Languages that it is for, such as `de` or `de-*`. Absent: all.")

    def matches(self, whose: "Whose") -> bool:
        """Whether it is for this utterance."""
        pairs = (
            (self.namespaces, whose.namespace),
            (self.voices, whose.voice),
            (self.languages, whose.language),
        )
        return all(not patterns or any(fnmatchcase(value, each) for each in patterns) for patterns, value in pairs)


class Whose(msgspec.Struct, frozen=True):
    """What routes go by. namespace: whose recordings they are."""

    namespace: str = "default"
    voice: str = ""
    language: str = ""


def barring(routes: Sequence[Route], whose: Whose, groups: Sequence[str]) -> str:
    """The name of the first route that keeps this utterance from a cluster in these groups; empty if none does."""
    for route in routes:
        if route.matches(whose) and not set(route.groups) & set(groups):
            return route.name
    return ""
