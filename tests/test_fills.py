"""Fills: how each ends, whom it asks, what clients are told, and what there is room for (rules 2, 3, 5, 7)."""

import asyncio

import pytest
from msgspec.structs import replace

from edgecache.clusters.fault import Fault, UpstreamFault
from edgecache.clusters.selection import NoneLeft
from edgecache.errors import ClientError, NodeError, SpeechError, UpstreamError
from edgecache.fill.flight import State
from edgecache.fill.priority import Priority
from tests import sounds
from tests.fill_rig import KEY, PIECES, SILENT, Listener, fault, order, rig, settle
from tests.scripted_clusters import CUT_WAV, WAV, Asking, Barrier, Reply, ScriptedClusters, Step

#: A header longer than what it is the header of.
LONG_HEADER = sounds.riff(sounds.chunk(b"LIST", bytes(5000)), sounds.fmt(), sounds.chunk(b"data", sounds.SOUND))


# How a fill ends.

ENDINGS: list[tuple[str, Reply, State, str, str]] = [
    ("whole", Reply(), State.SEALED, "whole", ""),
    ("whole, in pieces", Reply(PIECES), State.SEALED, "whole", ""),
    ("a close is its only end", Reply(framed=False), State.ENDED, "whole", "unframed"),
    ("ended as HTTP says, but cut", Reply([CUT_WAV]), State.ENDED, "whole", sounds.why("audio/wav", CUT_WAV)),
    ("closed, and cut", Reply([CUT_WAV], framed=False), State.BROKEN, "broken_off", ""),
    ("broke off", Reply([CUT_WAV, fault(Fault.BROKEN)]), State.BROKEN, "broken_off", ""),
    ("stalled", Reply([CUT_WAV, fault(Fault.STALLED)]), State.BROKEN, "broken_off", ""),
    ("trickled", Reply([CUT_WAV, fault(Fault.TRICKLED)]), State.BROKEN, "broken_off", ""),
    ("too long a rendering", Reply([WAV, *[WAV] * 4]), State.BROKEN, "broken_off", ""),
]


@pytest.mark.parametrize(
    ("reply", "state", "end", "why"), [row[1:] for row in ENDINGS], ids=[row[0] for row in ENDINGS]
)
async def test_only_what_is_proven_whole_is_kept(reply: Reply, state: State, end: str, why: str) -> None:
    async with rig(reply, max_rendering_bytes=4 * len(WAV)) as made:
        flight, listener = await made.listen()
        assert (flight.state, listener.end, flight.not_stored) == (state, end, why)
        sent = b"".join(step for step in reply.steps if isinstance(step, bytes))
        assert sent.startswith(listener.heard)
        assert len(made.clusters.asked) == 1  # what has been heard is never begun anew elsewhere
        assert [each.audio for each in made.kept] == ([WAV] if state is State.SEALED else [])
        assert flight.head is not None
        assert flight.head.stored == reply.framed


async def test_a_recording_says_how_it_was_made() -> None:
    async with rig() as made:
        passed_s = made.clock.advance
        steps: list[Step] = [
            lambda: passed_s(0.2),
            SILENT,
            lambda: passed_s(0.3),
            WAV[44:100],
            lambda: passed_s(0.5),
            WAV[100:],
        ]
        made.clusters.replies = [Reply(steps)]
        flight, _ = await made.listen()
        (kept,) = made.kept
        assert kept is flight.recording
        assert (kept.facts.media_type, kept.facts.container, kept.facts.cluster) == ("audio/wav", "wav", "c0")
        assert kept.facts.made_at == 1001.0
        assert kept.facts.made_in_ms == pytest.approx(1000)
        assert kept.facts.first_audio_ms == pytest.approx(500)
        assert flight.head is not None
        assert flight.head.first_byte_s == pytest.approx(0.2)
        assert (kept.namespace, kept.canonical) == ("default", order().utterance.canonical)
        assert made.clusters.asked == [Asking("c0", "Hello", {"Via": "test"})]
        (begun, ended) = made.clusters.heard_of
        assert (begun[0], begun[2]) == ("c0", None)
        assert begun[1] == pytest.approx(0.5)
        assert kept.facts.duration_ms
        assert ended[2] == pytest.approx(1000 / kept.facts.duration_ms)


