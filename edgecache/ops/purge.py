"""Admin routes that purge: `POST /purge`, and the method `PURGE` as operators of Varnish, Fastly and Souin know it.

A purge is given to every worker, and the answer says whether it reached them all, and Redis: 200 if so, 207 if something is
left to do, which is said. Keeps rule 8: a text comes in a body or in the operator's own URL; no log has it, only its key.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import msgspec
from aiohttp import web

from edgecache.cache.key import is_key
from edgecache.cache.purges import MAX_VALUE
from edgecache.ops import log
from edgecache.ops.daemon import Daemon, Route, Told, json_answer, refusal

#: Names in one request.
MAX_NAMES = 256
#: Names as they are given, and what they are the scope of.
SCOPES = {
    **dict.fromkeys(("key", "keys"), "key"),
    **dict.fromkeys(("tag", "tags"), "tag"),
    **{name: name for name in ("voice", "language", "namespace", "cluster")},
}
SWITCHES = frozenset({"soft", "dry_run", "count_redis"})
#: So long Redis is searched for one answer; what was found by then is told.
SEARCH_S = 20.0
NAMESPACE_HEADER = "Edgecache-Namespace"
_TAGS = ("Surrogate-Key", "Cache-Tag", "xkey-purge", "xkey-softpurge")


class NotAPurge(Exception):
    """What was asked for is none; the message says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be purged: scopes and names, or an utterance in a namespace, as a body or a query has it."""

    named: tuple[tuple[str, str], ...] = ()
    utterance: Mapping[str, Any] | None = None
    soft: bool = False
    dry_run: bool = False
    count_redis: bool = False


# Reading.


def read(body: bytes) -> Asked:
    """The purge that this JSON asks for. NotAPurge: none, or more than one."""
    try:
        told = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise NotAPurge(f"The body is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise NotAPurge('The body must be a JSON object such as {"voice": "ava"}.')
    known = {*SCOPES, *SWITCHES, "utterance", "all"}
    unknown = set(told) - known
    if unknown:
        raise NotAPurge(f"There is no {sorted(unknown)[0]!r}; one may say {', '.join(sorted(known))}.")
    switches = {name: _switch(told, name) for name in SWITCHES}
    if switches["count_redis"] and not switches["dry_run"]:
        raise NotAPurge("count_redis goes with dry_run: to purge, Redis is not searched.")
    if "utterance" in told:
        return _utterance(told, switches)
    scopes = [name for name in told if name in SCOPES]
    whole = _switch(told, "all")
    if len(scopes) + whole != 1:
        raise NotAPurge("Say one of key, tag, voice, language, namespace, cluster, utterance or all, and only one.")
    named = (("all", ""),) if whole else tuple((SCOPES[scopes[0]], each) for each in _names(told[scopes[0]], scopes[0]))
    return Asked(named, None, **switches)


def _utterance(told: Mapping[str, Any], switches: Mapping[str, bool]) -> Asked:
    extra = set(told) - SWITCHES - {"utterance", "namespace"}
    namespace = told.get("namespace")
    if extra or not isinstance(told["utterance"], dict) or not isinstance(namespace, str | None):
        raise NotAPurge('An utterance is an object as for POST /v1/tts; beside it may stand a "namespace".')
    utterance = {"body": msgspec.json.encode(told["utterance"]), "namespace": namespace}
    return Asked((), utterance, **switches)


def _switch(told: Mapping[str, Any], name: str) -> bool:
    value = told.get(name, False)
    if not isinstance(value, bool):
        raise NotAPurge(f"{name} must be true or false.")
    return value


def _names(given: object, scope: str) -> Sequence[str]:
    names = given if isinstance(given, list) else [given]
    if not 0 < len(names) <= MAX_NAMES:
        raise NotAPurge(f"{scope}: from 1 to {MAX_NAMES} names in one request.")
    for each in names:
        if not isinstance(each, str) or not 0 < len(each) <= MAX_VALUE:
            raise NotAPurge(f"{scope} must be text of at most {MAX_VALUE} characters, or a list of such.")
        if SCOPES[scope] == "key" and not is_key(each):
            raise NotAPurge("A key has 64 hexadecimal digits: `Content-Location` of an answer ends with it.")
    return list(dict.fromkeys(names))


def read_purge(request: web.Request) -> Asked:
    """What a PURGE asks for: the path of a recording or of an utterance, or `/` with tags in a header."""
    headers, path = request.headers, request.path
    soft = headers.get("Fastly-Soft-Purge", "0") == "1" or "xkey-softpurge" in headers
    if "key" in request.match_info:
        return Asked((("key", _names(request.match_info["key"], "key")[0]),), soft=soft)
    if path == "/v1/tts":
        query = {"query": request.rel_url.raw_query_string, "namespace": headers.get(NAMESPACE_HEADER)}
        return Asked((), query, soft)
    spelled = " ".join(headers.get(name, "").replace(",", " ") for name in _TAGS).split()
    if not spelled:
        raise NotAPurge("PURGE /v1/audio/KEY, PURGE /v1/tts?text=…, or PURGE / with tags in `Surrogate-Key`.")
    return Asked(tuple(("tag", each) for each in _names(spelled, "tags")), soft=soft)


# Carrying out.


async def _post(daemon: Daemon, request: web.Request) -> web.StreamResponse:
    try:
        return await carried_out(daemon, read(await request.read()))
    except NotAPurge as error:
        return refusal(400, "not_a_purge", str(error))


async def _purge(daemon: Daemon, request: web.Request) -> web.StreamResponse:
    try:
        return await carried_out(daemon, read_purge(request))
    except NotAPurge as error:
        return refusal(400, "not_a_purge", str(error))


async def carried_out(daemon: Daemon, asked: Asked) -> web.StreamResponse:
    """The purge, or what it would be about; the answer tells what was reached."""
    begun = cast("list[dict[str, Any]]", await daemon.ask("purge begin", asked.utterance or {}))
    if "refused" in begun[0]:
        return refusal(**begun[0]["refused"])
    named = [*asked.named, *(("key", key) for key in begun[0]["keys"])]
    kind = "soft" if asked.soft else "hard"
    rows = [{"scope": scope, "value": value, "kind": kind} for scope, value in named]
    order = {"purges": rows, "serial": max(each["serial"] for each in begun), "counted_by": begun[0]["pid"]}
    if asked.dry_run:
        counted = {"dry_run": True, **_summed(rows, await daemon.ask("purge count", order))}
        return json_answer({**counted, **await _searched(daemon, order)} if asked.count_redis else counted)
    if len(rows) > min(each["room"] for each in begun) and asked.named != (("all", ""),):
        return refusal(409, "too_many_purges", "Too many purges stand already; purge a namespace, or all.")
    told = await _given(daemon, order)
    missing = sorted(_living(daemon) - {each["pid"] for each in told})
    answer = {**_summed(rows, told), "workers": {"reached": len(told), "missing": missing}}
    done = not missing and not answer["redis_fault"]
    _log(rows, answer, done=done)
    return json_answer({"done": done, **answer}, 200 if done else 207)


async def _given(daemon: Daemon, order: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the workers told, each once. Those that did not answer are asked once more: to purge twice is to purge once."""
    told: dict[int, dict[str, Any]] = {}
    for _ in range(2):
        for each in cast("list[dict[str, Any]]", await daemon.ask("purge", order)):
            told.setdefault(each["pid"], each)
        if not _living(daemon) - set(told):
            break
    return list(told.values())


