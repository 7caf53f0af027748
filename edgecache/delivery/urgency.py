"""How urgent a client says its request is: `Priority` (RFC 9218 §4). Pure.

Keeps: a client may step back, and never push ahead. Only `u=7`, which the RFC keeps for background work, means anything
here; every other urgency is that of someone who waits. Browsers send `u=4` and `u=5` with what a person waits for.
"""

from collections.abc import Iterable

from edgecache.fill.priority import Priority

BACKGROUND = "u=7"


def urgency(lines: Iterable[str]) -> Priority:
    """What these lines of `Priority` ask for; the last `u` counts (RFC 9651 §3.2). What can't be read asks for nothing."""
    members = [each.partition(";")[0].strip(" \t") for line in lines for each in line.split(",")]
    named = [each for each in members if each == "u" or each.startswith("u=")]
    return Priority.WARM_UP if named and named[-1] == BACKGROUND else Priority.INTERACTIVE
