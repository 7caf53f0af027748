"""Rule 8: what is said, and the keys it is said with, are nowhere but in the audio's own way; each test hunts a canary."""

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgecache.cache.key import Key, Naming
from edgecache.cache.lookup import Asked
from edgecache.clusters.cluster import Cluster
from edgecache.delivery.auth import Auth, Keyring, new_key, read_keys
from edgecache.fill.attempt import Order
from edgecache.fill.edge import Wish
from edgecache.loading import load, show
from edgecache.node import Node
from edgecache.settings import Cache
from edgecache.speech.utterance import utterance
from edgecache.store.tiers import RedisAccess
from tests.daemon import Daemon, Daemons, config, daemons
from tests.houses import cluster, keys_file, raw, settings
from tests.redis_server import RedisServer
from tests.scripted_upstream import FIN, Script, ScriptedUpstream, head

#: One word, so that no quoting or encoding hides it.
CANARY = "Quokka4711"
CLUSTER_KEY = "cluster-key-Wombat0815"
NAMING_SECRET = "naming-secret-Numbat42"
ONLY_IF_CACHED = {"Cache-Control": "only-if-cached"}
SPEAKS = {"text": f"{CANARY} is in confidence"}

#: Faults of this node's own, one for each way an error nobody foresaw can take; the first word of the text chooses.
SABOTAGE = """
import asyncio, functools, time
from edgecache.fill.attempt import Attempt
from edgecache.fill.edge import Edge

begin, run = Edge.begin, Attempt.run

def fail(text):
    try:
        raise KeyError(text)
    except KeyError as error:
        error.add_note(text)
        raise RuntimeError(text) from error

async def fail_alone(text):
    raise ExceptionGroup(text, [ValueError(text)])

def begin_or_fail(edge, wish, asked):
    text = wish.utterance.text
    loop = asyncio.get_running_loop()
    match text.split()[0]:
        case "exchange":
            fail(text)
        case "task":
            loop.create_task(fail_alone(text), name="forgotten")
        case "callback":
            loop.call_soon(functools.partial(fail, text))
        case "slow":
            loop.call_soon(lambda said: time.sleep(0.12), text)
    return begin(edge, wish, asked)

async def run_or_fail(attempt, within_s):
    if attempt.order.utterance.text.startswith("fill"):
        fail(attempt.order.utterance.text)
    return await run(attempt, within_s)

Edge.begin, Attempt.run = begin_or_fail, run_or_fail
"""
#: What is logged of each, and with it the kind of the error.
FORESEEN_NOT = {
    "exchange": ("an exchange failed", "RuntimeError"),
    "task": ("Task exception was never retrieved", "ExceptionGroup"),
    "callback": ("an error in a callback", "RuntimeError"),
    "fill": ("a fill failed", "RuntimeError"),
}


class Hunt:
    """One daemon, all that it let out, and the secrets that must not be in it."""

    def __init__(self, daemon: Daemon, client: aiohttp.ClientSession, *secrets: str) -> None:
        self.daemon = daemon
        self.client = client
        self.secrets = (CANARY, CANARY.encode().hex(), CLUSTER_KEY, NAMING_SECRET, *secrets)
        self.let_out: dict[str, str] = {}
        self.statuses: list[int] = []

    async def ask(self, method: str, path: str, **sent: Any) -> int:
        """One exchange; its headers, and the body of an error, are let out."""
        async with self.client.request(method, f"{self.daemon.url}{path}", **sent) as answer:
            body = b""
            with contextlib.suppress(aiohttp.ClientError):  # broken off
                body = await answer.read()
        said = f"{answer.reason} {answer.headers}" + (body.decode() if answer.status >= 400 else "")
        self.let_out[f"answer {len(self.statuses)}: {answer.status}"] = said
        self.statuses.append(answer.status)
        return answer.status

    async def say(self, **asked: Any) -> int:
        return await self.ask("POST", "/v1/tts", json={**SPEAKS, **asked})

    async def end(self, server: RedisServer | None = None) -> None:
        """Looks everywhere, stops the daemon and looks at what it said."""
        for path in ("/status", "/clusters", "/readyz"):
            self.let_out[path] = json.dumps((await self.daemon.admin(path))[1])
        assert await self.daemon.stopped() == 0
        self.let_out["output"] = self.daemon.output
        if server is not None:
            names = [name.decode() for name in server.call("KEYS", "*")]
            assert names
            assert all(re.fullmatch("tts:[0-9a-f]{64}", name) for name in names)
        found = [
            (secret, where)
            for where, said in self.let_out.items()
            for secret in self.secrets
            if secret.lower() in said.lower()
        ]
        assert found == [], self.let_out[found[0][1]]


