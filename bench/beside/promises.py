"""What the edge promises of these situations: with anything else the bench ends with status 1. And the table. Pure."""

from collections.abc import Mapping, Sequence

from bench.beside.looks import Fact, Seen, Situation

OURS = "edge"
#: Situation: facts as they have to be. What is not here is seen and told, and promised by nobody.
PROMISED: Mapping[str, Mapping[str, Fact]] = {
    "order": {"syntheses": 1},
    "escapes": {"syntheses": 1},
    "defaults": {"syntheses": 1},
    "traced": {"syntheses": 1},
    "rate": {"syntheses": 2},
    "twice": {"passed_on": False, "status": 400},
    "cut-length": {"told": True, "new_synthesis": True, "whole": True},
    "cut-chunked": {"told": True, "new_synthesis": True, "whole": True},
    "cut-close": {"told": True, "new_synthesis": True, "whole": True},
    "json": {"served": False, "stored": False},
    "html": {"served": False, "stored": False},
    "nothing": {"served": False, "stored": False},
    "short": {"stored": False},
    "cookie": {"passed_on_to_next": False, "stored": True},
    "purge": {"gone": "ava"},
    "together": {"heard_early": 50, "syntheses": 1, "alike": True},
    "together-cut": {"told": 10, "syntheses": 1},
    "leaves": {"hit": True, "whole": True},
    "dead": {"whole": True},
    "fails": {"whole": True},
    "full": {"whole": True},
    "headless": {"whole": True},
    "slow": {"whole": True},
    "nobody": {"status": 503, "says_why": True, "retry_after": True},
    "past": {"served": True},
    "past-500": {"served": True},
}


def broken(situation: str, seen: Seen) -> list[str]:
    """What the edge promised and did not do."""
    return [
        f"{situation}: {fact} is {seen.facts.get(fact)!r}, promised is {promised!r}"
        for fact, promised in PROMISED.get(situation, {}).items()
        if seen.facts.get(fact) != promised
    ]


def markdown(situations: Sequence[Situation], seen: Mapping[str, Mapping[str, Seen]], names: Mapping[str, str]) -> str:
    """The same for docs/beside.md."""
    rows = [["", *(names[who] for who in seen)], ["---"] * (len(seen) + 1)]
    rows += [[each.told, *(_words(seen[who].get(each.name)) for who in seen)] for each in situations]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def table(situations: Sequence[Situation], seen: Mapping[str, Mapping[str, Seen]], names: Mapping[str, str]) -> str:
    """Of every situation a line. seen: by server, then by situation."""
    heads = ["", *(names[who] for who in seen)]
    rows = [[each.told, *(_words(seen[who].get(each.name)) for who in seen)] for each in situations]
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    lines = (zip(row, widths, strict=True) for row in (heads, *rows))
    return "\n".join("  ".join(cell.ljust(width) for cell, width in line).rstrip() for line in lines)


def _words(seen: Seen | None) -> str:
    return seen.words if seen else "-"
