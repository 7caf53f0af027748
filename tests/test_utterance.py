"""The canonical form: injective, by value, and to the code point (rule 1)."""

import math
import struct
import unicodedata

import msgspec
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.cache.key import Naming, VoiceRevision
from edgecache.errors import ClientError
from edgecache.speech.utterance import MAX_DEPTH, Value, decode, plain, utterance

texts = st.text(st.characters(codec="utf-8"), max_size=20)
leaves = st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    leaves, lambda each: st.lists(each, max_size=3) | st.dictionaries(texts, each, max_size=3), max_leaves=6
)
fields = st.dictionaries(texts, values, max_size=5)
naming = Naming()


@given(fields)
@settings(max_examples=150)
def test_rule_1_the_canonical_form_is_injective(asked: dict[str, Value]) -> None:
    wanted = utterance(asked)
    assert decode(wanted.canonical) == wanted.fields


@given(fields, fields)
@settings(max_examples=150)
def test_rule_1_equal_keys_mean_equal_utterances(one: dict[str, Value], other: dict[str, Value]) -> None:
    a, b = utterance(one), utterance(other)
    same = decode(a.canonical) == decode(b.canonical) and repr(sorted(a.fields)) == repr(sorted(b.fields))
    assert (naming.key("n", a.canonical) == naming.key("n", b.canonical)) == (a.canonical == b.canonical)
    if a.canonical == b.canonical:
        assert same


ALIKE: list[tuple[str, dict[str, Value], dict[str, Value]]] = [
    ("delimiters", {"text": "a:b", "voice": "c"}, {"text": "a", "voice": "b:c"}),
    (
        "the seed's own key",
        {"text": "Hello", "voice": "en:alloy", "l": "x"},
        {"text": "Hello:en", "voice": "alloy", "l": "x"},
    ),
    ("field name and value", {"text": "x", "ab": "c"}, {"text": "x", "a": "bc"}),
    ("superscript", {"text": "10²"}, {"text": "102"}),
    ("half", {"text": "1½"}, {"text": "11⁄2"}),
    ("composed and decomposed", {"text": "é"}, {"text": unicodedata.normalize("NFD", "é")}),
    ("case", {"text": "Polish"}, {"text": "polish"}),
    ("trailing space", {"text": "x"}, {"text": "x "}),
    ("confusable", {"text": "a"}, {"text": "а"}),
    ("zero width", {"text": "ab"}, {"text": "a\u200bb"}),
    ("number and text", {"text": "x", "f": 1}, {"text": "x", "f": "1"}),
    ("number and truth", {"text": "x", "f": 1}, {"text": "x", "f": True}),
    ("big numbers", {"text": "x", "f": 2**64}, {"text": "x", "f": 2**64 + 1}),
    ("list and dict", {"text": "x", "f": []}, {"text": "x", "f": {}}),
    ("nesting", {"text": "x", "f": [[1], 2]}, {"text": "x", "f": [[1, 2]]}),
    ("near floats", {"text": "x", "f": 0.1}, {"text": "x", "f": math.nextafter(0.1, 1)}),
]


@pytest.mark.parametrize(("one", "other"), [row[1:] for row in ALIKE], ids=[row[0] for row in ALIKE])
def test_rule_1_what_looks_alike_has_its_own_key(one: dict[str, Value], other: dict[str, Value]) -> None:
    a, b = utterance(one), utterance(other)
    assert naming.key("n", a.canonical) != naming.key("n", b.canonical)


SAME: list[tuple[str, dict[str, Value], dict[str, Value]]] = [
    ("order", {"text": "x", "a": 1, "b": 2}, {"b": 2, "a": 1, "text": "x"}),
    ("1 and 1.0", {"text": "x", "rate": 1}, {"text": "x", "rate": 1.0}),
    ("minus zero", {"text": "x", "f": 0}, {"text": "x", "f": -0.0}),
    ("null and absent", {"text": "x", "f": None}, {"text": "x"}),
    ("large integral float", {"text": "x", "f": 1e22}, {"text": "x", "f": 10**22}),
]


