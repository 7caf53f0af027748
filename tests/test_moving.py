"""`edgecache export` and `import`, as processes, between edges that have nothing in common, and what is not let in."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from edgecache.cache.key import Key, Naming, VoiceRevision
from edgecache.cache.recording import Facts, Recording, etag, frame
from edgecache.cache.shipment import Kind, Part, Reader, part, told
from edgecache.delivery.auth import Auth, new_key
from edgecache.node import Node
from edgecache.ops.access import AdminAccess
from edgecache.ops.admin import Admin
from edgecache.ops.daemon import NOTHING, Alone, NoWorker, Told
from edgecache.settings import Cache
from edgecache.speech.utterance import utterance
from edgecache.store import moving as store_moving
from edgecache.store.moving import packed
from edgecache.store.tiers import RedisAccess
from tests.commands import Ran, ran
from tests.daemon import Daemon, config, daemons
from tests.houses import House, cluster, house, keys_file, running, settings, with_redis
from tests.redis_houses import said, written
from tests.redis_server import RedisServer
from tests.sounds import WAV

pytestmark = pytest.mark.net
TEXTS = ("Good morning.", "Good evening.", "Good night.")


def admin(node: Node) -> tuple[str, str]:
    return "--admin", f"http://127.0.0.1:{node.admin_port}"


async def exported(node: Node, path: Path, *arguments: str) -> Ran:
    return await ran("export", str(path), "--json", *arguments, *admin(node))


async def imported(node: Node, path: Path | str, stdin: bytes | None = None) -> Ran:
    return await ran("import", str(path), "--json", *admin(node), stdin=stdin)


@asynccontextmanager
async def elsewhere(**changed: Any) -> AsyncIterator[House]:
    """Another edge, whose clusters nobody reaches."""
    async with (
        cluster() as origin,
        running(settings("http://127.0.0.1:9", **changed)) as node,
        aiohttp.ClientSession() as client,
    ):
        yield House(origin, node, client)


@pytest.fixture
def other_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        yield server.start()
    finally:
        server.close()


@pytest.mark.redis
async def test_what_one_region_has_is_a_hit_in_another_byte_for_byte(
    tmp_path: Path, redis_server: RedisServer, other_redis: RedisServer
) -> None:
    path, line = tmp_path / "syd.warm", new_key("acme", None)
    auth = Auth(keys_file=str(keys_file(tmp_path, line[1], new_key("other", None)[1])))
    mine = {"X-API-Key": line[0]}
    async with house(cache=with_redis(redis_server.url), auth=auth) as here:
        due = [await here.say(text, headers=mine, format=kind) for text in TEXTS for kind in ("wav", "pcm")]
        out = await exported(here.node, path)
    secret = Naming(secret="another", prefix="sin:")
    async with elsewhere(cache=replace(with_redis(other_redis.url), key=secret), auth=auth) as there:
        back = await imported(there.node, path)
        again = await imported(there.node, path)
        heard = [await there.say(each.asked["text"], headers=mine, format=each.asked["format"]) for each in due]
        stranger = await there.say(TEXTS[0], headers={"X-API-Key": "none"})
        await written(there.node)
        keys = other_redis.call("KEYS", "sin:*")
    assert (out.code, out.told["recordings"], out.told["complete"]) == (0, 6, True)
    assert out.told["bytes"] == path.stat().st_size
    assert (back.code, back.told["imported"], back.told["complete"], back.told["named_anew"]) == (0, 6, True, True)
    assert (again.code, again.told["imported"], again.told["newer_here"]) == (0, 0, 6)
    assert [each.body for each in heard] == [each.body for each in due]
    assert all("; hit;" in each.cache for each in heard)
    assert stranger.status == 401
    assert len([each for each in keys if len(each) == 4 + 64]) == 6


async def test_only_what_is_asked_for_is_exported(tmp_path: Path) -> None:
    async with house() as here:
        await here.say("One", voice_id="tone", language="de")
        await here.say("Two", voice_id="tone")
        await here.say("Three")
        told = {
            arguments: (await exported(here.node, tmp_path / "x", *arguments)).told["recordings"]
            for arguments in (
                (),
                ("--voice", "tone"),
                ("--voice", "tone", "--language", "de"),
                ("--namespace", "default"),
                ("--namespace", "key-acme"),
            )
        }
        refused = await here.client.get(f"http://127.0.0.1:{here.node.admin_port}/export?voyce=tone")
        assert refused.status == 400
    assert list(told.values()) == [3, 2, 1, 3, 0]


async def test_many_pages_and_stdin_and_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_moving, "PAGE_BYTES", 30_000)
    async with house() as here, elsewhere() as there:
        for number in range(12):
            await here.say(f"Line {number}", demo={"bytes": 20_000})
        out = await ran("export", "-", "--json", *admin(here.node))
        back = await imported(there.node, "-", stdin=out.raw)
    assert json.loads(out.talk)["recordings"] == 12
    assert back.told["imported"] == 12
    assert not list(tmp_path.iterdir())


@pytest.mark.redis
async def test_what_only_redis_has_is_exported_if_asked_for(tmp_path: Path, redis_server: RedisServer) -> None:
    async with house(cache=with_redis(redis_server.url)) as here:
        for number in range(30):
            await said(here, f"Line {number}")
        await written(here.node)
        redis_server.call("SET", "tts:no key", "x")
        redis_server.call("SET", "tts:" + "0" * 64, "broken")
        for key in here.node._memory.keys()[:20]:
            here.node._memory.discard(key)
        memory = await exported(here.node, tmp_path / "memory")
        both = await exported(here.node, tmp_path / "both", "--redis")
    assert memory.told["recordings"] == 10
    assert both.told["recordings"] == 30
    assert (both.code, both.told["left_out"]) == (4, 1), "one can't be read, and that is said"


async def test_without_redis_there_is_nothing_to_search(tmp_path: Path) -> None:
    async with house() as here:
        await here.say("One")
        out = await exported(here.node, tmp_path / "x", "--redis")
    assert (out.code, out.told["recordings"], out.told["why"]) == (4, 1, "this edge has no Redis")


async def test_what_is_too_large_to_travel_is_left_out_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_moving, "MAX_PART_BYTES", 60_000)
    async with house() as here:
        for number, size_bytes in enumerate((50_000, 100_000, 50_000, 50_000)):
            await here.say(f"Line {number}", demo={"bytes": size_bytes})
        out = await exported(here.node, tmp_path / "x")
    assert (out.code, out.told["recordings"], out.told["left_out"], out.told["complete"]) == (4, 3, 1, False)


class ScriptedDaemon(Alone):
    """The n-th call is answered by the n-th list; an empty one by nobody."""

    def __init__(self, *answers: list[Told]) -> None:
        super().__init__({})
        self.answers = list(answers)

    async def ask(self, call: str, argument: Told = NOTHING) -> list[Told]:
        found = self.answers.pop(0)
        if not found:
            raise NoWorker("No worker answers; one is being started.")
        return found

    async def ask_one(self, call: str, argument: Told = NOTHING) -> Told:
        return (await self.ask(call, argument))[0]


@asynccontextmanager
async def answering(daemon: ScriptedDaemon) -> AsyncIterator[str]:
    """An admin listener of this daemon."""
    admin_of = Admin(AdminAccess(port=0), daemon)
    await admin_of.start()
    try:
        yield f"http://127.0.0.1:{admin_of.port}"
    finally:
        await admin_of.close()


def page(worker: str, number: int, *, more: bool, lost: bool = False) -> Told:
    key = f"{number:02x}" * 32
    records = [] if lost else [(key, f"frame {number}".encode())]
    return {"worker": worker, "naming": "n", "records": records, "left_out": 0, "more": more, "lost": lost}


GONE: list[tuple[str, list[list[Told]]]] = [
    ("it does not answer", [[page("a", 1, more=True), page("b", 2, more=True)], [page("a", 3, more=False)]]),
    ("another answers for it", [[page("a", 1, more=True)], [page("c", 9, more=False, lost=True)]]),
    ("nobody answers", [[page("a", 1, more=True), page("b", 1, more=False)], []]),
]


@pytest.mark.parametrize("pages", [row[1] for row in GONE], ids=[row[0] for row in GONE])
async def test_a_worker_that_goes_away_in_an_export_is_told(tmp_path: Path, pages: list[list[Told]]) -> None:
    due = {key for told in pages for each in told for key, _ in cast("list[tuple[str, bytes]]", each["records"])}
    async with answering(ScriptedDaemon(*pages)) as url:
        out = await ran("export", str(tmp_path / "x"), "--json", "--admin", url)
    assert (out.code, out.told["complete"], out.told["recordings"]) == (4, False, len(due))
    assert "a worker went away" in out.told["why"]


async def test_recordings_that_no_worker_took_are_told(tmp_path: Path) -> None:
    ready = dict.fromkeys(store_moving.OUTCOMES, 0) | {"why": "", "shared": True, "naming": "n"}
    (tmp_path / "x").write_bytes(
        told(Kind.HEADING, {"format": 1})
        + part(Kind.RECORDING, b"x")
        + told(Kind.ENDING, {"recordings": 1, "complete": True})
    )
    async with answering(ScriptedDaemon([ready], [])) as url:
        daemonless = await ran("import", str(tmp_path / "x"), "--json", "--admin", url)
    assert (daemonless.code, daemonless.told["unanswered"], daemonless.told["complete"]) == (1, 1, False)


# What was damaged on the way.


async def stream_of(here: House) -> bytes:
    for text in TEXTS:
        await here.say(text)
    async with here.client.get(f"http://127.0.0.1:{here.node.admin_port}/export") as answer:
        return await answer.read()


def second(stream: bytes) -> int:
    """In the middle of the second recording's audio."""
    found = [each for each in Reader().feed(stream) if isinstance(each, Part) and each.kind is Kind.RECORDING]
    return found[1].at + len(found[1].content) // 2


