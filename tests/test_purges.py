"""What stands of what was purged: exactly what a naive filter over every purge ever given says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.cache.key import Key
from edgecache.cache.lookup import Asked, Freshness, Hit, Miss, Stale, judge
from edgecache.cache.purges import Kind, Purge, Purges, Scope, Subject, is_one, matches, read
from edgecache.cache.recording import Facts, Recording, etag, frame, unframe
from edgecache.cache.tags import MAX_TAG, MAX_TAGS, TooMany, tags
from edgecache.speech.utterance import utterance, word

VALUES = {
    Scope.ALL: ("",),
    Scope.NAMESPACE: ("default", "key-acme"),
    Scope.VOICE: ("ava", "ben"),
    Scope.LANGUAGE: ("en", "de"),
    Scope.CLUSTER: ("syd", "sin"),
    Scope.TAG: ("a", "b", "c"),
    Scope.KEY: ("ab" * 32, "cd" * 32),
}
named = st.sampled_from([(scope, value) for scope, values in VALUES.items() for value in values])
purges = st.builds(
    lambda what, kind, serial: Purge(what[0], what[1], kind, serial), named, st.sampled_from(Kind), st.integers(1, 12)
)


def recording(
    voice: str = "ava", language: str = "en", tagged: tuple[str, ...] = (), after: int = 0, **named: str
) -> Recording:
    said = utterance({"text": "Hello", "voice_id": voice, "language": language})
    facts = Facts(
        *("audio/wav", "wav", 1000, 24000, 1, 1_000.0, 350.0, 200.0, named.get("cluster", "syd"), etag(b"audio")),
        tags=tagged,
        after_purge=after,
    )
    key = Key(named.get("key", "ab" * 32))
    return Recording(key, named.get("namespace", "default"), said.canonical, facts, b"audio")


recordings = st.builds(
    recording,
    voice=st.sampled_from(("ava", "ben")),
    language=st.sampled_from(("en", "de")),
    tagged=st.lists(st.sampled_from("abc"), unique=True).map(tuple),
    after=st.integers(0, 12),
    namespace=st.sampled_from(("default", "key-acme")),
    cluster=st.sampled_from(("syd", "sin")),
    key=st.sampled_from(VALUES[Scope.KEY]),
)


def naive(given_: list[Purge], found: Recording) -> Kind | None:
    """Looks at every purge that was ever given."""
    about = {each.kind for each in given_ if each.serial > found.facts.after_purge and matches(each, found)}
    return Kind.HARD if Kind.HARD in about else Kind.SOFT if about else None


@given(st.lists(purges, max_size=12), recordings)
def test_what_stands_says_what_all_that_was_given_says(given_: list[Purge], found: Recording) -> None:
    assert Purges(given_).on(found) is naive(given_, found)


@given(st.lists(purges, max_size=12), st.data())
def test_order_and_repetition_make_no_difference(given_: list[Purge], data: st.DataObject) -> None:
    one, other = Purges(given_), Purges(data.draw(st.permutations(given_ + given_)))
    assert (set(one), one.newest) == (set(other), other.newest)
    assert len(one) == len(list(one))
    changes = one.changes
    assert not any(one.add(each) for each in given_)
    assert one.changes == changes


@given(st.lists(purges, max_size=12), st.lists(purges, max_size=12))
def test_nodes_that_told_each_other_everything_know_the_same(ours: list[Purge], theirs: list[Purge]) -> None:
    here, there = Purges(ours), Purges(theirs)
    told_there, told_here = list(here), list(there)
    for each in told_there:
        there.add(each)
    for each in told_here:
        here.add(each)
    assert set(here) == set(there) == set(Purges(ours + theirs))


@given(st.lists(purges, max_size=12), recordings, st.integers(0, 13))
def test_what_is_too_old_to_be_about_anything_is_forgotten_for_good(
    given_: list[Purge], found: Recording, before: int
) -> None:
    standing = Purges(given_)
    standing.prune(before)
    assert standing.on(found) is naive([each for each in given_ if each.serial >= before], found)
    for each in given_:
        standing.add(each)
    assert all(each.serial >= before for each in standing)


@given(st.lists(purges, max_size=12), recordings)
def test_what_is_not_known_yet_counts_as_purged(given_: list[Purge], found: Recording) -> None:
    standing = Purges(given_)
    unknown = Subject(found.key, found.namespace, found.canonical, found.facts.after_purge)
    severity = {None: 0, Kind.SOFT: 1, Kind.HARD: 2}
    assert severity[standing.about(unknown)] >= severity[standing.on(found)]


@given(purges)
def test_a_purge_is_read_as_it_is_named(purge: Purge) -> None:
    assert read(purge.name, str(purge.serial)) == purge


@pytest.mark.parametrize(
    ("name", "serial"),
    [
        ("change", "abc"),
        ("hard:voice:", "1"),
        ("hard:all:x", "1"),
        ("hard:mood:x", "1"),
        ("warm:voice:x", "1"),
        ("hard:voice:x", "-1"),
        ("hard:voice:x", "0"),
        ("hard:voice:x", "1.5"),
        ("hard:voice:x", "²"),
        ("hard:voice:x", str(1 << 70)),
        (f"hard:voice:{'x' * 257}", "1"),
        ("", ""),
    ],
)
def test_rule_6_what_is_no_purge_is_not_believed(name: str, serial: str) -> None:
    assert read(name, serial) is None


def test_a_serial_is_larger_than_all_that_are_known_whatever_the_clock_says() -> None:
    standing = Purges()
    first = standing.serial(1_000.0)
    standing.add(Purge(Scope.VOICE, "ava", Kind.HARD, first))
    assert standing.serial(0.0) == first + 1
    assert standing.on(recording(after=standing.newest)) is None
    assert standing.on(recording(after=first - 1)) is Kind.HARD


def test_a_name_may_hold_what_separates() -> None:
    purge = Purge(Scope.TAG, "voice:ava:2", Kind.SOFT, 7)
    assert read(purge.name, "7") == purge
    assert is_one(purge)


POLICY = Freshness(ttl_s=100.0, stale_if_error_s=50.0)
JUDGED = [
    ("hard", Kind.HARD, 1000.0, Miss),
    ("soft", Kind.SOFT, 1000.0, Stale),
    ("soft, and too old anyway", Kind.SOFT, 1150.0, Miss),
    ("nothing", None, 1000.0, Hit),
]


@pytest.mark.parametrize(("kind", "now", "verdict"), [row[1:] for row in JUDGED], ids=[row[0] for row in JUDGED])
def test_what_may_be_served_of_what_was_purged(kind: Kind | None, now: float, verdict: type) -> None:
    found = recording()
    standing = Purges([] if kind is None else [Purge(Scope.VOICE, "ava", kind, 5)])
    judged = judge(Asked(found.key, "default", found.canonical), found, POLICY, now, standing)
    assert isinstance(judged, verdict)
    if isinstance(judged, Stale):
        assert judged.ttl_s <= 0


# Tags.


@pytest.mark.parametrize(
    ("headers", "due"),
    [
        ({}, ()),
        ({"surrogate-key": "a b  c"}, ("a", "b", "c")),
        ({"cache-tag": "a, b,,c d"}, ("a", "b", "c d")),
        ({"surrogate-key": "a b", "cache-tag": "b,e"}, ("a", "b", "e")),
        ({"surrogate-key": "a, b"}, ("a", "b")),
        ({"surrogate-key": "caf\u00e9 a\x01 ok"}, ("ok",)),
        ({"surrogate-key": "x" * MAX_TAG}, ("x" * MAX_TAG,)),
    ],
)
def test_tags_are_read_from_both_headers(headers: dict[str, str], due: tuple[str, ...]) -> None:
    assert tags(headers) == due


@pytest.mark.parametrize("spelled", [" ".join(map(str, range(MAX_TAGS + 1))), "x" * (MAX_TAG + 1)])
def test_rule_7_more_tags_than_can_be_kept_are_said_so(spelled: str) -> None:
    with pytest.raises(TooMany):
        tags({"surrogate-key": spelled})


def test_a_record_keeps_its_tags_and_one_from_before_there_were_any_is_read() -> None:
    found = recording(tagged=("a", "b"), after=7)
    assert unframe(found.key, frame(found)) == found
    assert found.size_bytes > recording().size_bytes
    older = Facts(*tuple(getattr(found.facts, name) for name in Facts.__struct_fields__[:10]))
    assert (older.tags, older.after_purge) == ((), 0)


# One word of an utterance.


@given(st.dictionaries(st.text("abv_id", min_size=1, max_size=8), st.text(max_size=10), max_size=5))
def test_a_word_is_found_without_decoding_the_rest(fields: dict[str, str]) -> None:
    said = utterance({"text": "Hello", "list": [1, {"voice_id": "inner"}], **fields})
    for name in (*fields, "voice_id", "text", "nothing"):
        held = said.fields.get(name)
        assert word(said.canonical, name) == (held if isinstance(held, str) else "")
