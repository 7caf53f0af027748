"""A head that is filled in again says what one that is rendered anew would say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.cache.key import Key
from edgecache.cache.lookup import Asked, Freshness, Hit, Tier, judge
from edgecache.cache.recording import Facts, Recording, etag
from edgecache.delivery.prepared import Prepared, prepare
from edgecache.fill.edge import Recorded

AUDIO = b"RIFF"
TTL_S = 1000.0


def recording(made_at: float) -> Recording:
    facts = Facts("audio/wav", "wav", 1000, 24_000, 1, made_at, 350.0, 200.0, "syd", etag(AUDIO))
    return Recording(Key("ab" * 32), "default", b"canonical", facts, AUDIO)


def found(of: Recording, wall_now: float) -> Recorded | None:
    verdict = judge(Asked(of.key, of.namespace, of.canonical), of, Freshness(ttl_s=TTL_S), wall_now)
    return Recorded(of, verdict.age_s, verdict.ttl_s, Tier.MEMORY) if isinstance(verdict, Hit) else None


def rendered(of: Recording, wall_now: float) -> Prepared:
    hit = found(of, wall_now)
    assert hit is not None
    return prepare("edge", hit, "POST", wall_now)


#: Halves and quarters of seconds, so that no sum is rounded.
moments = st.integers(0, 8000).map(lambda quarters: quarters / 4)


@given(moments, moments, moments)
def test_what_has_aged_says_what_is_rendered_anew(made_at: float, younger_s: float, older_s: float) -> None:
    of, first_s = recording(1e9 + made_at), 1e9 + made_at + younger_s % TTL_S
    before, now = rendered(of, first_s), first_s + older_s
    aged = before.aged(now)
    if found(of, now) is None:
        assert aged is None
        return
    assert aged is not None
    anew, (first, third, left_s) = rendered(of, now), aged
    assert (first, before.second, third) == (anew.first, anew.second, anew.third)
    assert left_s == anew.until_s - now


@pytest.mark.parametrize("now", [1e9 - 1, 1e9 + 9], ids=["made later than now", "the clock was set back"])
def test_where_clocks_went_back_it_is_judged_anew(now: float) -> None:
    assert rendered(recording(1e9), 1e9 + 10).aged(now) is None


@given(moments, st.integers(1, 3))
def test_every_word_is_true_for_as_long_as_it_says(younger_s: float, quarters: int) -> None:
    of, now = recording(1e9 + 0.25), 1e9 + 0.25 + younger_s % TTL_S
    first = rendered(of, now)
    later = min(now + quarters / 4, first.until_s - 0.01)
    if later > now:
        anew = rendered(of, later)
        assert (anew.first, anew.third) == (first.first, first.third)