async def hunted(start: Daemons, url: str, form: str, **changed: Any) -> Daemon:
    """A daemon that says as much as it can."""
    of = config(url, log={"format": form, "level": "debug", "access": True}, **changed)
    of["timeouts"]["between_bytes"] = "3s"  # one of the clusters stalls
    of["clusters"] = [{"name": "c0", "url": url, "api_key": CLUSTER_KEY}]
    return await start.serve(of, {"PYTHONASYNCIODEBUG": "1", "PYTHONUNBUFFERED": "1"}, sabotage=SABOTAGE)


async def speak_well(hunt: Hunt) -> None:
    query = f"/v1/tts?text={CANARY}+in+a+query"
    assert [await hunt.say(), await hunt.say()] == [200, 200]
    assert [await hunt.ask("GET", query), await hunt.ask("GET", query), await hunt.ask("HEAD", query)] == [200] * 3
    assert await hunt.ask("GET", query, headers={"Range": "bytes=99999999-"}) == 416
    assert await hunt.ask("POST", "/v1/tts", json=SPEAKS, headers={"Cache-Control": "no-store"}) == 200


async def ask_badly(hunt: Hunt) -> None:
    rows: list[tuple[int, str, str, dict[str, Any]]] = [
        (400, "POST", "/v1/tts", {"data": f'{{"text": "{CANARY}'}),
        (400, "POST", "/v1/tts", {"data": f'{{"text": {CANARY}}}'}),
        (400, "POST", "/v1/tts", {"data": f'{{"text": "{CANARY}", "text": "{CANARY}"}}'}),
        (400, "POST", "/v1/tts", {"data": f'{{"text": "{CANARY} \\ud800"}}'}),
        (400, "POST", "/v1/tts", {"data": CANARY.encode() + b"\xff"}),
        (400, "POST", "/v1/tts", {"json": {**SPEAKS, "speaking_rate": CANARY}}),
        (400, "GET", f"/v1/tts?text=x&speaking_rate={CANARY}", {}),
        (413, "POST", "/v1/tts", {"json": {"text": CANARY * 1000, "chunking": "none"}}),
        (413, "POST", "/v1/tts", {"json": {"text": CANARY * 10_001}}),
        (404, "GET", f"/v1/{CANARY}", {}),
        (405, "PUT", f"/v1/tts?text={CANARY}", {}),
        (
            504,
            "POST",
            "/v1/tts",
            {"json": {"text": f"{CANARY}, never heard"}, "headers": {"Cache-Control": "only-if-cached"}},
        ),
    ]
    for status, method, path, sent in rows:
        assert await hunt.ask(method, path, **sent) == status, (method, path, sent)
    for line in (f"GET /v1/tts?text={CANARY} HTTP/9.9", f"{CANARY} / HTTP/1.1", f"GET /{CANARY} HTTP/1.1\r\n{CANARY}"):
        said = await raw(hunt.daemon.port, f"{line}\r\nHost: x\r\n\r\n".encode())
        hunt.let_out[f"answer to {line.replace(CANARY, '...')!r}"] = said.decode()


async def meet_failing_clusters(hunt: Hunt) -> None:
    failing: list[tuple[dict[str, Any], int]] = [
        ({"status": 500}, 502),
        ({"status": 422}, 422),
        ({"status": 401}, 502),
        ({"lie": True}, 502),
        ({"json_error": True}, 502),
        ({"empty": True}, 502),
        ({"cut_after_bytes": 10}, 502),
        ({"cut_after_bytes": 9000, "reset": True}, 200),
        ({"stall_after_bytes": 9000}, 200),
        ({"unframed": True}, 200),
    ]
    for demo, status in failing:
        assert await hunt.say(demo=demo) == status, demo


async def fail_itself(hunt: Hunt) -> None:
    asked = [{"text": f"{way} {CANARY}"} for way in (*FORESEEN_NOT, "slow")]
    answers = [await hunt.ask("POST", "/v1/tts", json=each) for each in asked]
    assert answers == [500, 200, 200, 500, 200]


