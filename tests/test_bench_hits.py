"""What `bench.hits` makes of what it measured: reading generators' output, percentiles, ratios, verdicts, the picture."""

import math
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest

from bench.drawing import Bar, Panel, draw
from bench.generators import BrokenLoad, Histogram, Load, percentile_ms, read_own, read_wrk
from bench.samples import HALF, Cell, Figure, Sample, Spread
from bench.targets import Target, judge
from bench.telling import aligned, tables

CELL = Cell("identical", 32 << 10, 32)
WRK = """Running 2s test @ http://127.0.0.1:1/v1/tts
  1 threads and 32 connections
  103 requests in 2.00s, 3.2MB read
{"requests": 103, "seconds": 2.000000, "bytes": 3300000, "refused": 2, "broken": 1}
"""
OWN = """{"sent": 7, "answered": 4, "failed": 1, "bytes": 9, "seconds": 2.0, "latency_ns": [[100, 3], [200, 1]],
 "first_ns": [[90, 4]], "lag_ns": [[50, 4]]}
""".replace("\n ", " ")


def sample(contender: str, number: int, rate: float = 1.0, others: float = 0.0, busy: float = 1.0) -> Sample:
    return Sample(contender, CELL, number, rate, cpu_us=1e6 / rate, busy=busy, load_busy=0.5, others=others)


def test_wrks_output_is_read() -> None:
    load = read_wrk(WRK, cpu_s=1.0)
    assert load == Load(answered=101, failed=3, bytes=3_300_000, seconds=2.0, busy=0.5)
    assert load.rate == 50.5


def test_the_open_loops_output_is_read() -> None:
    load = read_own(OWN, cpu_s=2.3)
    assert (load.answered, load.failed, load.rate) == (4, 1, 2.0)
    assert load.busy == pytest.approx(1.0)
    assert (load.latency, load.lag) == ([(100, 3), (200, 1)], [(50, 4)])
    assert (load.first, load.sent) == ([(90, 4)], 7)


@pytest.mark.parametrize("printed", ["", "unable to connect to 127.0.0.1:1\n", '{"requests": 1'])
def test_output_without_figures_is_an_error_that_quotes_it(printed: str) -> None:
    with pytest.raises(BrokenLoad) as raised:
        read_wrk(printed, cpu_s=0.0)
    assert printed in str(raised.value)


@pytest.mark.parametrize(
    ("histogram", "share", "expected_ms"),
    [
        ([(1_000_000, 1)], 0.5, 1.0),
        ([(1_000_000, 98), (2_000_000, 1), (9_000_000, 1)], 0.5, 1.0),
        ([(1_000_000, 98), (2_000_000, 1), (9_000_000, 1)], 0.99, 2.0),
        ([(1_000_000, 98), (2_000_000, 1), (9_000_000, 1)], 0.999, 9.0),
        ([(1_000_000, 1), (2_000_000, 1)], 1.0, 2.0),
        ([], 0.5, math.nan),
    ],
)
def test_percentiles(histogram: Histogram, share: float, expected_ms: float) -> None:
    assert percentile_ms(histogram, share) == pytest.approx(expected_ms, nan_ok=True)


RATIOS: dict[str, tuple[list[Sample], Spread | None]] = {
    "round by round, not median by median": (
        [
            *(sample("a", number, rate) for number, rate in enumerate((10, 30, 9))),
            *(sample("b", number, rate) for number, rate in enumerate((5, 30, 3))),
        ],
        Spread(2.0, 1.0, 3.0, 3),
    ),
    "rounds that only one has do not count": (
        [sample("a", 0, 10), sample("b", 0, 5), sample("a", 1, 30), sample("b", 2, 1)],
        Spread(2.0, 2.0, 2.0, 1),
    ),
    "disturbed rounds are left out": (
        [sample("a", 0, 10), sample("b", 0, 5), sample("a", 1, 30), sample("b", 1, 5, others=0.5)],
        Spread(2.0, 2.0, 2.0, 1),
    ),
    "unless there are no others": (
        [sample("a", 0, 10, others=0.5), sample("b", 0, 5)],
        Spread(2.0, 2.0, 2.0, 1),
    ),
    "nothing measured": ([sample("a", 0, 10)], None),
}  # fmt: skip


@pytest.mark.parametrize(("samples", "expected"), RATIOS.values(), ids=RATIOS)
def test_ratios(samples: Sequence[Sample], expected: Spread | None) -> None:
    assert Figure("a", CELL).in_units_of(Figure("b", CELL), samples) == expected


@pytest.mark.parametrize(
    ("ours", "bound", "at_least", "met"),
    [(1.5, 1.5, True, True), (1.49, 1.5, True, False), (1.0, 1.0, False, True), (1.01, 1.0, False, False)],
)
def test_verdicts(ours: float, bound: float, at_least: bool, met: bool) -> None:
    target = Target("", bound, Figure("a", CELL), Figure("b", CELL), at_least)
    verdict = judge(target, [sample("a", 0, ours), sample("b", 0, 1.0)])
    assert (verdict.met, verdict.disturbed, verdict.unfull) == (met, False, ())
    assert judge(target, []).met is None


def test_a_verdict_says_what_it_rests_on() -> None:
    target = Target("", 1.0, Figure("a", CELL), Figure("b", CELL))
    verdict = judge(target, [sample("a", 0, 3.0, others=0.9), sample("b", 0, 1.0, busy=0.7)])
    assert (verdict.disturbed, verdict.unfull) == (True, ("b",))
    assert verdict.by_cpu == pytest.approx(Spread(3.0, 3.0, 3.0, 1))


def test_tables_have_every_contender_of_a_load() -> None:
    open_loop = Sample("a", Cell(HALF, 4096, 32), 0, 9.0, 1.0, 0.5, 1.0, failed=2, p50_ms=1.0, p99_ms=2.0, p999_ms=3.0)
    told = tables(
        [open_loop, sample("a", 0, 2000.0), sample("b", 0, 1000.0)], {"a": "the edge", "b": "a peer", "c": "none"}
    )
    closed, opened = told.split("\n\n")
    assert closed.splitlines()[0] == "32 KiB, identical requests, 32 connections"
    assert [line.split("  ")[0] for line in closed.splitlines()[2:]] == ["the edge", "a peer"]
    assert "2 FAILED" in opened.splitlines()[-1]


def test_columns_are_aligned() -> None:
    assert aligned([["", "n", ""], ["long", "1", ""], ["s", "100", "note"]]) == "        n\nlong    1\ns     100  note"


def test_the_picture_is_well_formed_whatever_names_hold() -> None:
    bars = [
        Bar('<a> & "b"', Spread(1000.0, 900.0, 1200.0, 3), "ours"),
        Bar("c", Spread(2000.0, 2000.0, 2000.0, 3), "peer"),
    ]
    root = ElementTree.fromstring(draw("Hits & misses", "a < b", [Panel("4 KiB", bars), Panel("none", [])]))
    spaced = "{http://www.w3.org/2000/svg}"
    widths = {each.get("class"): float(each.get("width", "0")) for each in root.iter(f"{spaced}rect")}
    assert widths["peer"] == pytest.approx(2 * widths["ours"], abs=0.2)
    assert {'<a> & "b"', "Hits & misses", "1.0 k/s"} <= {each.text for each in root.iter(f"{spaced}text")}
    bottoms = [float(each.get("y", "0")) for each in root.iter(f"{spaced}text")]
    assert max(bottoms) < float(root.get("height", "0"))