@pytest.mark.parametrize(("one", "other"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_the_same_speech_has_one_key(one: dict[str, Value], other: dict[str, Value]) -> None:
    assert utterance(one).canonical == utterance(other).canonical


# Two texts with the same xxh64, and two byte strings with the same xxh3-128 (both with the default seed).
XXH64 = (
    "Please transfer the money to Ann today, and call me back later!!",
    "SpISeggcransfer the money to Anny,9H7Qqoand call me back later!!",
)
_S0, _S1 = struct.unpack("<QQ", bytes.fromhex("b8fe6c3923a44bbe7c01812cf721ad1c"))
_H = 0x1122334455667788
XXH3 = (
    struct.pack("<QQ", _S0, _H) + b"X" * 16,
    struct.pack("<QQ", (_S0 + _H - _S1) % 2**64, _S1) + b"X" * 16,
)


def test_rule_1_forged_xxhash_collisions_have_their_own_keys() -> None:
    one, other = XXH64
    assert xxhash.xxh64_digest(one.encode()) == xxhash.xxh64_digest(other.encode())
    assert naming.key("n", utterance({"text": one}).canonical) != naming.key("n", utterance({"text": other}).canonical)
    assert xxhash.xxh3_128_digest(XXH3[0]) == xxhash.xxh3_128_digest(XXH3[1])
    assert naming.key("n", XXH3[0]) != naming.key("n", XXH3[1])


def test_rule_8_namespaces_and_secrets_part_keys() -> None:
    canonical = utterance({"text": "x"}).canonical
    keys = {
        naming.key("a", canonical),
        naming.key("b", canonical),
        Naming(secret="one").key("a", canonical),
        Naming(secret="two").key("a", canonical),
        naming.key("a" + canonical[:1].decode(), canonical[1:]),
    }
    assert len(keys) == 5


def test_a_voices_revision_parts_its_keys_and_no_others() -> None:
    ava, ben = (utterance({"text": "x", "voice_id": voice}).canonical for voice in ("ava", "ben"))
    second, third = (Naming(voice_revisions=(VoiceRevision("ava", each),)) for each in ("2", "3"))
    assert len({each.key("n", ava) for each in (naming, second, third)}) == 3
    assert naming.key("n", ben) == second.key("n", ben)
    assert naming.key("n", utterance({"text": "ava"}).canonical) == second.key(
        "n", utterance({"text": "ava"}).canonical
    )
    # As a worker gets its settings from its supervisor.
    assert msgspec.convert(msgspec.to_builtins(second), Naming).key("n", ava) == second.key("n", ava)


def test_a_key_is_the_same_on_every_machine() -> None:
    canonical = utterance({"text": "Hello", "voice_id": "default", "language": "en", "speaking_rate": 1}).canonical
    assert naming.key("default", canonical) == "f84cb14e17fa9ca9331c7bd885e017e927ca9a14e36ec5c030526154b82bad00"


REFUSED: list[tuple[str, Value, str]] = [
    ("nan", float("nan"), "bad_number"),
    ("infinity", float("inf"), "bad_number"),
    ("half a surrogate pair", "\ud800", "bad_unicode"),
    ("half a surrogate pair in a name", {"\udfff": 1}, "bad_unicode"),
]


@pytest.mark.parametrize(("value", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_rule_1_what_has_no_canonical_form_is_refused(value: Value, code: str) -> None:
    with pytest.raises(ClientError) as refused:
        utterance({"text": "x", "f": value})
    assert (refused.value.status, refused.value.code) == (400, code)


def test_nesting_has_a_bound() -> None:
    deep: Value = 1
    for _ in range(MAX_DEPTH + 2):
        deep = [deep]
    with pytest.raises(ClientError, match="too_deep"):
        plain(deep, "f")


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_any_bytes_decode_or_are_refused(some: bytes) -> None:
    for encoded in (some, b"\x01" + some):
        try:
            assert isinstance(decode(encoded), dict)
        except ValueError:
            continue