@pytest.mark.net
@pytest.mark.redis
@pytest.mark.parametrize("form", ["json", "text"])
async def test_rule_8_what_is_said_is_in_no_log_status_header_or_name(
    form: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    api_key, line = new_key("ann")
    async with cluster(chunk_bytes=2000) as origin, daemons() as start:
        origin._api_key = CLUSTER_KEY
        daemon = await hunted(
            start,
            origin.url,
            form,
            auth={"keys_file": str(keys_file(tmp_path, line))},
            cache={"redis": {"url": redis_server.url}, "key": {"secret": NAMING_SECRET}},
        )
        async with aiohttp.ClientSession(headers={"X-API-Key": api_key}) as client:
            hunt = Hunt(daemon, client, api_key, f"{api_key}-wrong")
            for part in (speak_well, ask_badly, meet_failing_clusters, fail_itself):
                await part(hunt)
            assert await hunt.ask("POST", "/v1/tts", json=SPEAKS, headers={"X-API-Key": f"{api_key}-wrong"}) == 401
            await hunt.end(redis_server)
    for told, kind in FORESEEN_NOT.values():
        assert told in daemon.output
        assert kind in daemon.output
    if form == "json":
        check_access_lines(daemon, hunt.statuses)


def check_access_lines(daemon: Daemon, statuses: list[int]) -> None:
    """There is one for every exchange, in JSON, and it says all of this and no more."""
    told = [json.loads(line) for line in daemon.lines]
    lines = [line for line in told if "request_id" in line]
    fields = "ts level msg request_id caller status cache cluster bytes first_byte_ms total_ms whole error"
    assert {frozenset(line) for line in lines} == {frozenset(fields.split())}
    # What was no HTTP is no exchange.
    answered = [line["status"] for line in lines if line["status"] != 505]
    assert sorted(answered) == sorted(statuses)


#: What a hostile or careless cluster does with what it was asked for.
ECHOES: list[Script] = [
    [head(f"500 {CANARY}", "Content-Type: text/plain", "Content-Length: 10"), CANARY.encode()],
    [head("400 Bad", "Content-Type: application/json", "Content-Length: 10"), CANARY.encode()],
    [head("200 OK", f"Content-Type: text/{CANARY}", "Content-Length: 10"), CANARY.encode()],
    [head("200 OK", "Content-Type: audio/wav", "Content-Length: 10"), CANARY.encode()],
    [head("200 OK", "Content-Type: audio/wav", f"Content-Length: {CANARY}")],
    [head("200 OK", "Content-Type: audio/wav", f"Content-Encoding: {CANARY}", "Content-Length: 10"), CANARY.encode()],
    [head("302 Found", f"Location: http://127.0.0.1:9/{CANARY}", "Content-Length: 0")],
    [head("503 Busy", f"Retry-After: {CANARY}", "Content-Length: 0")],
    [f"{CANARY} is no HTTP\r\n\r\n".encode(), FIN],
    [head("200 OK", f"{CANARY} is no header", "Content-Length: 0"), FIN],
    [head("200 OK", "Content-Type: audio/wav", "Transfer-Encoding: chunked"), f"{CANARY}\r\n".encode(), FIN],
]


@pytest.mark.net
async def test_rule_8_a_cluster_that_repeats_what_it_was_asked_for_is_not_quoted() -> None:
    async with daemons() as start, aiohttp.ClientSession() as client:
        for_each = {"fills": {"attempts": 1}}
        async with ScriptedUpstream(*ECHOES) as peer:
            daemon = await hunted(start, peer.url, "json", **for_each)
            hunt = Hunt(daemon, client)
            for number in range(len(ECHOES)):
                while (status := await hunt.ask("POST", "/v1/tts", json={"text": f"{CANARY} {number}"})) == 503:
                    if len(peer.requests) > number:
                        break
                    await asyncio.sleep(0.05)
                assert 400 <= status < 600
            assert len(peer.requests) == len(ECHOES)
            await hunt.end()


def test_rule_8_no_repr_shows_a_text_or_a_key(tmp_path: Path) -> None:
    api_key, line = new_key("ann")
    keys = keys_file(tmp_path, line)
    said = utterance(SPEAKS)
    asked = Asked(Key("0" * 64), "default", said.canonical)
    of = settings(
        clusters=(Cluster(name="c0", url="http://127.0.0.1:9", api_key=CLUSTER_KEY),),
        cache=Cache(redis=RedisAccess(url="off", password=CLUSTER_KEY), key=Naming(secret=NAMING_SECRET)),
        auth=Auth(keys_file=str(keys)),
    )
    ring: Keyring = read_keys(keys)
    ring.admit(api_key)
    told = [repr(each) for each in (said, asked, Wish(said, "default"), Order(asked, said, {}), of, Node(of), ring)]
    for secret in (CANARY, CLUSTER_KEY, NAMING_SECRET, api_key):
        assert [each for each in told if secret in each] == []


def test_rule_8_a_configuration_is_shown_without_its_secrets(tmp_path: Path) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text(
        f'clusters: [{{name: a, url: "http://127.0.0.1:9", api_key: {CLUSTER_KEY}}}]\n'
        f"cache: {{key: {{secret: {NAMING_SECRET}}}, redis: {{password: {CLUSTER_KEY}}}}}\n"
    )
    loaded = load(path, {})
    told = repr(loaded) + repr(show(loaded, origin=True))
    assert CLUSTER_KEY not in told
    assert NAMING_SECRET not in told