async def _searched(daemon: Daemon, order: Mapping[str, Any]) -> dict[str, Any]:
    """How many recordings in Redis they would be about, by looking at all of them; whole: it came to the end in time."""
    told = await _through(daemon, "purge search", order, "0")
    if told.fault == "off":
        return {"redis": "off"}
    return {
        "redis": told.found,
        "redis_looked": told.looked_at,
        "redis_whole": told.cursor == "0" and not told.fault,
        "redis_fault": told.fault,
    }


async def _erase(daemon: Daemon, request: web.Request) -> web.StreamResponse:
    """What is purged, and not merely stale, is deleted out of Redis: for so long, and the next time on from `cursor`."""
    try:
        body = msgspec.json.decode(await request.read() or b"{}", type=_From)
    except msgspec.MsgspecError as error:
        return refusal(400, "not_a_cursor", f'The body must be {{"cursor": "0"}}, or what was answered last: {error}')
    told = await _through(daemon, "purge erase", {}, body.cursor)
    log.event(logging.INFO, "erased out of Redis", recordings=told.found, looked_at=told.looked_at, fault=told.fault)
    answer = {"erased": told.found, "looked_at": told.looked_at, "cursor": told.cursor, "redis_fault": told.fault}
    return json_answer(answer, 207 if told.fault else 200)


