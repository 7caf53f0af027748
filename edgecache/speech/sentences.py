"""Text into sentences, as it comes. Pure.

Each sentence of a long text is an utterance of its own, so where it is cut decides what is asked for, and never how that
sounds: a sentence's key is that of its own words. Spans cover the text without a gap. It does not know how sentences are
spoken.

Theory. sentencex judges; its bias is right for speech (rather not cut than cut wrongly), but it is quadratic on text
without spaces, holds the GIL, and changes its mind about earlier cuts when more text comes. So it is never shown the
whole: each place where a sentence might end is judged once, from so many characters before it and the next word behind
it. What is cut therefore does not depend on how the text was fed, and `cut` works through at most `WINDOW` characters
before it returns, so that its caller can let others go first. Lengths are weighed: a Chinese or Japanese character
takes about as long to say as three Latin letters.
"""

import re
import unicodedata
from collections import deque
from dataclasses import dataclass

import sentencex  # type: ignore[import-untyped]  # it has no annotations; what it returns is checked in `_ends`

from edgecache.option import option

#: What sentencex is shown in one `cut`, at most, in code points: 0.3 ms of the worst text.
WINDOW = 1000
#: How much of what is before a mark decides about it: the longest abbreviation, the start of a quotation.
BEFORE = 200
#: How much of the next word does: the longest name of a month ("1. September"), roughly.
NEXT_WORD = 24
#: Longer runs of marks or of white space are no punctuation.
LONGEST_MARKS, LONGEST_GAP = 50, 200
#: What one wide character weighs.
WIDE_WEIGHT = 3

# Unicode's Sentence_Terminal, where it is used in scripts that are spoken today, and the ellipsis.
_LATIN_MARKS = ".!?…"
_OTHER_MARKS = "।॥۔؟։߹܀܁܂።፧፨၊။᠃᠉។៕᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿‼‽⁇⁈⁉⸮。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？｡"
_CLOSERS = "\"'”’»›)\\]}』」）】》〉"
_MARK = re.compile(rf"[{_LATIN_MARKS}{_OTHER_MARKS}]|\n[ \t\r]{{0,100}}\n")
_ENDING = re.compile(
    rf"([{_LATIN_MARKS}{_OTHER_MARKS}]{{0,{LONGEST_MARKS}}}[{_CLOSERS}]{{0,{LONGEST_MARKS}}})(\s{{0,{LONGEST_GAP}}})"
)
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
_WORD = re.compile(rf"\S{{1,{NEXT_WORD}}}")
_WIDE = re.compile(
    "[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uff60\U00020000-\U0003ffff]"
)
#: Where an overlong sentence is best cut. Latin clause marks also stand in numbers and times: only with a space behind.
_CLAUSE = re.compile(rf"(?:[,;:،؛۔][{_CLOSERS}]*\s+|[、，；：﹐。！？।—–][{_CLOSERS}]*\s*)")
_SPACE = re.compile(r"\s+")
_LATIN_PAIR = re.compile("[A-Za-z0-9À-ɏͰ-ӿ]{2}")
_ZERO_WIDTH_JOINER = "\u200d"


@dataclass(frozen=True, slots=True)
class SentenceLengths:
    """How long a sentence of long text may be; wide characters (Chinese, Japanese, Korean) count three times."""

    min_characters: int = option(
        20, "A shorter sentence is spoken with the next one of its paragraph.", minimum=1, maximum=200
    )
    max_characters: int = option(
        300,
        "A longer one is cut at clause marks, then at spaces, into parts of about one length.",
        minimum=40,
        maximum=400,
    )


@dataclass(frozen=True, slots=True)
class Sentence:
    """text: the characters from `start` to `end` of all that was fed, the white space around them included."""

    index: int
    start: int
    end: int
    text: str

    @property
    def spoken(self) -> str:
        """What is to be said; "" if there is nothing but white space and punctuation."""
        spoken = self.text.strip()
        return spoken if audible(spoken) else ""

    def __repr__(self) -> str:
        return f"<Sentence {self.index} at {self.start}-{self.end}>"


