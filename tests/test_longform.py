"""Long text: sentences in order as one stream, fetched ahead within bounds, and what becomes of one that breaks."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest

from edgecache.cache.key import Naming
from edgecache.cache.lookup import Directives
from edgecache.clusters.fault import Fault, UpstreamFault
from edgecache.errors import SpeechError
from edgecache.fill.edge import Edge, Wish
from edgecache.fill.fills import Fills
from edgecache.fill.limits import FillLimits
from edgecache.fill.longform import ASKINGS, Began, Ended, LongForm, Piece, Sound, all_of, cut, sentence_wish
from edgecache.fill.priority import Priority
from edgecache.speech.formats import Measured
from edgecache.speech.sentences import Sentence, SentenceLengths, Sentences
from tests.edge_rig import FRESHNESS, Rig, ScriptedTiers, wish
from tests.fake_clock import FakeClock
from tests.fill_rig import settle
from tests.scripted_clusters import WAV, Asking, Barrier, Reply, ScriptedClusters
from tests.sounds import SOUND, chunk, fmt, riff, verdict

EACH = SentenceLengths(min_characters=1)
TEXT = "One is here. Two is here. Three is here. Four is here. Five is here."
BROKEN = UpstreamFault(Fault.BROKEN, "c0", "so it was")


def sound(letter: str) -> bytes:
    """A sentence's own samples."""
    return letter.encode() * 400


def spoken(text: str) -> bytes:
    return riff(fmt(), chunk(b"data", sound(text[0])))


@dataclass
class ByText(ScriptedClusters):
    """Each sentence's replies, in order, by its first word; its own sound if there are none left."""

    scripts: dict[str, list[Reply]] = field(default_factory=dict)

    def reply_to(self, asking: Asking) -> Reply:
        left = self.scripts.get(asking.text.split()[0], [])
        return left.pop(0) if left else Reply([spoken(asking.text)])


def built(**scripts: list[Reply]) -> Rig:
    clock, tiers = FakeClock(), ScriptedTiers()
    clusters = ByText(scripts=scripts, upstreams=1)
    fills = Fills(FillLimits(), clusters, tiers.keep, clock)
    return Rig(Edge(Naming(), FRESHNESS, tiers, fills, clock), tiers, fills, clusters, clock)


@dataclass
class Heard:
    """What came of a text. error: the code it broke off with."""

    pieces: list[Piece] = field(default_factory=list)
    error: str = ""

    @property
    def audio(self) -> bytes:
        return b"".join(each.audio for each in self.pieces if isinstance(each, Sound))

    @property
    def begun(self) -> list[str]:
        return [each.sentence.spoken.split()[0] for each in self.pieces if isinstance(each, Began)]

    @property
    def times(self) -> list[tuple[int, int]]:
        return [(each.offset_ms, each.duration_ms) for each in self.pieces if isinstance(each, Ended)]


def form(made: Rig, *, ahead: int = 2, directives: Directives | None = None) -> LongForm:
    whole = wish(TEXT, directives)
    return LongForm(made.edge.speak, lambda sentence, now: sentence_wish(whole, sentence, now=now), ahead)


async def hear(made: Rig, text: str = TEXT, *, ahead: int = 2, directives: Directives | None = None) -> Heard:
    heard = Heard()
    try:
        async for piece in form(made, ahead=ahead, directives=directives).pieces(all_of(text, "en", EACH)):
            heard.pieces.append(piece)
    except SpeechError as error:
        heard.error = error.code
    await made.fills.drain()
    assert (made.fills.held_bytes, made.clusters.open) == (0, 0)
    return heard


def asked(made: Rig) -> list[str]:
    return [each.text.split()[0] for each in made.clusters.asked]


async def test_sentences_are_heard_in_order_as_one_sound() -> None:
    made = built()
    heard = await hear(made)
    assert heard.begun == ["One", "Two", "Three", "Four", "Five"]
    assert heard.audio[44:] == b"".join(sound(each) for each in "OTTFF")
    assert verdict("audio/wav", [heard.audio]) == Measured("wav", 8000, 1, 125, complete=True, why="")
    assert heard.times == [(0, 25), (25, 25), (50, 25), (75, 25), (100, 25)]