# Whom it asks.

ELSEWHERE: list[tuple[str, Reply]] = [
    ("not audio by its type", Reply(media_type="text/html")),
    ("no type", Reply(media_type="")),
    ("JSON", Reply([b'{"detail":', None, b'"no"}'])),
    ("HTML", Reply([b"<html>sorry</html>"])),
    ("not what its type says", Reply([b"ID3" + bytes(200)])),
    ("nothing", Reply([])),
    ("no sample", Reply([SILENT])),
    ("cut in its first frame", Reply([sounds.FLAC[:50]], "audio/flac")),
    ("broke before the first sample", Reply([SILENT, fault(Fault.BROKEN)])),
    ("can't be reached", Reply(before=[fault(Fault.CONNECT)])),
    ("busy", Reply(before=[fault(Fault.BUSY, 503)])),
    ("failed", Reply(before=[fault(Fault.FAILED, 500)])),
    ("refuses our key", Reply(before=[fault(Fault.UNAUTHORIZED, 401)])),
    ("too slow", Reply(before=[fault(Fault.FIRST_BYTE_TIMEOUT)])),
]


@pytest.mark.parametrize("reply", [row[1] for row in ELSEWHERE], ids=[row[0] for row in ELSEWHERE])
async def test_rule_5_another_is_asked_before_the_first_audio_and_nothing_is_spliced(reply: Reply) -> None:
    async with rig(reply, Reply()) as made:
        flight, listener = await made.listen()
        assert [each.upstream for each in made.clusters.asked] == ["c0", "c1"]
        assert (flight.state, bytes(listener.heard)) == (State.SEALED, WAV)
        assert [each.facts.cluster for each in made.kept] == ["c1"]


async def test_no_audio_in_time_is_the_same_as_none() -> None:
    async with rig() as made:
        slow = Reply([None, SILENT, Barrier()], before=[lambda: made.clock.advance(5.1)])
        made.clusters.replies = [slow, Reply()]
        _, listener = await made.listen()
        assert bytes(listener.heard) == WAV
        made.clusters.replies = [slow]
        told = await made.refused()
        assert (told.status, told.code) == (504, "cluster_too_slow")


async def test_once_it_is_heard_a_rendering_may_take_its_time() -> None:
    async with rig() as made:
        late = Reply([WAV[:100], None, None, WAV[100:], None], before=[lambda: made.clock.advance(5.1)])
        made.clusters.replies = [late]
        flight, _ = await made.listen()
        assert (flight.state, len(made.clusters.asked)) == (State.SEALED, 1)


async def test_what_has_come_is_heard_before_the_rest_comes() -> None:
    barriers = [Barrier(), Barrier()]
    async with rig(Reply([WAV[:100], barriers[0], WAV[100:200], barriers[1], WAV[200:]])) as made:
        listener = Listener(made.fills.lead(order()))
        listening = asyncio.create_task(listener.listen())
        for barrier, heard in zip(barriers, (100, 200), strict=True):
            await barrier.reached()
            await settle()
            assert bytes(listener.heard) == WAV[:heard]
            barrier.open()
        await listening
        assert (bytes(listener.heard), listener.end) == (WAV, "whole")


@pytest.mark.parametrize(
    "reply",
    [Reply(before=[fault(Fault.REFUSED, 422)]), Reply([LONG_HEADER[:4000], None, LONG_HEADER[4000:]])],
    ids=["refused", "too large"],
)
async def test_what_any_cluster_would_say_is_asked_once(reply: Reply) -> None:
    async with rig(reply, max_rendering_bytes=4500) as made:
        await made.refused()
        assert len(made.clusters.asked) == 1


