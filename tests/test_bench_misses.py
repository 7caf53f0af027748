"""What `bench.misses` and `bench.regions` make of what they read off, and their programs in C against known answers."""

import asyncio
import json
import shutil
import struct
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import many, regions
from bench.added import DIRECT, KEPT, added, panels, tables
from bench.bare_cluster import wav
from bench.drawing import draw, milliseconds
from bench.generators import Heard as GotThrough
from bench.generators import Listening, Schedule, listeners, own, read_listeners
from bench.houses import bare_cluster, compiled_cluster, says
from bench.load import tts_request
from bench.programs import compiled
from bench.questions import MARK, Asking
from bench.readings import Asked, Book, Number, Reading, verdicts
from bench.regions import Heard
from bench.samples import Spread

no_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc for the programs in C")

CELL = "cell"
MS = Number("a", CELL, "ms")
OVER = Number("a", CELL, "ms", over="base")


def reading(who: str, number: int, ms: float, others: float = 0.0) -> Reading:
    return Reading(who, CELL, number, {"ms": ms}, others)


SPREADS: dict[str, tuple[Number, list[Reading], Spread | None]] = {
    "over the rounds": (MS, [reading("a", 0, 3), reading("a", 1, 1), reading("a", 2, 2)], Spread(2, 1, 3, 3)),
    "of nobody else": (MS, [reading("a", 0, 3), reading("b", 0, 9)], Spread(3, 3, 3, 1)),
    "never read": (MS, [reading("b", 0, 9)], None),
    "another value": (Number("a", CELL, "kB"), [reading("a", 0, 3)], None),
    "a difference, round by round": (
        OVER,
        [reading("a", 0, 5), reading("base", 0, 1), reading("a", 1, 9), reading("base", 1, 8)],
        Spread(2.5, 1, 4, 2),
    ),
    "no difference without the other's round": (
        OVER,
        [reading("a", 0, 5), reading("base", 1, 1), reading("a", 2, 9), reading("base", 2, 8)],
        Spread(1, 1, 1, 1),
    ),
    "disturbed rounds are left out": (MS, [reading("a", 0, 3, others=0.5), reading("a", 1, 1)], Spread(1, 1, 1, 1)),
    "unless there are no others": (MS, [reading("a", 0, 3, others=0.5)], Spread(3, 3, 3, 1)),
    "disturbed through the other": (
        OVER,
        [reading("a", 0, 5), reading("base", 0, 1, others=0.5), reading("a", 1, 9), reading("base", 1, 8)],
        Spread(1, 1, 1, 1),
    ),
}


@pytest.mark.parametrize(("number", "readings", "expected"), SPREADS.values(), ids=SPREADS)
def test_spreads(number: Number, readings: Sequence[Reading], expected: Spread | None) -> None:
    assert Book(readings).spread(number) == expected


def test_ratios_are_of_one_round_and_of_something() -> None:
    book = Book(
        reading(who, at, ms)
        for at, pair in enumerate([(4, 2), (9, 3), (7, 0)])
        for who, ms in zip("ab", pair, strict=True)
    )
    assert book.ratio(MS, Number("b", CELL, "ms")) == Spread(2.5, 2, 3, 2)
    assert book.ratio(MS, Number("c", CELL, "ms")) is None


@pytest.mark.parametrize(
    ("asked", "met"),
    [
        (Asked("", 2.0, MS), True),
        (Asked("", 1.9, MS), False),
        (Asked("", 2.0, MS, at_least=True), True),
        (Asked("", 2.1, MS, at_least=True), False),
        (Asked("", 0.5, MS, Number("b", CELL, "ms")), True),
        (Asked("", 0.4, MS, Number("b", CELL, "ms")), False),
        (Asked("", 1.0, Number("c", CELL, "ms")), None),
    ],
)
def test_targets(asked: Asked, met: bool | None) -> None:
    book = Book([reading("a", 0, 2), reading("b", 0, 4)])
    assert asked.met(book) is met
    assert asked.document(book)["met"] is met
    assert {True: "met", False: "NOT MET", None: "not measured"}[met] in verdicts([asked], book)


def test_a_verdict_says_that_others_disturbed() -> None:
    assert "disturbed" in verdicts([Asked("", 1.0, MS)], Book([reading("a", 0, 2, others=0.5)]))