async def test_spans_are_those_of_the_text() -> None:
    heard = await hear(built(), TEXT + " \n... ")
    sentences = [each.sentence for each in heard.pieces if isinstance(each, Began)]
    assert [TEXT[each.start : each.end].strip() for each in sentences] == [each.spoken for each in sentences]
    assert [each.index for each in sentences] == [0, 1, 2, 3, 4]


async def test_each_sentence_is_an_utterance_of_its_own() -> None:
    made = built()
    await hear(made)
    assert made.edge.asked(wish("Two is here.")).key in made.tiers.memory
    changed = await hear(made, TEXT.replace("Three", "Drei"))
    assert changed.begun == ["One", "Two", "Drei", "Four", "Five"]
    assert asked(made) == ["One", "Two", "Three", "Four", "Five", "Drei"]


async def test_only_so_many_are_fetched_ahead() -> None:
    barrier = Barrier()
    made = built(One=[Reply([WAV[:1000], barrier, WAV[1000:]])])
    pieces = form(made, ahead=2).pieces(all_of(TEXT, "en", EACH))
    assert isinstance(await anext(pieces), Began)
    await settle()
    assert asked(made) == ["One", "Two", "Three"]
    barrier.open()
    async for piece in pieces:
        if isinstance(piece, Began):
            await settle()
            assert len(made.clusters.asked) == min(5, piece.sentence.index + 3)
    await made.fills.drain()


async def test_what_is_wished_is_told_whether_it_is_needed_now() -> None:
    made, told = built(), []

    def asking(sentence: Sentence, now: bool) -> Wish:
        told.append((sentence.index, now))
        return sentence_wish(wish(TEXT), sentence, now=now)

    async for _ in LongForm(made.edge.speak, asking, 2).pieces(all_of(TEXT, "en", EACH)):
        pass
    assert (0, True) in told
    assert (1, False) in told
    await made.fills.drain()


async def test_a_sentence_whose_turn_has_come_is_as_urgent_as_any() -> None:
    """It was asked for as one that is needed later, and is still waited for."""
    barrier = Barrier()
    made = built(Two=[Reply(before=[barrier], steps=[spoken("Two")])])
    hearing = asyncio.create_task(hear(made))
    await barrier.reached()
    flight = made.fills.flight(made.edge.asked(wish("Two is here.")).key)
    assert flight is not None
    await settle()
    assert flight.priority is Priority.INTERACTIVE
    third = made.fills.flight(made.edge.asked(wish("Three is here.")).key)
    assert third is None
    barrier.open()
    assert (await hearing).begun == ["One", "Two", "Three", "Four", "Five"]
    assert asked(made).count("Two") == 1


async def test_look_ahead_is_not_urgent() -> None:
    barrier = Barrier()
    made = built(
        One=[Reply([spoken("One")[:100], barrier, spoken("One")[100:]])],
        Two=[Reply(before=[barrier], steps=[spoken("Two")])],
    )
    hearing = asyncio.create_task(hear(made))
    await settle()
    flight = made.fills.flight(made.edge.asked(wish("Two is here.")).key)
    assert flight is not None
    assert flight.priority is Priority.LOOK_AHEAD
    barrier.open()
    assert (await hearing).error == ""


async def test_one_that_broke_before_its_turn_is_asked_for_again_whole() -> None:
    """Its first bytes had come, but were not given to anybody."""
    barrier = Barrier()
    made = built(
        One=[Reply([spoken("One")[:200], barrier, spoken("One")[200:]])],
        Two=[Reply([spoken("Two")[:100], BROKEN])],
    )
    hearing = asyncio.create_task(hear(made))
    await barrier.reached()
    await settle()
    barrier.open()
    heard = await hearing
    assert (heard.error, heard.audio[44:]) == ("", b"".join(sound(each) for each in "OTTFF"))
    assert asked(made).count("Two") == 2


async def test_rule_5_one_that_broke_while_it_was_heard_ends_the_text() -> None:
    barrier = Barrier()
    made = built(Two=[Reply([spoken("Two")[:100], barrier, BROKEN])])
    hearing = asyncio.create_task(hear(made))
    await settle()
    barrier.open()
    heard = await hearing
    assert (heard.error, heard.begun) == ("broken_off", ["One", "Two"])
    assert heard.audio[44:] == sound("O") + sound("T")[:56]
    assert asked(made).count("Two") == 1


