"""What a situation is, and what is seen of it; steps that most of them are made of."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from bench.beside.acts import Act
from bench.beside.asking import Heard, Remote, hear, request
from bench.beside.servers import USUAL, Setup, Stand

Fact = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Seen:
    """words: for the table. facts: what they were made of."""

    words: str
    facts: Mapping[str, Fact]


@dataclass(frozen=True, slots=True)
class Situation:
    """name: in `--json` and promises. told: in the table. fresh: what it does to clusters is not forgotten at once, so
    that it needs servers of its own."""

    name: str
    told: str
    look: Callable[[Stand], Awaitable[Seen]]
    setup: Setup = USUAL
    fresh: bool = False


def turn(stand: Stand, act: Act) -> None:
    """Both clusters answer so from now on."""
    for each in stand.clusters:
        each.act(act)


def syntheses(stand: Stand) -> int:
    """How often a cluster was asked for speech."""
    return sum(len(each.asked()) for each in stand.clusters)


async def ask(stand: Stand, said: Mapping[str, object] | bytes, headers: str = "") -> tuple[Heard, int]:
    """What is heard, and how many syntheses it took."""
    before = syntheses(stand)
    heard = await hear(stand.port, request(said, headers))
    return heard, syntheses(stand) - before


async def asked_first(stand: Stand) -> tuple[Remote, Remote]:
    """The cluster that this server prefers, and the other one."""
    await ask(stand, {"text": "Which of them is near?"})
    first, second = sorted(stand.clusters, key=lambda each: len(each.asked()), reverse=True)
    return first, second


def counted(number: int, what: str = "synthesis", many: str = "syntheses") -> str:
    return f"{number} {what if number == 1 else many}"


def answered(heard: Heard) -> str:
    """An answer in a few words."""
    if heard.status != 200:
        return str(heard.status)
    return "speech" if heard.ended == "whole" else heard.ended
