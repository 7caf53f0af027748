"""`edgecache warm`, as a process, against real edges and against a scripted one."""

import asyncio
import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgecache.commands.warming import Pace, patience_s
from edgecache.delivery.auth import Auth, new_key
from edgecache.delivery.limits import RequestLimits
from tests import sounds
from tests.command_line import at_terminal
from tests.commands import Ran, begin, end, ran
from tests.houses import PATIENT, House, house, keys_file
from tests.scripted_upstream import ScriptedUpstream, closed_port, head

pytestmark = pytest.mark.net
TEXTS = ("Good morning.", "Good evening.", "Good night.")
#: Says nothing more after its first bytes, until it is released.
STALLING = {"text": "Wait for it.", "demo": {"stall_after_bytes": 100}}


def texts(directory: Path, *lines: str, name: str = "phrases.txt") -> Path:
    path = directory / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def jsonl(directory: Path, *asked: Mapping[str, Any]) -> Path:
    return texts(directory, *(json.dumps(each) for each in asked), name="phrases.jsonl")


def states(directory: Path) -> set[str]:
    return {each.name for each in directory.glob("*.warm")}


async def warm(here: House, *arguments: object, stdin: bytes | None = None) -> Ran:
    return await ran("warm", *map(str, arguments), "--url", here.url, "--json", stdin=stdin)


async def test_what_was_warmed_is_a_hit_for_whoever_asks(tmp_path: Path) -> None:
    async with house() as here:
        made = await warm(here, texts(tmp_path, *TEXTS, "", TEXTS[0]))
        again = await warm(here, tmp_path / "phrases.txt")
        heard = [await here.say(text) for text in TEXTS]
    assert (made.code, made.told["made"], made.told["utterances"], made.told["duplicates"]) == (0, 3, 3, 1)
    assert made.told["characters"] == made.told["characters_made"] == sum(map(len, TEXTS))
    assert (again.code, again.told["made"], again.told["hits"]) == (0, 0, 3)
    assert all("; hit;" in each.cache for each in heard)
    assert here.origin.counters.syntheses == 3
    assert made.told["received_bytes"] == sum(len(each.body) for each in heard)
    assert not (tmp_path / "phrases.txt.warm").exists(), "nothing is left to go on with"


async def test_every_combination_of_what_a_line_leaves_open_is_asked_for(tmp_path: Path) -> None:
    lines = ("text,voice_id,pitch,sample_rate", "One,,,", 'Two,tone,"1.5",', "Three,,low,16000", '"Four, and\nfive",,,')
    options = ("--voice", "default", "--voice", "tone", "--format", "wav", "--format", "pcm", "--language", "de")
    async with house() as here:
        made = await warm(here, texts(tmp_path, *lines, name="phrases.csv"), *options)
        asked: dict[str, Any] = {"language": "de"}
        for said in (
            await here.say("One", voice_id="tone", format="pcm", **asked),
            await here.say("Two", voice_id="tone", pitch=1.5, format="wav", **asked),
            await here.say("Three", voice_id="default", pitch="low", sample_rate=16000, format="pcm", **asked),
            await here.say("Four, and\nfive", voice_id="default", format="wav", **asked),
        ):
            assert "; hit;" in said.cache
    assert (made.code, made.told["made"]) == (0, 4 + 2 + 4 + 4)