async def test_one_that_no_cluster_gives_ends_the_text_after_a_few_askings() -> None:
    refusing = [Reply(before=[UpstreamFault(Fault.CONNECT, "c0", "so it was")]) for _ in range(9)]
    made = built(Three=refusing)
    heard = await hear(made)
    assert (heard.error, heard.begun) == ("no_cluster", ["One", "Two"])
    assert asked(made).count("Three") == ASKINGS


async def test_one_that_a_cluster_refuses_as_wrong_is_not_asked_for_again() -> None:
    made = built(Three=[Reply(before=[UpstreamFault(Fault.REFUSED, "c0", "so it was", 422)]) for _ in range(9)])
    heard = await hear(made, ahead=0)
    assert (heard.error, heard.begun) == ("refused_by_cluster", ["One", "Two"])
    assert asked(made).count("Three") == 1


async def test_an_error_of_the_first_one_is_the_answer() -> None:
    made = built(One=[Reply(before=[UpstreamFault(Fault.CONNECT, "c0", "so it was")]) for _ in range(9)])
    heard = await hear(made)
    assert (heard.error, heard.pieces) == ("no_cluster", [])


async def test_one_in_another_rate_is_asked_for_again_and_then_an_error() -> None:
    other = Reply([riff(fmt(rate_hz=16_000), chunk(b"data", SOUND))])
    assert (await hear(built(Two=[other]))).error == "sentences_differ"
    no_store = Directives(no_store=True)
    assert (await hear(built(Two=[other]), directives=no_store)).error == ""


async def test_no_store_keeps_no_sentence() -> None:
    made = built()
    heard = await hear(made, directives=Directives(no_store=True))
    assert (heard.error, made.tiers.memory, made.tiers.redis) == ("", {}, {})


async def test_a_listener_that_leaves_stops_the_look_ahead_and_no_fill() -> None:
    barrier = Barrier()
    made = built(One=[Reply([WAV[:1000], barrier, WAV[1000:]])])
    pieces = form(made, ahead=1).pieces(all_of(TEXT, "en", EACH))
    await anext(pieces)
    await settle()
    await pieces.aclose()
    barrier.open()
    await made.fills.drain()
    assert asked(made) == ["One", "Two"]
    assert made.edge.asked(wish("One is here.")).key in made.tiers.memory
    assert made.fills.held_bytes == 0


@pytest.mark.parametrize("steps", range(1, 30, 4))
async def test_cancelled_at_any_time_nothing_is_left(steps: int) -> None:
    made = built(Two=[Reply([spoken("Two")[:100], None, BROKEN])])
    hearing = asyncio.create_task(hear(made))
    for _ in range(steps):
        await asyncio.sleep(0)
    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)
    await made.fills.drain()
    await settle()
    assert (made.fills.held_bytes, made.clusters.open) == (0, 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_text_that_comes_bit_by_bit_is_spoken_as_its_sentences_complete() -> None:
    made, words = built(), asyncio.Queue[str | None]()

    async def typed() -> AsyncGenerator[Sentence, None]:
        sentences = Sentences("en", EACH)
        while (word := await words.get()) is not None:
            sentences.feed(word)
            async for each in cut(sentences):
                yield each
        sentences.flush()
        async for each in cut(sentences):
            yield each

    pieces = form(made).pieces(typed())
    for word in ("One ", "is here.", " Two "):
        words.put_nowait(word)
    first = await anext(pieces)
    await settle()
    assert isinstance(first, Began)
    assert asked(made) == ["One"]
    for rest in ("is", None):
        words.put_nowait(rest)
    heard = Heard([first, *[piece async for piece in pieces]])
    assert heard.begun == ["One", "Two"]
    await made.fills.drain()


async def test_an_error_of_the_source_is_the_texts() -> None:
    made = built()

    async def failing() -> AsyncGenerator[Sentence, None]:
        yield Sentence(0, 0, 12, "One is here.")
        raise SpeechError(400, "bad_text", "so it was")

    with pytest.raises(SpeechError) as told:
        async for _ in form(made).pieces(failing()):
            pass
    assert told.value.code == "bad_text"
    await made.fills.drain()