def first_byte(who: str, p50: float, failed: float = 0) -> Reading:
    values = {"first_p50_ms": p50, "first_p99_ms": 2 * p50, "rate": 100.0, "cpu_us": 5.0, "busy": 0.5}
    return Reading(who, KEPT, 0, values | {"failed": failed})


def test_tables_and_picture_of_added_first_bytes() -> None:
    book = Book([first_byte(DIRECT, 1.0), first_byte("memory", 1.5), first_byte("nginx", 2.0, failed=3)])
    names = {"memory": "edge", "nginx": "a peer", "varnish": "not here"}
    told = tables(book, names).splitlines()
    assert [line.split("  ")[0] for line in told[2:5]] == ["the cluster itself", "edge", "a peer"]
    assert "3 FAILED" in told[4]
    assert book.spread(added("memory", KEPT, "p99")) == Spread(1, 1, 1, 1)
    assert "0.50 ms" in draw("Misses", "", panels(book, names, "memory"))


def test_a_table_and_a_picture_of_regions() -> None:
    heard = {name: [Heard(n, 2 * n, "") for n in (1.0, 2.0, 3.0)] for name in regions.NAMES}
    book = Book(Reading(name, regions.CELL, 0, {"first_p50_ms": 2, "last_p50_ms": 4}) for name in heard)
    told = regions.table(heard).splitlines()
    assert [line.split("  ")[0] for line in told[2:]] == list(regions.NAMES.values())
    assert told[2].split()[-7:] == ["2.0", "3.0", "3.0", "4.0", "6.0", "6.0", "3"]
    assert draw("Speech", "", regions.panels(book)).count("4.00 ms") == len(heard)


@pytest.mark.net
@pytest.mark.timeout(400)
@no_compiler
async def test_every_scenario_of_regions_is_what_it_says(tmp_path: Path) -> None:
    async with asyncio.timeout(300), regions.town(tmp_path) as town:
        # Again if the machine stood still meanwhile: everything that is heard later is farther away.
        for words in ("Once", "Again", "At last"):
            heard = {name: await scenario(town, words, 4) for name, scenario in regions.SCENARIOS.items()}
            firsts = [min(each.first_ms for each in heard[name]) for name in ("hit", "joined", "miss", "central")]
            if firsts == sorted(firsts):
                break
    assert {name: len(each) for name, each in heard.items()} == dict.fromkeys(regions.NAMES, 4)
    soonest = {name: min(each.first_ms for each in found) for name, found in heard.items()}
    assert soonest["central"] >= 350 + regions.THINK_MS
    assert soonest["near"] >= 24 + regions.THINK_MS
    assert soonest["miss"] >= 20 + 4 + regions.THINK_MS
    assert 20 <= soonest["hit"] < soonest["joined"] < soonest["miss"] < soonest["central"]


def test_tables_and_picture_of_many() -> None:
    plan = many.Plan(1, 10, 2.0, (20,))
    streams = {"jitter_p50_ms": 1.0, "jitter_p99_ms": 9.0, "delay_p50_ms": 2.0, "delay_p99_ms": 3.0, "kib_each": 40.0}
    streams |= {"under_runs": 0.0, "busy": 0.5}
    waited = {"first_p50_ms": 5.0, "first_last_ms": 8.0, "fills": 1.0, "busy": 0.1}
    readings = [Reading(who, plan.streaming, 0, streams) for who in (many.DIRECT, "memory")]
    readings += [Reading(who, many.waiting(20), 0, waited) for who in ("memory", "varnish")]
    book = Book(readings)
    names = {"memory": "edge", "varnish": "a peer", "nginx": "not here"}
    first, second = many.tables(plan, book, names).split("\n\n")
    assert [line.split("  ")[0] for line in first.splitlines()[2:]] == ["the cluster itself", "edge"]
    assert [line.split("  ")[0] for line in second.splitlines()[2:]] == ["edge", "a peer"]
    assert [each.met(book) for each in many.asked(plan, "memory")] == [True, True, True, None]
    assert "8.00 ms" in draw("Misses", "", many.panels(plan, book, names, "memory"))


