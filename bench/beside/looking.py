"""A server through situations, one after the other."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from bench.beside.acts import Act
from bench.beside.looks import Seen, Situation, turn
from bench.beside.servers import Server, Stand, up


def look(
    who: Server, situations: Sequence[Situation], patience_s: float, say: Callable[[str], None]
) -> Iterator[tuple[str, Seen]]:
    """What this server does. Situations that follow each other share one, unless they need it fresh."""
    for (_, setup), together in groupby(
        enumerate(situations), lambda each: (each[0] if each[1].fresh else -1, each[1].setup)
    ):
        with up(who, setup, patience_s) as stand:
            for _, situation in together:
                text = f"Ready at half past nine, {situation.name}."
                seen = asyncio.run(_seen(situation, replace(stand, text=text)))
                say(f"{who.told}, {situation.told}: {seen.words}")
                yield situation.name, seen


async def _seen(situation: Situation, stand: Stand) -> Seen:
    turn(stand, Act())
    return await situation.look(stand)
