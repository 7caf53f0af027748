"""The soak: its judge can tell every kind of wrong answer, its plan is the same for a seed, and a minute of it."""

from collections.abc import Mapping
from typing import Any

import pytest

from bench.soak.picture import picture
from bench.soak.plan import CLUSTERS, LONG, LONG_TEXTS, PLANNED, Fault, Way, calls, fields, parts
from bench.soak.plan import faults as schedule
from bench.soak.run import Plan, logged, soak, told
from bench.soak.slopes import line
from bench.soak.verdicts import AFTER_S, End, Happened, Heard, Ledger, Past, Purge, Verdict, explanation, judge
from edgecache.demo import tone
from edgecache.speech.sentences import SentenceLengths, split

ONE: Mapping[str, Any] = {"text": "One", "format": "pcm"}
OTHER: Mapping[str, Any] = {"text": "Other", "format": "pcm"}
TAKE: Mapping[str, Any] = {"text": "One", "demo": {"take": True}}
DUE = tone.audio(ONE)
TAKEN = tone.audio(TAKE, take=7)


@pytest.mark.parametrize(
    ("asked", "end", "body", "verdict"),
    [
        pytest.param(ONE, End.WHOLE, DUE, Verdict.RIGHT, id="right"),
        pytest.param(ONE, End.WHOLE, DUE[:-2], Verdict.PARTIAL, id="says it is whole and is not"),
        pytest.param(ONE, End.WHOLE, b"", Verdict.PARTIAL, id="says that nothing is whole"),
        pytest.param(ONE, End.WHOLE, DUE + DUE[:64], Verdict.WRONG, id="too long"),
        pytest.param(ONE, End.WHOLE, tone.audio(OTHER), Verdict.WRONG, id="another's"),
        pytest.param(ONE, End.WHOLE, DUE[:3000] + tone.audio(OTHER)[3000:], Verdict.WRONG, id="spliced"),
        pytest.param(ONE, End.BROKEN, DUE[:100], Verdict.BROKEN, id="broken"),
        pytest.param(ONE, End.BROKEN, tone.audio(OTHER)[:100], Verdict.WRONG, id="broken, and another's"),
        pytest.param(ONE, End.LEFT, DUE[:100], Verdict.LEFT, id="left"),
        pytest.param(ONE, End.LEFT, DUE[2:100], Verdict.WRONG, id="left, and not from the beginning"),
        pytest.param(ONE, End.REFUSED, b"", Verdict.REFUSED, id="refused"),
        pytest.param(ONE, End.UNREACHABLE, b"", Verdict.UNREACHABLE, id="cut off"),
        pytest.param(ONE, End.HUNG, b"", Verdict.HUNG, id="hung"),
        pytest.param(TAKE, End.WHOLE, TAKEN, Verdict.RIGHT, id="a take"),
        pytest.param(TAKE, End.WHOLE, TAKEN[:-2], Verdict.PARTIAL, id="a part of a take"),
        pytest.param(
            TAKE, End.WHOLE, TAKEN[:3000] + tone.audio(TAKE, take=8)[3000:], Verdict.WRONG, id="two takes spliced"
        ),
        pytest.param(TAKE, End.BROKEN, TAKEN[:50], Verdict.BROKEN, id="a take broken before its number"),
    ],
)
def test_it_tells_what_an_answer_came_to(asked: Mapping[str, Any], end: End, body: bytes, verdict: Verdict) -> None:
    assert judge(Heard(1, asked, Way.POST, 0.0, 1.0, end, body)) is verdict


@pytest.mark.parametrize(
    ("verdict", "fault", "until_s", "explained"),
    [
        pytest.param(Verdict.BROKEN, Fault.CUT, 20.5, True, id="while it lasts"),
        pytest.param(Verdict.BROKEN, Fault.CUT, 17.0, True, id="soon after"),
        pytest.param(Verdict.BROKEN, Fault.CUT, None, True, id="while nobody knows its end"),
        pytest.param(Verdict.BROKEN, Fault.CUT, 20.0 - AFTER_S - 0.1, False, id="long over"),
        pytest.param(Verdict.BROKEN, Fault.WORKER_KILLED, 20.0, True, id="by a killed worker"),
        pytest.param(Verdict.REFUSED, Fault.WORKER_KILLED, 20.0, False, id="a dead worker refuses nobody"),
        pytest.param(Verdict.UNREACHABLE, Fault.CUT, 20.0, False, id="a cluster closes no client's connection"),
        *(
            pytest.param(verdict, fault, 20.0, False, id=f"{fault.value}, {verdict.value}")
            for fault in (Fault.REDIS_STOPPED, Fault.REDIS_KILLED, Fault.REDIS_FULL, Fault.SLOW_READERS)
            for verdict in (Verdict.BROKEN, Verdict.REFUSED)
        ),
    ],
)
def test_only_what_can_have_done_it_explains_an_error(
    verdict: Verdict, fault: Fault, until_s: float | None, explained: bool
) -> None:
    heard = Heard(1, ONE, Way.POST, 20.0, 21.0, End.BROKEN)
    found = explanation(heard, verdict, [Happened(fault, "it", 10.0, until_s)])
    assert found is (fault if explained else None)