def test_what_the_listeners_print_is_read() -> None:
    printed = """{"whole": 3, "failed": 1, "late": 2, "under_runs": 1, "bytes": 9, "seconds": 2.0, "delay_ns": [[100, 3]],
 "jitter_ns": [[50, 2]], "first_ns": [[90, 4]]}
""".replace("\n ", " ")
    assert read_listeners(printed) == GotThrough(3, 1, 2, 1, 9, 2.0, [(100, 3)], [(50, 2)], [(90, 4)])


@pytest.mark.net
@no_compiler
@pytest.mark.parametrize("same", [False, True], ids=["a stream each", "one for all"])
def test_listeners_know_how_long_each_chunk_was_on_its_way(tmp_path: Path, same: bool) -> None:
    asked, chunks = question(f"{MARK} and no more"), 4
    (tmp_path / "requests").write_bytes(struct.pack("<I", len(asked)) + asked)
    how = (str(chunks * 4096), "4096", "20", "8")
    with compiled_cluster(compiled("cluster.c", tmp_path), *how) as cluster:
        listening = Listening(5, 50, same, 7, 10_000, 4096, 20)
        got = listeners(compiled("listeners.c", tmp_path), cluster.port, tmp_path / "requests", listening)
        assert says(cluster.port, "/asked") == b"5"
    assert (got.whole, got.failed, got.under_runs, got.bytes) == (5, 0, 0, 5 * chunks * 4096)
    counts = [sum(count for _, count in histogram) for histogram in (got.delay, got.jitter, got.first)]
    assert counts == [5 * chunks, 5 * (chunks - 1), 5]


@pytest.mark.parametrize(("value", "words"), [(0.234, "0.23 ms"), (12.34, "12.3 ms"), (345.6, "346 ms")])
def test_milliseconds(value: float, words: str) -> None:
    assert milliseconds(value) == words


def question(text: str) -> bytes:
    return tts_request(json.dumps({"text": text}).encode())


@pytest.mark.net
@no_compiler
@pytest.mark.parametrize("fresh", [False, True], ids=["kept", "fresh"])
@pytest.mark.parametrize("framing", ["chunked", "whole"])
def test_the_open_loop_follows_answers_of_either_framing(tmp_path: Path, framing: str, fresh: bool) -> None:
    asked = question(f"{MARK} and no more")
    (tmp_path / "requests").write_bytes(struct.pack("<I", len(asked)) + asked)
    with bare_cluster("4096", framing) as port:
        schedule = Schedule(200, 0.3, 4, 7, spin=False, fresh=fresh)
        load = own(compiled("openloop.c", tmp_path), port, tmp_path / "requests", schedule)
        there = int(says(port, "/asked") or 0)
    assert (load.failed, load.sent) == (0, there)
    assert 0 < load.answered <= load.sent
    assert sum(count for _, count in load.first) == sum(count for _, count in load.latency) == load.answered


@pytest.mark.net
@no_compiler
@pytest.mark.parametrize("pace", ["0", "20"], ids=["at once", "paced"])
def test_the_compiled_cluster_speaks_whole_wav_and_says_when(tmp_path: Path, pace: str) -> None:
    size, chunk = 20_000, 4096
    with compiled_cluster(compiled("cluster.c", tmp_path), str(size), str(chunk), "5", pace) as cluster:
        with Asking(cluster.port) as asking:
            for _ in range(2):
                before_ns = time.monotonic_ns()
                answer, body = asking.ask(question("Hello"))
                after_ns = time.monotonic_ns()
                assert (answer.status, body[:44], len(body)) == (200, wav(size)[:44], size)
                stamps = [struct.unpack_from("<8sq", body, at or 44) for at in range(0, size, chunk) if size - at >= 16]
                assert {mark for mark, _ in stamps} == {b"edgebell"}
                sent_ns = [at_ns for _, at_ns in stamps]
                assert before_ns + 5_000_000 <= sent_ns[0] <= sent_ns[-1] <= after_ns
                if pace != "0":
                    each_ns = chunk / 48_000 / 20 * 1e9
                    early = [at for at, at_ns in enumerate(sent_ns) if at_ns < before_ns + 5_000_000 + at * each_ns]
                    assert early == []
        assert says(cluster.port, "/asked") == b"2"