def flipped(stream: bytes) -> bytes:
    at = second(stream)
    return stream[:at] + bytes([stream[at] ^ 1]) + stream[at + 1 :]


DAMAGE: list[tuple[str, Callable[[bytes], bytes], int, str]] = [
    ("a bit changed", flipped, 2, "a part was changed"),
    ("bytes lost", lambda stream: stream[: second(stream)] + stream[second(stream) + 100 :], 2, "a part was changed"),
    ("bytes put in", lambda stream: stream[: second(stream)] + b"\x8eECS" + stream[second(stream) :], 2, "changed"),
    ("cut", lambda stream: stream[: second(stream)], 1, "a part is cut short"),
    ("without its end", lambda stream: stream[: stream.rindex(b"\x8eECS")], 3, ""),
    ("without its beginning", lambda stream: stream[200:], 2, "something that is no part"),
    ("something behind it", lambda stream: stream + b"and more of it", 3, "something that is no part"),
]


@pytest.mark.parametrize(("damage", "whole", "why"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
async def test_a_damaged_file_gives_what_is_whole_and_says_what_is_not(
    tmp_path: Path, damage: Callable[[bytes], bytes], whole: int, why: str
) -> None:
    async with house() as here, elsewhere() as there:
        (tmp_path / "x").write_bytes(damage(await stream_of(here)))
        back = await imported(there.node, tmp_path / "x")
        people = await ran("import", str(tmp_path / "x"), *admin(there.node))
        hits = [await there.say(text) for text in TEXTS]
    assert (back.code, back.told["imported"], back.told["complete"]) == (4, whole, False)
    assert why in str(back.told["faults"])
    assert why in people.talk
    assert people.code == 4
    assert sum(each.status == 200 for each in hits) == whole


CANONICAL = utterance({"text": "Hello", "voice_id": "default", "language": "en", "speaking_rate": 1}).canonical
MP3 = utterance({"text": "Hello", "format": "mp3"}).canonical
NOW_S = 1_000_000.0


def recording(**changed: Any) -> Recording:
    audio = changed.pop("audio", WAV)
    names = {name: changed.pop(name) for name in ("namespace", "canonical") if name in changed}
    facts: dict[str, Any] = {
        "media_type": "audio/wav",
        "container": "wav",
        "duration_ms": 1,
        "sample_rate_hz": 1,
        "channels": 1,
    }
    made: dict[str, Any] = {
        "made_at": NOW_S,
        "made_in_ms": 1.0,
        "first_audio_ms": 1.0,
        "cluster": "c0",
        "etag": etag(audio),
    }
    kept: dict[str, Any] = {"namespace": "default", "canonical": CANONICAL} | names
    return Recording(key=Key(""), facts=Facts(**(facts | made | changed)), audio=audio, **kept)


UNFIT: list[tuple[str, Recording, str]] = [
    ("audio of others", recording(etag=etag(b"other")), "facts are not about its audio"),
    ("a head's end in its type", recording(media_type="audio/wav\r\nX: y"), "facts are not about its audio"),
    ("made tomorrow", recording(made_at=NOW_S + 3600), "made in the future"),
    ("made never", recording(made_in_ms=float("nan")), "facts are not about its audio"),
    ("half a WAV", recording(audio=WAV[:-500]), "its audio is not whole"),
    ("no audio", recording(audio=b'{"error": "none"}'), "its audio is none"),
    ("a text for audio", recording(media_type="text/html"), "its audio is none"),
    ("not what was asked for", recording(canonical=MP3), "its audio is none"),
    ("no utterance", recording(canonical=b"\x01d\x00\x00\x00\x00"), "not spelled as ours"),
    ("cut utterance", recording(canonical=CANONICAL[:-1]), "can't be read"),
    ("utterance in disorder", recording(canonical=utterance({"text": "Hello"}).canonical + b"x"), "can't be read"),
]  # fmt: skip


@pytest.mark.parametrize(("unfit", "why"), [row[1:] for row in UNFIT], ids=[row[0] for row in UNFIT])
async def test_rule_2_what_is_whole_on_paper_only_is_not_taken_in(unfit: Recording, why: str) -> None:
    with pytest.raises(store_moving.Unfit, match=why):
        await store_moving.checked(frame(unfit), Naming(), NOW_S)


async def test_rule_1_a_recording_that_is_taken_in_gets_the_key_that_it_has_here() -> None:
    naming = Naming(secret="here")
    taken = await store_moving.checked(frame(recording(namespace="key-acme")), naming, NOW_S)
    assert taken.key == naming.key("key-acme", CANONICAL)
    assert (taken.namespace, taken.audio) == ("key-acme", WAV)


async def test_one_that_is_refused_costs_no_other(tmp_path: Path) -> None:
    stream = told(Kind.HEADING, {"format": 1, "naming": ""})
    async with elsewhere() as there:
        now_s = there.node.clock.wall()
        fit = [recording(made_at=now_s, canonical=utterance({"text": text}).canonical) for text in TEXTS]
        bad, old = recording(made_at=now_s, etag="0" * 32), recording(made_at=now_s - 9 * 24 * 3600)
        parts = [packed("", frame(each)) for each in (fit[0], bad, fit[1], old)] + [
            b"no frame",
            packed("", frame(fit[2])),
        ]
        stream += b"".join(part(Kind.RECORDING, each) for each in parts)
        stream += told(Kind.ENDING, {"recordings": 6, "complete": True})
        (tmp_path / "x").write_bytes(stream)
        back = await imported(there.node, tmp_path / "x")
    assert (back.code, back.told["imported"], back.told["refused"], back.told["too_old"]) == (4, 3, 2, 1)


async def test_what_was_purged_here_since_it_was_made_stays_out(tmp_path: Path) -> None:
    async with house() as here, elsewhere() as there:
        stream = await stream_of(here)
        (tmp_path / "x").write_bytes(stream)
        async with there.client.post(f"http://127.0.0.1:{there.node.admin_port}/purge", json={"all": True}) as answer:
            assert answer.status == 200
        back = await imported(there.node, tmp_path / "x")
        heard = await there.say(TEXTS[0])
    assert (back.told["imported"], back.told["purged"], heard.status) == (0, 3, 503)


async def test_rule_1_an_older_voice_of_the_same_name_stays_out(tmp_path: Path) -> None:
    anew = replace(Cache(redis=RedisAccess(url="off")), key=Naming(voice_revisions=(VoiceRevision("default", "2"),)))
    async with house() as here, elsewhere(cache=anew) as there:
        await here.say("One", voice_id="tone")
        (tmp_path / "x").write_bytes(await stream_of(here))
        back = await imported(there.node, tmp_path / "x")
        heard = await there.say(TEXTS[0])
    assert (back.code, back.told["imported"], back.told["other_revision"], heard.status) == (0, 1, 3, 503)


async def test_wrong_uses_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no export of ours, " * 100)
    (tmp_path / "newer").write_bytes(told(Kind.HEADING, {"format": 2}) + part(Kind.RECORDING, b"x"))
    async with elsewhere(admin=AdminAccess(port=0, token="secret")) as there, elsewhere() as open_:
        for code, why, arguments in (
            (1, "not_an_export", ("import", str(tmp_path / "text"), *admin(open_.node))),
            (1, "of format 2", ("import", str(tmp_path / "newer"), *admin(open_.node))),
            (2, "can't be read", ("import", str(tmp_path / "none"), *admin(open_.node))),
            (2, "can't be written", ("export", str(tmp_path / "no" / "where"), *admin(open_.node))),
            (1, "--admin-token-file", ("import", str(tmp_path / "text"), *admin(there.node))),
            (1, "no_token", ("export", str(tmp_path / "x"), *admin(there.node))),
            (3, "nobody listens", ("export", str(tmp_path / "x"), "--admin", "http://127.0.0.1:1")),
        ):
            ended = await ran(*arguments)
            assert (ended.code, why in ended.talk, "Traceback" in ended.talk) == (code, True, False), ended.talk
    assert not list(tmp_path.glob("*.part"))


# Several workers.


CACHED = {"Cache-Control": "only-if-cached"}


async def hits(daemon: Daemon, many: int) -> set[str]:
    """What so many connections of their own hear of the first text."""
    heard = set()
    for _ in range(many):
        async with (
            aiohttp.ClientSession() as client,
            client.post(
                f"{daemon.url}/v1/tts", json={"text": TEXTS[0]}, headers={"Cache-Control": "only-if-cached"}
            ) as answer,
        ):
            await answer.read()
            heard.add(answer.headers.get("Cache-Status", "")[:20] if answer.status == 200 else str(answer.status))
    return heard


async def test_without_redis_every_worker_is_given_what_is_imported(tmp_path: Path) -> None:
    async with house() as here, cluster() as origin, daemons() as start:
        (tmp_path / "x").write_bytes(await stream_of(here))
        daemon = await start.serve(config(origin.url, workers=2))
        where = ("--admin", f"http://127.0.0.1:{daemon.admin_port}")
        back = await ran("import", str(tmp_path / "x"), "--json", *where)
        heard = await hits(daemon, 16)
        out = await ran("export", str(tmp_path / "y"), "--json", *where)
        inspected = json.loads((await ran("inspect", "--text", TEXTS[0], "--json", *where)).out)
    assert (back.told["imported"], back.told["given_to"]) == (3, "every worker's memory")
    assert heard == {"test-edge; hit; ttl="}
    assert (out.told["recordings"], out.told["complete"]) == (3, True), "each once, though two workers have it"
    assert inspected["tiers"] == {"memory": 2, "redis": False}
