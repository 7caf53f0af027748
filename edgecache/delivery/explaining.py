"""What would become of a request and why, for operators: read, named and cut as it would be, and without any effect.

Its answers hold the text. It does not know how operators ask.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgecache.cache.lookup import Freshness
from edgecache.delivery.auth import Gate
from edgecache.delivery.longtext import by_sentence
from edgecache.dialects import speeko
from edgecache.errors import SpeechError
from edgecache.fill.edge import Edge, Explanation, Wish
from edgecache.fill.longform import LongText, all_of, sentence_wish

Told = Mapping[str, object]
#: Of a long text at most so many sentences are looked for; each may be a recording out of Redis.
MAX_LOOKED_AT = 256
#: So many at once.
AT_ONCE = 16
#: The verdict of a text is that of its worst sentence.
_BEST_FIRST = ("hit", "stale", "miss")


@dataclass(frozen=True, slots=True)
class Explaining:
    """Of one worker. whole_characters: the longest text that is asked for whole."""

    edge: Edge
    gate: Gate
    freshness: Freshness
    long_text: LongText
    whole_characters: int

    async def call(self, asked: Told) -> Told:
        """What an operator asked: body, and the namespace or the API key whose recordings are meant."""
        try:
            return await self.explain(asked)
        except SpeechError as error:
            return {"refused": {"status": error.status, "code": error.code, "message": error.message}}

    async def explain(self, asked: Told) -> Told:
        """What would become of this request. SpeechError: it would be refused."""
        body, namespace, api_key = asked["body"], asked["namespace"], asked.get("api_key")
        assert isinstance(body, bytes)
        assert isinstance(namespace, str | None)
        assert isinstance(api_key, str | None)
        wanted = speeko.request(body, max(self.whole_characters, self.long_text.max_characters))
        wish = Wish(wanted.utterance, self.gate.ring.whose(namespace, api_key))
        if not by_sentence(wanted, self.long_text, self.whole_characters, http_1_1=True):
            return (await self.edge.explain(wish)).told(self.freshness)
        return await self._by_sentence(wish)

    async def _by_sentence(self, whole: Wish) -> Told:
        cut = all_of(whole.utterance.text, whole.utterance.language, self.long_text.lengths)
        sentences = [each async for each in cut]
        wishes = [sentence_wish(whole, each, now=True) for each in sentences[:MAX_LOOKED_AT]]
        rows = [
            {"text_start": each.start, "text_end": each.end, **_row(found.told(self.freshness))}
            for each, found in zip(sentences, await self._explained(wishes), strict=False)
        ]
        verdicts = Counter(str(row["verdict"]) for row in rows)
        return {
            "key": None,
            "namespace": whole.namespace,
            "utterance": whole.utterance.fields,
            "verdict": max(verdicts, key=_BEST_FIRST.index, default="miss"),
            "tier": rows[0]["tier"] if rows else None,
            "fill_under_way": any(row["fill_under_way"] for row in rows),
            "sentences": {"count": len(sentences), "looked_at": len(rows), "verdicts": verdicts, "each": rows},
        }

    async def _explained(self, wishes: Sequence[Wish]) -> list[Explanation]:
        found: list[Explanation] = []
        for first in range(0, len(wishes), AT_ONCE):
            found += await asyncio.gather(*(self.edge.explain(each) for each in wishes[first : first + AT_ONCE]))
        return found


def _row(told: Mapping[str, Any]) -> dict[str, object]:
    """Of one sentence; what it says is in the whole."""
    return {name: each for name, each in told.items() if name not in ("namespace", "utterance", "canonical_hex")}