class _From(msgspec.Struct, forbid_unknown_fields=True):
    cursor: Annotated[str, msgspec.Meta(pattern="^[0-9]{1,20}$")] = "0"


@dataclass(frozen=True, slots=True)
class _Gone:
    """How far one look through Redis came. cursor: "0": to its end, unless there was a fault."""

    cursor: str
    found: int
    looked_at: int
    fault: str


async def _through(daemon: Daemon, call: str, argument: Mapping[str, Any], cursor: str) -> _Gone:
    """Redis looked through from this cursor on, for at most SEARCH_S."""
    found, looked_at, now = 0, 0, asyncio.get_running_loop().time
    until_s = now() + SEARCH_S
    while True:
        told = cast("dict[str, Any]", await daemon.ask_one(call, {**argument, "cursor": cursor}))
        cursor, found, looked_at = told["cursor"], found + told["found"], looked_at + told["recordings"]
        if cursor == "0" or told["fault"] or now() > until_s:
            return _Gone(cursor, found, looked_at, told["fault"])


def _living(daemon: Daemon) -> set[int]:
    """Those that serve; one that starts learns what stands before it does."""
    return {cast("int", each["pid"]) for each in daemon.workers() if each["state"] in ("serving", "draining")}


def _summed(rows: Sequence[Mapping[str, str]], told: Sequence[Told]) -> dict[str, Any]:
    found = cast("list[dict[str, Any]]", told)
    memory = {name: sum(each["memory"][name] for each in found) for name in ("recordings", "bytes")}
    redis = [each["redis"] for each in found if "redis" in each]
    summed: dict[str, Any] = {
        "purges": list(rows),
        "memory": {**memory, "whole": all(each["memory"]["whole"] for each in found)},
        "fills": sum(each["fills"] for each in found),
    }
    if redis:
        faults = sorted({fault for fault in redis if fault not in ("", "off")})
        summed |= {"redis": "off" if "off" in redis else not faults, "redis_fault": ", ".join(faults)}
    counted = [each["redis_keys"] for each in found if "redis_keys" in each]
    if counted:
        found_there = [each for each in counted if isinstance(each, int)]
        summed["redis"] = max(found_there) if found_there else counted[0]
    return summed


def _log(rows: Sequence[Mapping[str, str]], answer: Mapping[str, Any], *, done: bool) -> None:
    first = rows[0]
    log.event(
        logging.INFO if done else logging.WARNING,
        "purged" if done else "purged, but not everywhere yet",
        scope=first["scope"],
        value=first["value"],
        more=len(rows) - 1,
        kind=first["kind"],
        recordings=answer["memory"]["recordings"],
        fills=answer["fills"],
        workers=answer["workers"]["reached"],
        missing=len(answer["workers"]["missing"]),
        redis_fault=answer["redis_fault"],
    )


ROUTES = (
    Route("POST", "/purge", _post),
    Route("POST", "/purge/erase", _erase),
    Route("PURGE", "/", _purge),
    Route("PURGE", "/v1/tts", _purge),
    Route("PURGE", "/v1/audio/{key}", _purge),
)
