"""Long text: each sentence an utterance of its own, asked for by `Edge.speak`, heard strictly in order as one stream.

Keeps rules 3, 5 and 7: nothing is heard twice and nothing is skipped in silence. A sentence that broke off before any of
it was given is asked for again, whole; one that breaks later ends the stream with its error. At most `ahead` sentences
are fetched beyond the one being heard, however fast the text comes. It does not know how text came nor how speech is
delivered: raw HTTP, SSE, WebSocket and protobuf all iterate over the same pieces.
"""
# ruff: noqa: RUF009 - option() calls dataclasses.field(), which is what the rule asks for

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from edgecache.errors import ClientError, SpeechError, UpstreamError
from edgecache.fill.edge import Live, Recorded, Speech, Wish
from edgecache.fill.flight import READ_BYTES
from edgecache.fill.priority import Priority
from edgecache.option import option
from edgecache.speech.formats import NotAudio
from edgecache.speech.joining import Joiner
from edgecache.speech.sentences import Sentence, SentenceLengths, Sentences
from edgecache.speech.timings import Timings
from edgecache.speech.utterance import utterance


@dataclass(frozen=True, slots=True)
class LongText:
    """When text is spoken sentence by sentence, and how."""

    from_characters: int = option(
        1000,
        "Longer text is spoken sentence by sentence; any is when the request says `chunking: sentence`.",
        minimum=1,
    )
    max_characters: int = option(
        100_000, "The longest text that is spoken sentence by sentence, in code points.", minimum=1
    )
    ahead: int = option(2, "Sentences fetched beyond the one being heard.", minimum=1, maximum=16)
    lengths: SentenceLengths = option(SentenceLengths, "How long a sentence may be.")


#: A sentence is asked for so often in all, if none of it was heard.
ASKINGS = 3


@dataclass(frozen=True, slots=True)
class Began:
    """A sentence can be heard from here on. offset_ms: where it begins in the whole."""

    sentence: Sentence
    speech: Speech
    offset_ms: int
    sample_rate_hz: int
    channels: int

    @property
    def media_type(self) -> str:
        """What the stream is; every sentence's is joined into the first one's."""
        return media_type(self.speech)


@dataclass(frozen=True, slots=True)
class Sound:
    """The next bytes of the stream."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """All of this sentence was given."""

    sentence: Sentence
    speech: Speech
    offset_ms: int
    duration_ms: int

    @property
    def timings(self) -> Timings:
        """When which word is heard, within the whole text and the whole sound; none if the cluster tells none."""
        before = len(self.sentence.text) - len(self.sentence.text.lstrip())
        return timings(self.speech).moved(self.offset_ms, self.sentence.start + before)


Piece: TypeAlias = Began | Sound | Ended


def media_type(speech: Speech) -> str:
    """As the cluster gave it."""
    return speech.recording.facts.media_type if isinstance(speech, Recorded) else speech.head.media_type


def timings(speech: Speech) -> Timings:
    """When which word is heard, as far as it is known by now; for speech that was live, once it was heard to its end."""
    recording = speech.recording if isinstance(speech, Recorded) else speech.flight.recording
    return Timings() if recording is None else recording.facts.timings


async def cut(sentences: Sentences) -> AsyncGenerator[Sentence, None]:
    """The sentences that can be cut by now and have something to say, with a chance for others after each window."""
    while (found := sentences.cut()) is not None:
        for each in found:
            if each.spoken:
                yield each
        await asyncio.sleep(0)


async def all_of(text: str, language: str, lengths: SentenceLengths) -> AsyncGenerator[Sentence, None]:
    """A whole text's sentences."""
    sentences = Sentences(language, lengths)
    sentences.feed(text)
    sentences.flush()
    async with aclosing(cut(sentences)) as found:
        async for each in found:
            yield each


def sentence_wish(whole: Wish, sentence: Sentence, *, now: bool) -> Wish:
    """How one sentence is wished for: as the whole, with its own words."""
    spoken = utterance({**whole.utterance.fields, "text": sentence.spoken})
    priority = max(whole.priority, Priority.INTERACTIVE if now else Priority.LOOK_AHEAD)
    return Wish(spoken, whole.namespace, whole.directives, whole.forwarding, priority=priority)


class _Asked:
    """One sentence on its way. Its flight counts as read for as long, so that its bytes are held and counted."""

    def __init__(self, sentence: Sentence, wish: Wish, speak: Callable[[Wish], Awaitable[Speech]]) -> None:
        self.sentence = sentence
        self.wish = wish
        self._reading = ExitStack()
        self._task = asyncio.create_task(self._speak(speak), name=f"sentence {sentence.index}")

    async def _speak(self, speak: Callable[[Wish], Awaitable[Speech]]) -> Speech:
        speech = await speak(self.wish)
        if isinstance(speech, Live):
            self._reading.enter_context(speech.flight.reading())
        return speech

    @property
    def late(self) -> bool:
        """Whether it is still waited for as one that is needed later, by a fill that others may join."""
        directives = self.wish.directives
        alone = directives.no_store or directives.no_cache
        return self.wish.priority is Priority.LOOK_AHEAD and not (self._task.done() or alone)

    async def speech(self) -> Speech:
        """What was found. SpeechError: nothing was."""
        return await asyncio.shield(self._task)

    def drop(self) -> None:
        """It is not needed any more. Never waits: whoever drops may itself be on the way out."""
        self._task.add_done_callback(_told)
        self._task.cancel()
        self._reading.close()


