"""First audio of long text, whole and sentence by sentence, and how long cutting it holds the loop.

A demo cluster at a real-time factor of 0.3, once as one that streams and once as one that answers when all is made; an
edge in front of it, all in this process. Each figure is of text that nobody has said before. Run it with
`python -m bench.longtext`, or with `--json` for programs. It takes about two minutes, nearly all of them waiting.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import aiohttp

from bench import inside
from edgecache.clusters.cluster import Timeouts
from edgecache.demo.knobs import Knobs
from edgecache.demo.pcm import WAV_HEADER_BYTES
from edgecache.speech.sentences import SentenceLengths, Sentences

LENGTHS = (250, 500, 1000, 2000)
REAL_TIME_FACTOR = 0.3
#: A text that is spoken whole takes its time.
PATIENT = Timeouts(first_byte_s=120.0, between_bytes_s=120.0, total_s=300.0)
#: Of 2,000 characters whole to sentence by sentence, where the cluster answers when all is made.
TARGET = 5.0
CUT_CHARACTERS = 100_000
HOLD_TARGET_MS = 5.0


@dataclass(frozen=True, slots=True)
class FirstAudio:
    """How long until the first sample, past the WAV's head, of a text of so many characters."""

    cluster: str
    characters: int
    whole_ms: float
    by_sentence_ms: float


@dataclass(frozen=True, slots=True)
class Cutting:
    """A text cut in steps: all of it, and the longest step."""

    text: str
    characters: int
    total_ms: float
    longest_ms: float


def text(length: int, salt: str) -> str:
    """Sentences of some 80 characters, none like another."""
    sentences = (
        f"This is sentence {n} of {salt}, and it goes on for about as long as people's sentences do. "
        for n in range(length)
    )
    written = ""
    while len(written) < length:
        written += next(sentences)
    return written[: length - 1].rstrip() + "."


async def first_audio_ms(client: aiohttp.ClientSession, url: str, asked: dict[str, str]) -> float:
    """One request, left as soon as it can be heard."""
    began_s = time.perf_counter()
    async with client.post(f"{url}/v1/tts", json=asked) as answer:
        answer.raise_for_status()
        await answer.content.readexactly(WAV_HEADER_BYTES + 2)
        heard_ms = (time.perf_counter() - began_s) * 1000
        answer.close()
    return heard_ms


async def measured() -> list[FirstAudio]:
    """Every length, at both kinds of cluster."""
    found = []
    for kind, at_once in (("streams", False), ("at once", True)):
        knobs = Knobs(voice="tone", rtf=REAL_TIME_FACTOR, at_once=at_once)
        endless = aiohttp.ClientTimeout(total=None)
        async with inside.edge(knobs, PATIENT) as node, aiohttp.ClientSession(timeout=endless) as client:
            url = f"http://127.0.0.1:{node.port}"
            await first_audio_ms(client, url, {"text": "Warm."})
            for length in LENGTHS:
                took = {
                    how: await first_audio_ms(
                        client, url, {"text": text(length, f"{length}, {kind}, {how}"), "chunking": how}
                    )
                    for how in ("sentence", "none")
                }
                found.append(FirstAudio(kind, length, round(took["none"], 1), round(took["sentence"], 1)))
    return found


def cuts() -> Iterator[Cutting]:
    """Texts that are hard to cut."""
    for name, unit in (
        ("unspaced CJK", "字"),
        ("CJK sentences", "今天天气很好。"),
        ("abbreviations", "a. "),
        ("English", text(80, "it")),
    ):
        sentences = Sentences("zh", SentenceLengths())
        sentences.feed((unit * CUT_CHARACTERS)[:CUT_CHARACTERS])
        sentences.flush()
        steps_ms = []
        while True:
            began_s = time.thread_time()  # this thread's own: what others do meanwhile holds no loop of ours
            cut = sentences.cut()
            steps_ms.append((time.thread_time() - began_s) * 1000)
            if cut is None:
                break
        yield Cutting(name, CUT_CHARACTERS, round(sum(steps_ms), 1), round(max(steps_ms), 2))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.longtext", description=__doc__)
    parser.add_argument("--json", action="store_true", help="JSON alone on stdout")
    options = parser.parse_args()
    steps, heard = list(cuts()), asyncio.run(measured())
    if options.json:
        print(
            json.dumps({"first_audio": [asdict(each) for each in heard], "cutting": [asdict(each) for each in steps]})
        )
        return
    print("first audio, ms        characters      whole   by sentence   times sooner")
    for each in heard:
        times = each.whole_ms / each.by_sentence_ms
        aimed = each.cluster == "at once" and each.characters == LENGTHS[-1]
        print(
            f"  {each.cluster:<20} {each.characters:>10} {each.whole_ms:>10.1f} {each.by_sentence_ms:>13.1f} {times:>14.1f}"
            + (f"   target {TARGET:g}: {told(times >= TARGET)}" if aimed else "")
        )
    print(f"\ncutting {CUT_CHARACTERS} characters, ms of CPU      total   longest step")
    for step in steps:
        met = told(step.longest_ms < HOLD_TARGET_MS)
        print(f"  {step.text:<38} {step.total_ms:>10.1f} {step.longest_ms:>14.2f}   target {HOLD_TARGET_MS:g}: {met}")


def told(met: bool) -> str:
    return "met" if met else "not met"


if __name__ == "__main__":
    main()