BAD_LINES = [
    ("phrases.txt", b"One\nT\xffo\nThree\n", {2: "not UTF-8 (at byte 1)"}),
    ("phrases.txt", "\ufeffOne\r\n  \r\nThree\u2028and a half\r\n".encode(), {}),
    (
        "phrases.jsonl",
        b'{"text": "One"}\n{"text": "Two"\n["Two"]\n{"voice_id": "ann"}\n{"text": "Three", "_failed": {"line": "x"}}\n'
        b'{"text": "a", "text": "b"}\n{"text": "\xff"}\n{"text": " "}\n',
        {2: "not JSON", 3: "JSON object", 4: "text is missing", 6: "twice", 7: "UTF-8", 8: "empty"},
    ),
    (
        "phrases.csv",
        b'text,sample_rate\nOne,\nTwo\nTwo,fast\nT\xffo,\n"Two" or,\n"Three",\n"Four,\nFive,\n',
        {3: "1 cells, the header 2", 4: "sample_rate must be", 5: "not UTF-8", 6: "can't be read", 8: "can't be read"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "bad"), BAD_LINES, ids=["txt", "txt of Windows", "jsonl", "csv"])
async def test_a_bad_line_is_told_by_its_place_and_costs_no_other(
    tmp_path: Path, name: str, content: bytes, bad: Mapping[int, str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    async with house() as here:
        made = await warm(here, path)
    assert made.told["made"] == 2
    assert made.told["bad_lines"] == len(bad)
    for told, (line, why) in zip(made.told["bad"], bad.items(), strict=True):
        assert told["line"] == f"{path}:{line}"
        assert why in told["message"]
        assert f"{path}:{line}: " in made.talk
    assert made.code == (4 if bad else 0)


async def test_an_interrupted_warm_up_goes_on_where_it_stopped(tmp_path: Path) -> None:
    asked = [{"text": text} for text in TEXTS]
    path = jsonl(tmp_path, asked[0], asked[1], STALLING, asked[2])
    retry = tmp_path / "retry.jsonl"
    async with house(timeouts=PATIENT) as here:
        arguments = ("warm", str(path), "--url", here.url, "--json", "--concurrency", "1", "--retry-file", str(retry))
        process = await begin(*arguments)
        await here.origin.until(lambda counters: counters.requests == 3)
        process.send_signal(signal.SIGINT)
        stopped = await end(process)
        state = (tmp_path / "phrases.jsonl.warm").read_text()
        here.origin.release()
        await here.origin.until(lambda counters: not counters.in_flight)
        went_on = await ran(*arguments)
    assert (stopped.code, stopped.told["made"], stopped.told["interrupted"]) == (130, 2, True)
    assert stopped.told["state"] == f"{path}.warm"
    assert len(state.splitlines()) == 1 + 2
    assert not any(text in state for text in TEXTS)
    assert (went_on.code, went_on.told["done_before"], went_on.told["hits"], went_on.told["made"]) == (0, 2, 1, 1)
    assert "2 of 4 were done before" in went_on.talk
    assert here.origin.counters.syntheses == 4
    assert not (tmp_path / "phrases.jsonl.warm").exists()
    assert retry.read_text() == ""


async def test_what_failed_is_kept_with_its_reason_and_can_be_retried(tmp_path: Path) -> None:
    broken = {"text": "Broken.", "demo": {"status": 400}}
    path, retry = jsonl(tmp_path, {"text": TEXTS[0]}, broken, {"text": "x" * 200}), tmp_path / "retry.jsonl"
    async with house(limits=RequestLimits(text_characters=100)) as here:
        first = await warm(here, path, "--retry-file", retry)
        kept = [json.loads(line) for line in retry.read_text().splitlines()]
        second = await warm(here, retry, "--retry-file", retry)
    assert (first.code, first.told["made"], first.told["failed"]) == (4, 1, 2)
    assert [each.pop("_failed")["line"] for each in kept] == [f"{path}:2", f"{path}:3"]
    assert kept == [broken, {"text": "x" * 200}]
    assert [each["code"] for each in first.told["failures"]] == ["refused_by_cluster", "text_too_long"]
    assert (second.code, second.told["utterances"], second.told["failed"]) == (1, 2, 2)
    assert [json.loads(line)["_failed"]["line"] for line in retry.read_text().splitlines()] == [
        f"{retry}:1",
        f"{retry}:2",
    ]
    assert states(tmp_path) == {"phrases.jsonl.warm"}, "where nothing was done there is nothing to go on from"


async def test_a_retry_file_that_is_read_and_written_loses_no_line(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"text": TEXTS[0]}, STALLING, {"text": TEXTS[1]})
    before = path.read_text()
    async with house(timeouts=PATIENT) as here:
        process = await begin("warm", str(path), "--url", here.url, "--concurrency", "1", "--retry-file", str(path))
        await here.origin.until(lambda counters: counters.requests == 2)
        process.send_signal(signal.SIGINT)
        stopped = await end(process)
        here.origin.release()
        interrupted = path.read_text()
        path.write_text(before.replace("Wait for it.", "\\ud800") + "no JSON\n")
        bad = await warm(here, path, "--retry-file", path)
    assert stopped.code == 130
    assert interrupted == before
    assert bad.told["bad_lines"] == 2
    assert "no JSON" in path.read_text()


async def test_a_dry_run_counts_and_has_nothing_made(tmp_path: Path) -> None:
    async with house() as here:
        await here.say(TEXTS[0])
        looked = await warm(here, texts(tmp_path, *TEXTS), "--dry-run")
        asked = here.origin.counters.requests
    assert (looked.code, looked.told["hits"], looked.told["missing"], looked.told["made"]) == (0, 1, 2, 0)
    assert looked.told["characters_missing"] == len(TEXTS[1]) + len(TEXTS[2])
    assert asked == 1
    assert not states(tmp_path)


async def test_an_edge_that_asks_for_patience_gets_it(tmp_path: Path) -> None:
    loop, came = asyncio.get_running_loop(), list[float]()
    busy = head("503 Service Unavailable", "Retry-After: 1", "Content-Length: 0")
    told = (
        "Content-Type: audio/wav",
        "Cache-Status: e; fwd=uri-miss; stored; ttl=9",
        f"Content-Length: {len(sounds.WAV)}",
    )
    there = head("200 OK", *told) + sounds.WAV
    note = lambda: came.append(loop.time())  # noqa: E731
    async with ScriptedUpstream([note, there], [note, busy], [note, there]) as edge:
        made = await ran("warm", str(texts(tmp_path, *TEXTS)), "--url", edge.url, "--json", "--concurrency", "1")
    assert (made.code, made.told["made"], made.told["retries"]) == (0, 3, 1)
    assert len(came) == 4
    assert came[2] - came[1] >= 1.0
    assert {each.headers["priority"] for each in edge.requests} == {"u=7"}
    assert [json.loads(each.body)["text"] for each in edge.requests] == [TEXTS[0], TEXTS[1], TEXTS[1], TEXTS[2]]


NOT_KEPT = [
    ("e; fwd=bypass; detail=c0", "not_kept"),
    ("e; fwd=stale; fwd-status=503; ttl=-9; detail=stale-if-error", "stale"),
    ("", "no_cache"),
]


@pytest.mark.parametrize(("cache_status", "code"), NOT_KEPT, ids=[code for _, code in NOT_KEPT])
async def test_what_is_not_kept_is_not_done(tmp_path: Path, cache_status: str, code: str) -> None:
    told = (*([f"Cache-Status: {cache_status}"] if cache_status else ()), f"Content-Length: {len(sounds.WAV)}")
    async with ScriptedUpstream([head("200 OK", "Content-Type: audio/wav", *told) + sounds.WAV]) as edge:
        made = await ran("warm", str(texts(tmp_path, "One")), "--url", edge.url, "--json")
    assert (made.code, [each["code"] for each in made.told["failures"]]) == (1, [code])


async def test_what_does_not_prove_whole_is_not_done(tmp_path: Path) -> None:
    # A quarter of a second for so many words is no speech.
    asked = {"text": "word " * 100, "demo": {"bytes": 600}}
    async with house() as here:
        made = await warm(here, jsonl(tmp_path, {"text": "One"}, asked))
        counted = {(each.kind.route, each.kind.method) for each in here.node.tally}
    assert (made.code, made.told["made"]) == (4, 1)
    assert [each["code"] for each in made.told["failures"]] == ["not_whole"]
    assert counted == {("warm-up", "POST"), ("warm-up", "HEAD")}


async def test_an_api_key_has_its_own_and_a_wrong_one_ends_it(tmp_path: Path) -> None:
    key, line = new_key("ann", None)
    auth = Auth(keys_file=str(keys_file(tmp_path, line)))
    async with house(auth=auth) as here:
        refused = await warm(here, texts(tmp_path, *TEXTS), "--api-key", "wrong")
        made = await warm(here, tmp_path / "phrases.txt", "--api-key", key)
        heard = await here.say(TEXTS[0], headers={"X-API-Key": key})
    assert refused.code == 1
    assert "401" in refused.talk
    assert made.told["made"] == 3
    assert "; hit;" in heard.cache


async def test_wrong_uses_say_what_is_wrong(tmp_path: Path) -> None:
    phrases = texts(tmp_path, "One")
    gone = f"http://127.0.0.1:{closed_port()}"
    for code, why, arguments in (
        (2, "can't be read", ("warm", str(tmp_path / "none.txt"))),
        (2, "begins with a header", ("warm", str(texts(tmp_path, "One,", name="a.csv")))),
        (2, "is no state", ("warm", str(phrases), "--state", str(phrases))),
        (2, "--retry-file", ("warm", str(phrases), "--retry-file", str(tmp_path))),
        (3, "no edge answers", ("warm", str(phrases), "--url", gone)),
        (2, "no HTTP header can carry", ("warm", str(phrases), "--url", gone, "--api-key", "a\nb")),
    ):
        ended = await ran(*arguments)
        assert ended.code == code, ended.talk
        assert why in ended.talk
        assert "Traceback" not in ended.talk


async def test_stdin_has_no_state_of_its_own(tmp_path: Path) -> None:
    async with house() as here:
        made = await warm(here, "-", "--kind", "jsonl", stdin=b'{"text": "One"}\n{"text": ""}\n')
    assert (made.code, made.told["made"], made.told["state"]) == (4, 1, None)
    assert made.told["bad"][0]["line"] == "stdin:2"


async def test_people_see_a_bar_and_pipes_see_lines(tmp_path: Path) -> None:
    path = texts(tmp_path, *TEXTS)
    async with house() as here:
        seen = await asyncio.to_thread(at_terminal, "warm", str(path), "--url", here.url)
        piped = await ran("warm", str(path), "--url", here.url)
    assert "━" in seen
    assert "3/3" in seen
    assert "3 made" in seen
    assert piped.talk.splitlines()[-1] == "3 of 3: 3 hits"
    assert piped.out.startswith(f"3 utterances, {sum(map(len, TEXTS))} characters: 0 made, 3 were there")


def test_the_pace_is_kept_and_a_hold_holds_all() -> None:
    pace = Pace(per_s=4)
    assert pace.wait_s(10.0) == 0
    assert pace.wait_s(10.0) == 0.25
    assert pace.wait_s(10.25) == 0
    pace.hold(12.0)
    assert pace.wait_s(11.0) == 1.0
    assert pace.wait_s(12.0) == 0
    assert Pace(None).wait_s(1.0) == 0


@pytest.mark.parametrize(
    ("status", "retry_after", "tried", "wait_s"),
    [
        (503, "7", 1, 7.0), (429, "", 1, 1.0), (502, "", 3, 4.0), (0, "", 2, 2.0),
        (503, "7", 5, 7.0),
        (503, "7", 20, None), (503, "", 5, None), (502, "7", 5, None),
        (503, "3600", 1, None), (400, "", 1, None), (413, "1", 1, None),
    ],
)  # fmt: skip
def test_who_is_asked_again_and_when(status: int, retry_after: str, tried: int, wait_s: float | None) -> None:
    assert patience_s(status, retry_after, tried) == wait_s