def _told(task: "asyncio.Task[Speech]") -> None:
    if not task.cancelled():
        task.exception()  # whoever wanted to know was told


class LongForm:
    """One text being spoken. `wish`: how its n-th sentence is asked for; the second argument: whether it is needed now."""

    def __init__(
        self,
        speak: Callable[[Wish], Awaitable[Speech]],
        wish: Callable[[Sentence, bool], Wish],
        ahead: int,
    ) -> None:
        self._speak = speak
        self._wish = wish
        self._joiner = Joiner()
        self._slots = asyncio.Semaphore(1 + ahead)
        self._asked: asyncio.Queue[_Asked | SpeechError | None] = asyncio.Queue()
        self._under_way: set[_Asked] = set()
        self.sentences = 0

    def __repr__(self) -> str:
        return f"<LongForm {self.sentences} sentences, {self.duration_ms} ms, {len(self._under_way)} under way>"

    @property
    def duration_ms(self) -> int:
        """How much was given so far."""
        return self._joiner.position_ms

    async def pieces(self, sentences: AsyncGenerator[Sentence, None]) -> AsyncGenerator[Piece, None]:
        """All of it, in order. SpeechError: it can't go on; what was given until then stands."""
        fetching = asyncio.create_task(self._fetch(sentences), name="sentences ahead")
        try:
            while asked := await self._asked.get():
                if isinstance(asked, SpeechError):
                    raise asked
                async with aclosing(self._sentence(asked)) as pieces:
                    async for piece in pieces:
                        yield piece
                self._slots.release()
        finally:
            fetching.cancel()
            for each in list(self._under_way):
                self._drop(each)
            await asyncio.wait([fetching])
        if not fetching.cancelled():
            fetching.result()

    async def _fetch(self, sentences: AsyncGenerator[Sentence, None]) -> None:
        """Asks for each sentence as soon as it is there and its turn is near."""
        try:
            async with aclosing(sentences):
                async for sentence in sentences:
                    await self._slots.acquire()
                    self._asked.put_nowait(self._ask(sentence, now=not self._under_way))
        except SpeechError as error:
            self._asked.put_nowait(error)
        finally:
            self._asked.put_nowait(None)

    def _ask(self, sentence: Sentence, *, now: bool) -> _Asked:
        asked = _Asked(sentence, self._wish(sentence, now), self._speak)
        self._under_way.add(asked)
        return asked

    def _drop(self, asked: _Asked) -> None:
        self._under_way.discard(asked)
        asked.drop()

    async def _sentence(self, asked: _Asked) -> AsyncGenerator[Piece, None]:
        """One sentence whose turn it is, asked for again if it breaks before any of it was given."""
        self.sentences += 1
        asking = [asked]
        if asked.late:
            # Asked for once more, as needed now: it joins the fill, which is then as urgent.
            asking.append(self._ask(asked.sentence, now=True))
        try:
            for tried in range(ASKINGS):
                if tried == len(asking):
                    asking.append(self._ask(asked.sentence, now=True))
                heard = False
                try:
                    speech = await asking[tried].speech()
                    async with aclosing(self._hear(asked.sentence, speech)) as pieces:
                        async for piece in pieces:
                            heard = True
                            yield piece
                except ClientError:
                    raise
                except SpeechError:
                    if heard or tried + 1 == ASKINGS:
                        raise
                else:
                    return
                self._joiner.give_up()
        finally:
            for each in asking:
                self._drop(each)

    async def _hear(self, sentence: Sentence, speech: Speech) -> AsyncGenerator[Piece, None]:
        wanted = self._wish(sentence, True).utterance
        joiner, begun = self._joiner, False
        if isinstance(speech, Live):
            speech.flight.intact()
        try:
            joiner.begin(media_type(speech), wanted.format, wanted.sample_rate_hz)
        except NotAudio as error:
            raise UpstreamError(502, "bad_cluster_answer", f"{error.message}.") from error
        async with aclosing(_bytes_of(speech)) as chunks:
            async for chunk in chunks:
                sound = joiner.feed(chunk)
                if sound and not begun:
                    begun = True
                    assert joiner.shape is not None
                    yield Began(sentence, speech, joiner.begins_ms, joiner.shape.sample_rate_hz, joiner.shape.channels)
                if sound:
                    yield Sound(sound)
        if begun:
            yield Ended(sentence, speech, joiner.begins_ms, joiner.position_ms - joiner.begins_ms)


async def _bytes_of(speech: Speech) -> AsyncGenerator[bytes, None]:
    match speech:
        case Recorded():
            audio = speech.recording.audio
            for at in range(0, len(audio), READ_BYTES):
                yield audio[at : at + READ_BYTES]
        case Live():
            position = 0
            with speech.flight.reading():
                while chunk := await speech.flight.read(position):
                    yield chunk
                    position += len(chunk)
        case _ as never:
            assert_never(never)
