"""Where text is cut into sentences: by language, by length, as it comes, and how much is looked at in one go."""

import pytest
import sentencex  # type: ignore[import-untyped]  # it has no annotations
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.speech.sentences import WINDOW, Sentence, SentenceLengths, Sentences, split, weight

EACH = SentenceLengths(min_characters=1)
USUAL = SentenceLengths()
SHORT = SentenceLengths(min_characters=10, max_characters=40)


def check(text: str, language: str, expected: list[str], lengths: SentenceLengths = EACH) -> None:
    """The same cuts whether the text comes whole or letter by letter, and their spans are the text."""
    found = split(text, language, lengths)
    assert [each.text for each in found] == expected
    assert_spans(text, found)
    assert fed(list(text), language, lengths) == found


def fed(pieces: list[str], language: str, lengths: SentenceLengths) -> list[Sentence]:
    sentences = Sentences(language, lengths)
    found: list[Sentence] = []
    for piece in pieces:
        sentences.feed(piece)
        found += drained(sentences)
    sentences.flush()
    return found + drained(sentences)


def drained(sentences: Sentences) -> list[Sentence]:
    found: list[Sentence] = []
    while (cut := sentences.cut()) is not None:
        found.extend(cut)
    return found


def assert_spans(text: str, found: list[Sentence]) -> None:
    assert [each.index for each in found] == list(range(len(found)))
    at = 0
    for each in found:
        assert each.start == at
        assert text[each.start : each.end] == each.text
        at = each.end
    assert at == len(text)


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        pytest.param("en", ["Hello there.  ", "How are you? ", "It's fine. ", "That's good."], id="en"),
        pytest.param("en", ["Dr. Smith paid $3.50 on Jan. 5 at 10:30 a.m. today. ", "So?"], id="en-abbreviations"),
        pytest.param("en", ["Version 2.0.1 is out, e.g. here. ", "See example.com for it."], id="en-decimals"),
        pytest.param("en", ["Wait… what? ", "Really?! ", "Yes... no. and so."], id="en-ellipses"),
        pytest.param("en-GB", ["It is so. ", "(It is, I think.) Yes."], id="en-region"),
        pytest.param("en", ["A heading\n\n", "A line\nthat is wrapped. ", "Another.\n \n\n", "End"], id="blank-lines"),
        pytest.param("de", ["Am 1. Januar war es kalt. ", "Dr. Müller kam um ca. 9 Uhr. ", "Gut!"], id="de"),
        pytest.param("ja", ["今日は良い天気です。", "「そうですね。」", "と言った。", "はい！"], id="ja"),
        pytest.param("zh", ["你好。", "今天天气很好！", "是吗？", "是。"], id="zh"),
        pytest.param("zh-Hans", ["价格是3.5元。", "好吗？"], id="zh-decimals"),
        pytest.param("hi", ["नमस्ते। ", "आप कैसे हैं? ", "ठीक है।"], id="hi"),
        pytest.param("ar", ["مرحبا. ", "كيف حالك؟ ", "أنا بخير."], id="ar"),
        pytest.param("th", ["สวัสดีครับ วันนี้อากาศดี ไปเที่ยวกัน"], id="th-has-no-marks"),
        pytest.param("en", ["Nice 👍🏽! ", f"Look {FAMILY}. ", "Ok 😀 done."], id="emoji"),
        pytest.param("xx", ["One. ", "Two."], id="no-such-language"),
        pytest.param("", ["One. ", "Two."], id="no-language"),
        pytest.param("en", [" \n "], id="nothing-to-say"),
    ],
)
def test_sentences_of_a_language(language: str, expected: list[str]) -> None:
    check("".join(expected), language, expected)


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        pytest.param("en", ["Yes. I think that this is so. ", "Bye."], id="short-ones-join-the-next"),
        pytest.param("en", ["Chapter 1\n\n", "It was night."], id="not-across-a-paragraph"),
        pytest.param("zh", ["好。是的，我们去吧。", "再见。"], id="wide-characters-weigh-more"),
        pytest.param(
            "en",
            ["It was the best of times, ", "it was the worst of times."],
            id="overlong-at-a-comma",
        ),
        pytest.param(
            "en",
            ["one two three four five six seven eight ", "nine ten eleven twelve thirteen now"],
            id="overlong-without-marks-balanced",
        ),
        pytest.param(
            "en", ["In 1,000,000 years or more the number ", "is still 1,000,000 as you know it."], id="numbers"
        ),
        pytest.param("zh", ["春天来了，花都开了，", "我们去山上看一看吧。"], id="zh-overlong"),
    ],
)
def test_lengths(language: str, expected: list[str]) -> None:
    check("".join(expected), language, expected, SHORT)