@pytest.mark.parametrize(
    ("purge", "began_s", "old"),
    [
        pytest.param(Purge(10.0, 11.0, None), 12.0, True, id="of everything"),
        pytest.param(Purge(10.0, 11.0, "tone"), 12.0, True, id="of its voice"),
        pytest.param(Purge(10.0, 11.0, "default"), 12.0, False, id="of another voice"),
        pytest.param(Purge(10.0, 11.0, None), 10.5, False, id="asked for before it was answered"),
        pytest.param(Purge(4.0, 11.0, None), 12.0, False, id="first heard after it was sent"),
    ],
)
def test_a_take_from_before_a_purge_is_old_after_it(purge: Purge, began_s: float, old: bool) -> None:
    asked = {**TAKE, "voice_id": "tone"}
    body, ledger = tone.audio(asked, take=7), Ledger()
    assert ledger.enter(Heard(1, asked, Way.POST, 4.0, 5.0, End.WHOLE, body), Past()) is Verdict.RIGHT
    again = ledger.enter(Heard(1, asked, Way.POST, began_s, 13.0, End.WHOLE, body), Past(purges=[purge]))
    assert again is (Verdict.OLD if old else Verdict.RIGHT)


def test_the_same_seed_plans_the_same_and_another_does_not() -> None:
    assert schedule(1, 300) == schedule(1, 300) != schedule(2, 300)
    assert list(calls(1, 20, 30)) == list(calls(1, 20, 30)) != list(calls(2, 20, 30))
    assert 500 < sum(1 for _ in calls(1, 20, 30)) < 700


def test_every_fault_comes_nothing_has_two_and_a_cluster_stays_well() -> None:
    planned = schedule(3, 3600)
    assert {each.fault for each in planned} == set(PLANNED)
    assert len(planned) > 3600 / 5
    for number, each in enumerate(planned):
        during = [other for other in planned[:number] if other.until_s > each.at_s]
        ill = [other.target for other in (*during, each)]
        assert len(ill) == len(set(ill))
        assert sum(target.startswith("cluster ") for target in ill) < CLUSTERS


def test_long_texts_are_cut_where_the_soak_thinks_they_are() -> None:
    for number in range(LONG, LONG + LONG_TEXTS):
        asked = fields(number)
        cut = [each.spoken for each in split(asked["text"], "en", SentenceLengths())]
        assert cut == [part["text"] for part in parts(asked)]
        assert len(cut) == 3


def test_no_text_is_like_another() -> None:
    assert len({str(sorted(fields(number).items(), key=str)) for number in range(2000)}) == 2000


@pytest.mark.parametrize(
    ("readings", "per_hour"),
    [
        pytest.param([(at, 5.0) for at in range(10)], 0.0, id="flat"),
        pytest.param([(at, 2.0 * at) for at in range(1000)], 7200.0, id="grows"),
        pytest.param([(at, 2.0 * at if at % 10 else 9999.0) for at in range(1, 100)], 7200.0, id="with wild ones"),
    ],
)
def test_a_line_is_not_bent_by_wild_readings(readings: list[tuple[float, float]], per_hour: float) -> None:
    found = line(readings)
    assert found is not None
    assert found.per_hour == pytest.approx(per_hour, rel=0.02, abs=0.1)


def test_errors_and_tracebacks_in_a_log_are_counted() -> None:
    lines = [
        '{"level":"info","msg":"serving"}',
        '{"level":"error","msg":"a worker died"}',
        '{"level":"error","msg":"oh","exception":"  File\\nValueError"}',
        "Traceback (most recent call last):",
    ]
    found = logged("\n".join(lines))
    assert found == {"a worker died": 1, "traceback: oh: ValueError": 1, "traceback outside of the log": 1}


@pytest.mark.slow
@pytest.mark.net
@pytest.mark.redis
@pytest.mark.timeout(240)
async def test_a_minute_of_load_and_faults_keeps_every_promise() -> None:
    result = await soak(Plan(seconds=45.0, rate=30.0, seed=1714), lambda line: None)

    assert {name: how for name, how in result.promises.items() if how} == {}, (told(result.ledger), result.ledger.shown)
    assert len({each.fault for each in result.happened}) >= 7
    assert result.ledger.verdicts[Verdict.RIGHT] > 500
    assert set(result.ledger.ways) == set(Way)
    assert result.ledger.caches["hit"] > 100
    assert result.kept.in_redis > 50
    assert all(many > 10 for many in result.kept.by_worker.values())
    assert "<svg" in picture(result)