@pytest.mark.parametrize(("attempts", "upstreams", "asked"), [(2, 3, 2), (3, 2, 2), (3, 3, 3), (1, 3, 1)])
async def test_so_many_are_asked_and_the_last_one_is_told_of(attempts: int, upstreams: int, asked: int) -> None:
    failing = [Reply(before=[fault(Fault.FAILED, 500)])] * (asked - 1) + [Reply(before=[fault(Fault.CONNECT)])]
    async with rig(clusters=ScriptedClusters(failing, upstreams), attempts=attempts) as made:
        told = await made.refused()
        assert len(made.clusters.asked) == asked
        assert (told.status, told.code) == (503, "no_cluster")


UNUSABLE = (
    *(Fault.BROKEN, Fault.PROTOCOL, Fault.STATUS, Fault.UNAUTHORIZED),
    *(Fault.FAILED, Fault.ENCODED, Fault.NOT_AUDIO, Fault.TOO_LARGE),
)
TOLD: list[tuple[str, UpstreamFault, type[SpeechError], int, str, int | None]] = [
    *(
        (f"refused {n}", fault(Fault.REFUSED, n), ClientError, n, "refused_by_cluster", None)
        for n in (400, 404, 413, 422)
    ),
    ("refused 415", fault(Fault.REFUSED, 415), ClientError, 400, "refused_by_cluster", None),
    ("no first byte", fault(Fault.FIRST_BYTE_TIMEOUT), UpstreamError, 504, "cluster_too_slow", None),
    ("stalled", fault(Fault.STALLED), UpstreamError, 504, "cluster_too_slow", None),
    ("trickled", fault(Fault.TRICKLED), UpstreamError, 504, "cluster_too_slow", None),
    ("too long in all", fault(Fault.TOTAL_TIMEOUT), UpstreamError, 504, "cluster_too_slow", None),
    ("unreachable", fault(Fault.CONNECT), UpstreamError, 503, "no_cluster", 1),
    ("untrusted", fault(Fault.UNTRUSTED), UpstreamError, 503, "no_cluster", 1),
    ("misled", fault(Fault.MISLED), UpstreamError, 503, "no_cluster", 1),
    ("busy", fault(Fault.BUSY, 429), UpstreamError, 503, "clusters_busy", 1),
    ("busy for 2.1 s", fault(Fault.BUSY, 503, 2.1), UpstreamError, 503, "clusters_busy", 3),
    ("busy for no time", fault(Fault.BUSY, 503, 0.0), UpstreamError, 503, "clusters_busy", 1),
    ("busy for an hour", fault(Fault.BUSY, 503, 3600.0), UpstreamError, 503, "clusters_busy", 60),
    *((kind.value, fault(kind), UpstreamError, 502, "bad_cluster_answer", None) for kind in UNUSABLE),
]


@pytest.mark.parametrize(
    ("met", "kind", "status", "code", "retry_after_s"), [row[1:] for row in TOLD], ids=[row[0] for row in TOLD]
)
async def test_what_clients_are_told_of_a_fault(
    met: UpstreamFault, kind: type[SpeechError], status: int, code: str, retry_after_s: int | None
) -> None:
    async with rig(clusters=ScriptedClusters([Reply(before=[met])], upstreams=1)) as made:
        told = await made.refused()
        assert (type(told), told.status, told.code, told.retry_after_s) == (kind, status, code, retry_after_s)


def test_every_fault_has_a_row() -> None:
    assert {row[1].fault for row in TOLD} == set(Fault)


NOBODY = [
    ("all are down", NoneLeft(30.0, busy=False), UpstreamError, "no_cluster", 30),
    ("all are down, but not for long", NoneLeft(0.2, busy=False), UpstreamError, "no_cluster", 1),
    ("all are full", NoneLeft(1.0, busy=True), NodeError, "clusters_busy", 1),
    ("all ask for patience", NoneLeft(7.3, busy=True), NodeError, "clusters_busy", 8),
]