def test_a_flush_ends_a_sentence_and_more_may_follow() -> None:
    sentences = Sentences("en", USUAL)
    sentences.feed("Hello ")
    assert drained(sentences) == []
    sentences.flush()
    sentences.feed("there, you. ")
    assert [each.text for each in drained(sentences)] == ["Hello "]
    sentences.flush()
    sentences.flush()
    assert [(each.index, each.start, each.text) for each in drained(sentences)] == [(1, 6, "there, you. ")]
    assert drained(sentences) == []
    assert sentences.waiting == 0


def test_a_sentence_is_there_as_soon_as_the_next_word_is() -> None:
    sentences = Sentences("en", USUAL)
    sentences.feed("I am quite sure that it is. How")
    assert drained(sentences) == []
    sentences.feed(" are")
    assert [each.spoken for each in drained(sentences)] == ["I am quite sure that it is."]
    japanese = Sentences("ja", USUAL)
    japanese.feed("今日は良い天気です。そ")
    assert [each.spoken for each in drained(japanese)] == ["今日は良い天気です。"]


@pytest.mark.parametrize("text", ["...", " \n", "—", "”)", ""])
def test_nothing_is_spoken_where_there_is_nothing_to_say(text: str) -> None:
    assert [each.spoken for each in split(text, "en", USUAL)] == [""] * bool(text)


@pytest.mark.parametrize("text", ["👍", "7", "ก", "€", " a "])
def test_whatever_has_a_name_is_spoken(text: str) -> None:
    assert [each.spoken for each in split(text, "en", USUAL)] == [text.strip()]


def test_an_emoji_of_several_characters_is_not_cut() -> None:
    found = split(FAMILY * 100, "en", SentenceLengths(1, 40))
    assert len(found) > 1
    assert all(not each.text.startswith("\u200d") and not each.text.endswith("\u200d") for each in found)


# Properties: how it was fed changes nothing, nothing is lost, nothing is too long or stranded.

letters = st.sampled_from(
    [*"ab.!? \n,;'\")(“”1", "。", "字", "？", "Dr. ", "e.g. ", "1. ", "word ", "\n\n", "ा", "\u200d"]
)
texts = st.lists(letters, max_size=120).map("".join)


@given(texts, st.lists(st.integers(1, 7), min_size=1), st.sampled_from(["en", "de", "zh"]))
@settings(max_examples=200, deadline=None)
def test_how_it_was_fed_changes_nothing(text: str, sizes: list[int], language: str) -> None:
    pieces: list[str] = []
    at = 0
    while at < len(text):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(text[at : at + size])
        at += size
    whole = split(text, language, SHORT)
    assert_spans(text, whole)
    assert fed(pieces, language, SHORT) == whole


@given(st.text(st.characters(codec="utf-8"), max_size=2000) | st.text("ab \n", min_size=100, max_size=500))
@settings(max_examples=100, deadline=None)
def test_no_sentence_is_too_long(text: str) -> None:
    found = split(text, "en", SHORT)
    assert_spans(text, found)
    assert all(weight(each.spoken) <= SHORT.max_characters for each in found)


@given(st.lists(st.integers(1, 9), min_size=20, max_size=80))
@settings(max_examples=50, deadline=None)
def test_no_word_is_stranded(lengths: list[int]) -> None:
    found = split(" ".join("x" * length for length in lengths), "en", SHORT)
    assert all(weight(each.spoken) > 10 for each in found)


# Work: what sentencex is shown between two chances to let others go first.


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param("字", id="unspaced"),
        pytest.param("今天天气很好。", id="cjk-sentences"),
        pytest.param("今天天气很好，", id="cjk-clauses"),
        pytest.param("A.", id="marks-without-end"),
        pytest.param("a. ", id="abbreviations-without-end"),
        pytest.param(".", id="dots"),
        pytest.param(" ", id="spaces"),
        pytest.param('"a." ', id="quotations"),
    ],
)
def test_one_cut_looks_at_a_window_at_most(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, shown = sentencex.segment, [0]

    def counting(language: str, text: str) -> list[str]:
        shown[-1] += len(text)
        return list(judge(language, text))

    monkeypatch.setattr(sentencex, "segment", counting)
    text = unit * (100_000 // len(unit))
    sentences = Sentences("zh", USUAL)
    found: list[Sentence] = []
    sentences.feed(text)
    sentences.flush()
    while (cut := sentences.cut()) is not None:
        assert sum(weight(each.text) for each in cut) <= 2 * USUAL.max_characters + WINDOW
        found.extend(cut)
        shown.append(0)
    assert max(shown) <= WINDOW
    assert_spans(text, found)
