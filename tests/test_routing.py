"""Where an utterance may go at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.clusters.routing import Route, Whose, barring

EU = Route("eu-only", ("eu",), namespaces=("key-acme", "key-bank-*"))
GERMAN = Route("german", ("german", "any"), languages=("de", "de-*"))
STAR = Route("star", ("studio",), namespaces=("key-acme",), voices=("star-*",))
ROUTES = [EU, GERMAN, STAR]


@pytest.mark.parametrize(
    ("whose", "groups", "barred"),
    [
        pytest.param(Whose("key-acme", "v", "en"), ["eu"], "", id="in its group"),
        pytest.param(Whose("key-acme", "v", "en"), ["us"], "eu-only", id="not in its group"),
        pytest.param(Whose("key-acme", "v", "en"), [], "eu-only", id="a cluster without groups"),
        pytest.param(Whose("key-bank-7", "v", "en"), ["us"], "eu-only", id="by a pattern"),
        pytest.param(Whose("key-other", "v", "en"), ["us"], "", id="no route is for it"),
        pytest.param(Whose("key-other", "v", "de-AT"), ["any"], "", id="one of the groups"),
        pytest.param(Whose("key-acme", "v", "de"), ["eu"], "german", id="every route holds"),
        pytest.param(Whose("key-acme", "v", "de"), ["eu", "german"], "", id="in a group of each"),
        pytest.param(Whose("key-acme", "star-1", "en"), ["eu"], "star", id="all patterns match"),
        pytest.param(Whose("key-acme", "dull-1", "en"), ["eu"], "", id="one pattern does not match"),
        pytest.param(Whose("KEY-ACME", "v", "en"), ["us"], "", id="case counts"),
    ],
)
def test_what_bars(whose: Whose, groups: list[str], barred: str) -> None:
    assert barring(ROUTES, whose, groups) == barred


groups = st.lists(st.sampled_from(["eu", "german", "any", "studio", "us"]), unique=True)
whoses = st.builds(
    Whose,
    st.sampled_from(["key-acme", "key-bank-1", "x"]),
    st.sampled_from(["star-1", "v"]),
    st.sampled_from(["de", "en"]),
)


@given(whoses, groups, groups)
def test_more_groups_never_bar_more(whose: Whose, some: list[str], more: list[str]) -> None:
    if not barring(ROUTES, whose, some):
        assert not barring(ROUTES, whose, some + more)


@given(whoses, groups)
def test_a_route_is_lifted_by_no_other(whose: Whose, some: list[str]) -> None:
    alone = [barring([route], whose, some) for route in ROUTES]
    assert bool(barring(ROUTES, whose, some)) == any(alone)
