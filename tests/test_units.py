"""Durations and sizes as people write them."""

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from edgecache.configuration import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("24h", 86400),
        ("1h30m", 5400),
        ("20ms", 0.02),
        ("1.5s", 1.5),
        ("7d", 604800),
        ("5us", 5e-6),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.duration(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(86400, "24h"), (7 * 86400, "7d"), (0.02, "20ms"), (5400, "1h30m"), (1.5, "1.5s"), (129600, "36h"), (0, "0s")],
)
def test_durations_are_written_as_people_do(seconds: float, text: str) -> None:
    assert units.spell_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("512MiB", 512 << 20), ("64KiB", 64 << 10), ("10MB", 10_000_000), ("1.5GiB", 3 << 29), ("7B", 7)],
)
def test_sizes(text: str, count: int) -> None:
    assert units.size(text) == count
    assert units.size(units.spell_size(count)) == count


@given(micros=st.integers(0, 36_500 * 86_400_000_000))
@example(micros=36_500 * 86_400_000_000 - 1)
@hypothesis_settings(max_examples=200)
def test_durations_round_trip(micros: int) -> None:
    assert units.duration(units.spell_duration(micros / 1_000_000)) == micros / 1_000_000


@given(count=st.integers(0, 1 << 60))
@hypothesis_settings(max_examples=100)
def test_sizes_round_trip(count: int) -> None:
    assert units.size(units.spell_size(count)) == count


@pytest.mark.parametrize(
    "text", ["", "5", "-5s", "5 s", "5S", "1s1s", "1ms1s", "5s\n", "١s", "1e3s", ".5s", "5.s", "0.1us"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is "):
        units.duration(text)


@pytest.mark.parametrize("text", ["", "5", "-5B", "5 MiB", "5M", "5mib", "5B\n", "0.5B", "2048PiB", "9999999TiB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is "):
        units.size(text)