def audible(text: str) -> bool:
    """Whether there is anything in it to say: a letter, a digit, a symbol (emoji have names)."""
    return any(unicodedata.category(each)[0] in "LNS" for each in text)


def weight(text: str) -> int:
    """How long it takes to say, in Latin letters."""
    return len(text) + (WIDE_WEIGHT - 1) * len(_WIDE.findall(text))


class Sentences:
    """One text being cut: `feed` and `flush` only take note, `cut` does the work."""

    def __init__(self, language: str, lengths: SentenceLengths) -> None:
        self._language = language
        self._min, self._max = lengths.min_characters, lengths.max_characters
        #: So much text is never waited for a mark: what is behind a cut is then still long enough not to be stranded.
        self._hold = 2 * self._max
        #: Of all that was fed, what begins at `_begins`; the next sentence begins at `_at` of it.
        self._text = ""
        self._begins = self._at = 0
        #: Marks before it were judged. `_opened`: where the last of them that ends a sentence left off.
        self._judged = self._opened = 0
        #: Where text was flushed, counted from the first character of all.
        self._flushed: deque[int] = deque()
        self._count = 0

    def __repr__(self) -> str:
        return f"<Sentences {self._count} cut, {len(self._text) - self._at} characters to come>"

    @property
    def waiting(self) -> int:
        """How many characters have been fed and not been cut."""
        return len(self._text) - self._at

    def feed(self, piece: str) -> None:
        """More of the text."""
        if self._at > len(self._text) // 2:
            self._begins += self._at
            self._judged -= self._at
            self._opened -= self._at
            self._text, self._at = self._text[self._at :], 0
        self._text += piece

    def flush(self) -> None:
        """Here a sentence ends, whatever comes."""
        self._flushed.append(self._begins + len(self._text))

    def cut(self) -> tuple[Sentence, ...] | None:
        """The next sentences found in at most a window's work, perhaps none yet; None: more text or a flush is needed."""
        spent = 0
        while spent <= WINDOW - _LONGEST_JUDGED:
            end, flushed = self._end()
            if flushed and self._at == end:
                self._flushed.popleft()
                continue
            mark = _MARK.search(self._text, self._judged, min(end, self._at + self._hold))
            waited_to = mark.end() - 1 if mark else min(end, self._at + self._hold)
            if weight(self._text[self._at : waited_to]) >= self._hold:
                return self._give(self._at + _front(self._text[self._at : waited_to], self._max))
            if mark is None:
                return self._give(end) if flushed else None
            ending = _ENDING.match(self._text, mark.start(), end)
            assert ending is not None
            if not (flushed or self._settled(ending)):
                return None
            spent += _LONGEST_JUDGED
            if self._ends(ending, end) and (given := self._bounded(ending, last=flushed and ending.end() == end)):
                return given
        return ()

    def _end(self) -> tuple[int, bool]:
        """Where what may be looked at ends, and whether a flush says so."""
        if self._flushed:
            return self._flushed[0] - self._begins, True
        return len(self._text), False

    def _settled(self, ending: re.Match[str]) -> bool:
        """Whether what decides about this mark has come."""
        text, at = self._text, ending.end()
        if at == len(text):
            return False
        if _final(ending) or len(ending[2]) == LONGEST_GAP:
            return True
        word = _WORD.match(text, at)
        return word is None or len(word[0]) == NEXT_WORD or word.end() < len(text)

    def _ends(self, ending: re.Match[str], end: int) -> bool:
        """Whether a sentence ends here."""
        marks, gap = ending.groups()
        self._judged = ending.end()
        if ending.end() == end or len(gap) == LONGEST_GAP or _BLANK_LINE.search(gap):
            return True
        word = _WORD.match(self._text, ending.end(), end)
        before = self._text[max(self._opened, ending.start() - BEFORE) : ending.start()]
        shown = before + marks + ("\n" if "\n" in gap else gap[:1])
        following = word[0][: 1 if _final(ending) else NEXT_WORD] if word else ""
        at = 0
        for piece in sentencex.segment(self._language, shown + following):
            at += len(piece)
            if at > len(before):
                return bool(at <= len(shown))
        return False

    def _bounded(self, ending: re.Match[str], *, last: bool) -> tuple[Sentence, ...]:
        """The sentence that ends here; none if it is too short to stand alone."""
        self._opened = ending.end()
        whole = self._text[self._at : ending.end()]
        if not last and not _BLANK_LINE.search(ending[2]) and not self._stands_alone(whole):
            return ()
        return self._give(ending.end())

    def _stands_alone(self, whole: str) -> bool:
        spoken = whole.strip()
        return weight(spoken) >= self._min and audible(spoken)

    def _give(self, to: int) -> tuple[Sentence, ...]:
        """Up to here, in parts if it is too long."""
        given = []
        rest = self._text[self._at : to]
        while rest:
            parts = -(-weight(rest.strip()) // self._max)
            size = len(rest) if parts <= 1 else _nearest(rest, weight(rest) / parts, self._max)
            at = self._begins + self._at
            given.append(Sentence(self._count, at, at + size, rest[:size]))
            self._count += 1
            self._at += size
            rest = rest[size:]
        self._judged, self._opened = max(self._judged, self._at), max(self._opened, self._at)
        return tuple(given)


_LONGEST_JUDGED = BEFORE + 2 * LONGEST_MARKS + 1 + NEXT_WORD


def split(text: str, language: str, lengths: SentenceLengths) -> list[Sentence]:
    """All sentences of a text at once, for who need not mind how long it takes."""
    sentences = Sentences(language, lengths)
    sentences.feed(text)
    sentences.flush()
    found: list[Sentence] = []
    while (cut := sentences.cut()) is not None:
        found.extend(cut)
    return found


def _final(ending: re.Match[str]) -> bool:
    """Whether the marks have no other meaning than to end a sentence, whatever the next word is."""
    return any(mark in _OTHER_MARKS for mark in ending[1])


def _nearest(text: str, target: float, most: int) -> int:
    """Where to cut a front of about this weight off: at the best kind of place within reach, the nearest of them."""
    return _best(text, 0.6 * target, min(most, 1.4 * target), target)


def _front(text: str, most: int) -> int:
    """Where to cut a front off that is as long as may be."""
    return _best(text, most / 2, most, most)


def _best(text: str, least: float, most: float, target: float) -> int:
    best, fallback = (-1, 0.0, 0), 1
    clauses = {each.end() for each in _CLAUSE.finditer(text)}
    spaces = {each.end() for each in _SPACE.finditer(text)}
    weighed = 0
    for at, letter in enumerate(text[:-1], 1):
        weighed += WIDE_WEIGHT if _WIDE.match(letter) else 1
        if weighed > most:
            break
        fallback = at
        if weighed >= least:
            kind = 3 if at in clauses else 2 if at in spaces else _kind(text, at)
            best = max(best, (kind, -abs(weighed - target), at))
    return best[2] or fallback


def _kind(text: str, at: int) -> int:
    """How good it is to cut between two characters with neither a mark nor a space between them."""
    before, behind = text[at - 1], text[at]
    if (
        behind == _ZERO_WIDTH_JOINER
        or before == _ZERO_WIDTH_JOINER
        or unicodedata.category(behind)[0] == "M"
        or unicodedata.category(behind) in ("Pe", "Pf", "Po", "Sk", "Cf")
        or unicodedata.category(before) in ("Ps", "Pi")
        or "\U0001f1e6" <= behind <= "\U0001f1ff"
    ):
        return -1
    return 0 if _LATIN_PAIR.fullmatch(before + behind) else 1