@pytest.mark.parametrize(
    ("none_left", "kind", "code", "retry_after_s"), [row[1:] for row in NOBODY], ids=[row[0] for row in NOBODY]
)
async def test_nobody_can_be_asked(none_left: NoneLeft, kind: type, code: str, retry_after_s: int) -> None:
    async with rig(clusters=ScriptedClusters(upstreams=0, none_left=none_left)) as made:
        told = await made.refused()
        assert (type(told), told.status, told.code) == (kind, 503, code)
        assert told.retry_after_s == retry_after_s


ROUTED = [
    ("nobody was asked", [], NoneLeft(3.0, busy=False, barred=("eu-only",)), "no_cluster", "The route eu-only keeps"),
    ("all are full", [], NoneLeft(9.0, busy=True, barred=("eu-only",)), "clusters_busy", "The route eu-only keeps"),
    (
        "the one that may be asked failed",
        [Reply(before=[fault(Fault.CONNECT)])],
        NoneLeft(1.0, busy=False, barred=("eu-only", "german")),
        "no_cluster",
        "The routes eu-only, german keep",
    ),
]


@pytest.mark.parametrize(
    ("replies", "none_left", "code", "told"), [row[1:] for row in ROUTED], ids=[row[0] for row in ROUTED]
)
async def test_the_route_that_kept_others_from_being_asked_is_named(
    replies: list[Reply], none_left: NoneLeft, code: str, told: str
) -> None:
    async with rig(clusters=ScriptedClusters(replies, upstreams=len(replies), none_left=none_left)) as made:
        error = await made.refused()
        assert (error.status, error.code) == (503, code)
        assert told in error.message


async def test_a_flight_is_as_urgent_as_its_most_urgent_listener() -> None:
    barrier = Barrier()
    async with rig(Reply([barrier, WAV])) as made:
        flight = made.fills.lead(replace(order(), priority=Priority.WARM_UP))
        for joining, becomes in ((Priority.PREFETCH, Priority.PREFETCH), (Priority.WARM_UP, Priority.PREFETCH)):
            assert made.fills.join(KEY, joining) is flight
            assert flight.priority is becomes
        assert made.fills.join(KEY) is flight
        assert flight.priority is Priority.INTERACTIVE
        barrier.open()
        await made.fills.drain()


# Room (rule 7).


async def test_no_room_before_the_first_audio_is_told_as_that_and_nobody_else_is_asked() -> None:
    async with rig(Reply([LONG_HEADER[:4000], LONG_HEADER[4000:]]), max_held_bytes=4500) as made:
        told = await made.refused()
        assert (type(told), told.status, told.code, told.retry_after_s) == (NodeError, 503, "busy", 1)
        assert len(made.clusters.asked) == 1


async def test_no_room_later_breaks_the_flight_off() -> None:
    async with rig(Reply([WAV[:1000], WAV[1000:]]), max_held_bytes=1500) as made:
        flight, listener = await made.listen()
        assert (flight.state, listener.end, bytes(listener.heard)) == (State.BROKEN, "busy", WAV[:1000])


async def test_a_full_edge_begins_nothing_until_someone_has_heard_enough() -> None:
    async with rig(max_held_bytes=len(WAV)) as made:
        flight = made.fills.lead(order())
        slow = Listener(flight, ready=asyncio.Event())
        reading = asyncio.create_task(slow.listen())
        await made.fills.drain()
        assert (flight.state, made.fills.held_bytes) == (State.SEALED, len(WAV))
        with pytest.raises(NodeError, match="busy"):
            made.fills.lead(order("another"))
        reading.cancel()
        await asyncio.wait([reading])
        assert made.fills.held_bytes == 0
        await made.listen(order("another"))


async def test_flights_have_a_bound() -> None:
    barrier = Barrier()
    async with rig(Reply([barrier, WAV]), max_flights=2) as made:
        flights = [made.fills.lead(order(str(n)), alone=bool(n)) for n in range(2)]
        with pytest.raises(NodeError, match="busy"):
            made.fills.lead(order("one more"))
        barrier.open()
        await made.fills.drain()
        assert {flight.state for flight in flights} == {State.SEALED}
