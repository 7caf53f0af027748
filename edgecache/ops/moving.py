"""Admin routes that hand recordings out and take them in: `GET /export`, `POST /import`, and `GET /recordings/KEY`.

An export is streamed page by page from every worker's memory, each recording once; an import is read as it comes, part by
part, and given to any worker if all find what one has (Redis), else to all of them. Neither is ever held whole. What is
missing is told at the end of the stream or in the answer, never left unsaid. It does not know what is in a recording.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from aiohttp import web

from edgecache.cache import shipment
from edgecache.cache.key import is_key
from edgecache.cache.shipment import Broken, Found, Kind, Part, Reader
from edgecache.ops import log
from edgecache.ops.daemon import Daemon, NoWorker, Route, json_answer, refusal

MEDIA_TYPE = "application/vnd.edgecache.recordings"
FILTERS = ("namespace", "voice", "language")
#: Between two pages of a scan: Redis serves those who speak meanwhile.
PAUSE_S = 0.05
#: Recordings given to workers at a time: a call has two seconds.
BATCH, BATCH_BYTES = 16, 1 << 19
READ_BYTES = 1 << 16
#: Places where a stream is broken that are told one by one.
TOLD_AT_MOST = 20


# Out.


@dataclass(slots=True)
class Outgoing:
    """One export under way."""

    daemon: Daemon
    asked: Mapping[str, Any]
    naming: str = ""
    recordings: int = 0
    left_out: int = 0
    #: Why it is not all; empty if it is.
    why: str = ""
    _seen: set[bytes] = field(default_factory=set)

    async def begun(self) -> list[dict[str, Any]]:
        """The first page of every worker. NoWorker: there is none."""
        told = await self._pages(first=True)
        self.naming = str(told[0]["naming"])
        return told

    async def _pages(self, *, first: bool) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", await self.daemon.ask("export", {**self.asked, "first": first}))

    async def parts(self, told: list[dict[str, Any]]) -> AsyncIterator[bytes]:
        """Every recording once. told: the first pages."""
        while True:
            for each in told:
                self.left_out += each.get("left_out", 0)
                for part in self._new(each["records"]):
                    yield part
            going_on = {each["worker"] for each in told if each["more"]}
            if not going_on:
                return
            try:
                told = await self._pages(first=False)
            except NoWorker:
                told = []
            told = [each for each in told if each["worker"] in going_on and not each["lost"]]
            if len(told) < len(going_on):
                self.why = "a worker went away with what it had not handed out yet"

    async def redis_parts(self) -> AsyncIterator[bytes]:
        """What Redis has besides."""
        first = True
        while True:
            try:
                told = cast("dict[str, Any]", await self.daemon.ask_one("export redis", {**self.asked, "first": first}))
            except NoWorker as error:
                told = {"records": [], "more": False, "lost": True, "fault": str(error)}
            self.left_out += told.get("left_out", 0)
            for part in self._new(told["records"]):
                yield part
            if told.get("fault") or told["lost"]:
                self.why = told.get("fault") or "the worker that read Redis went away"
            if not told["more"]:
                return
            first = False
            await asyncio.sleep(PAUSE_S)

    def _new(self, records: list[tuple[str, bytes]]) -> list[bytes]:
        parts = []
        for key, framed in records:
            mark = bytes.fromhex(key)[:16]
            if mark not in self._seen:
                self._seen.add(mark)
                self.recordings += 1
                parts.append(shipment.part(Kind.RECORDING, framed))
        return parts

    def ending(self) -> bytes:
        """What it came to."""
        told = {"recordings": self.recordings, "left_out": self.left_out, "why": self.why}
        return shipment.told(Kind.ENDING, {**told, "complete": not (self.why or self.left_out)})


async def _export(daemon: Daemon, request: web.Request) -> web.StreamResponse:
    query = request.query
    unknown = set(query) - {*FILTERS, "redis"}
    if unknown:
        return refusal(400, "unknown_filter", f"There is no {sorted(unknown)[0]!r}; one may say {', '.join(FILTERS)}.")
    only = {name: query[name] for name in FILTERS if name in query}
    outgoing = Outgoing(daemon, {"export": secrets.token_hex(8), **only})
    first = await outgoing.begun()
    answer = web.StreamResponse(headers={"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store"})
    await answer.prepare(request)
    heading = {"format": shipment.FORMAT, "made_at": time.time(), "naming": outgoing.naming, "only": only}
    await answer.write(shipment.told(Kind.HEADING, heading))
    async for part in outgoing.parts(first):
        await answer.write(part)
    if query.get("redis", "0") not in ("", "0"):
        async for part in outgoing.redis_parts():
            await answer.write(part)
    await answer.write_eof(outgoing.ending())
    told = {"recordings": outgoing.recordings, "left_out": outgoing.left_out, "missing": outgoing.why or None}
    log.event(logging.WARNING if outgoing.why else logging.INFO, "recordings were exported", **told)
    return answer


# In.


@dataclass(slots=True)
class Incoming:
    """One import under way. shared: one worker's are all workers'."""

    daemon: Daemon
    shared: bool
    naming: str
    counts: dict[str, int] = field(default_factory=dict)
    parts: int = 0
    recordings: int = 0
    unanswered: int = 0
    heading: Mapping[str, Any] | None = None
    ending: Mapping[str, Any] | None = None
    faults: list[dict[str, object]] = field(default_factory=list)
    broken: int = 0
    _batch: list[bytes] = field(default_factory=list)

    async def take(self, found: Found) -> None:
        """One more part, or a place where there is none."""
        match found:
            case Broken(at, why):
                self.broken += 1
                self._fault(at, why)
            case Part(kind=Kind.RECORDING):
                self.parts += 1
                self.recordings += 1
                self._batch.append(found.content)
                if len(self._batch) >= BATCH or sum(map(len, self._batch)) >= BATCH_BYTES:
                    await self.give()
            case Part(kind=Kind.HEADING):
                self.parts += 1
                self.heading = self.heading or found.words
            case Part():
                self.parts += 1
                self.ending = found.words

    def _fault(self, at: int | None, why: str) -> None:
        if len(self.faults) < TOLD_AT_MOST:
            self.faults.append({"at_byte": at, "why": why})

    async def give(self) -> None:
        """What has come is taken in, before more is read."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        try:
            told = await _given(self.daemon, batch, shared=self.shared)
        except NoWorker:
            self.unanswered += len(batch)
            return
        for name in told[0].keys() - {"why", "shared", "naming"}:
            self.counts[name] = self.counts.get(name, 0) + told[0][name]
        if told[0]["why"]:
            self._fault(None, told[0]["why"])

    def told(self) -> dict[str, Any]:
        """What became of it. complete: all that was exported is here, or something newer, or nothing that may be."""
        ending = self.ending or {}
        whole = self.ending is not None and ending.get("recordings") == self.recordings
        missing = self.broken or self.counts.get("refused", 0) or self.unanswered
        return {
            "recordings": self.recordings,
            **self.counts,
            "broken": self.broken,
            "unanswered": self.unanswered,
            "faults": self.faults,
            "exported": ending.get("recordings"),
            "export_was_complete": bool(ending.get("complete")),
            "named_anew": (self.heading or {}).get("naming") != self.naming,
            "given_to": "one worker, and Redis" if self.shared else "every worker's memory",
            "complete": bool(whole and not missing and ending.get("complete")),
        }


async def _given(daemon: Daemon, batch: list[bytes], *, shared: bool) -> list[dict[str, Any]]:
    argument = {"records": batch}
    told = [await daemon.ask_one("import", argument)] if shared else await daemon.ask("import", argument)
    return cast("list[dict[str, Any]]", told)


async def _import(daemon: Daemon, request: web.Request) -> web.StreamResponse:
    first = cast("dict[str, Any]", await daemon.ask_one("import", {"records": []}))
    counts = {name: 0 for name in first if name not in ("why", "shared", "naming")}
    incoming, reader = Incoming(daemon, first["shared"], first["naming"], counts), Reader()
    async for chunk in request.content.iter_chunked(READ_BYTES):
        for found in reader.feed(chunk):
            await incoming.take(found)
        version = (incoming.heading or {}).get("format", shipment.FORMAT)
        if version != shipment.FORMAT:
            return refusal(
                400, "other_format", f"This export is of format {version!r}; this edge reads {shipment.FORMAT}."
            )
    for found in reader.finish():
        await incoming.take(found)
    await incoming.give()
    if not incoming.parts:
        return refusal(400, "not_an_export", "There is no recording in this; it is not what `edgecache export` writes.")
    told = incoming.told()
    counted = {name: told[name] for name in (*incoming.counts, "broken", "unanswered", "complete")}
    log.event(logging.INFO if told["complete"] else logging.WARNING, "recordings were imported", **counted)
    return json_answer(told)


# Told.


async def _inspect(daemon: Daemon, request: web.Request) -> web.StreamResponse:
    key = request.match_info["key"]
    if not is_key(key):
        return refusal(
            400, "not_a_key", "A key has 64 hexadecimal digits: `Content-Location` of an answer ends with it."
        )
    text = request.query.get("text", "0") not in ("", "0")
    told = cast("list[dict[str, Any]]", await daemon.ask("inspect", {"key": key, "text": text}))
    found = [each for tier in ("memory", "redis") for each in (one[tier] for one in told) if each is not None]
    if not found:
        return refusal(404, "not_recorded", "There is no such recording here, or not any more.")
    newest = max(found, key=lambda each: each["made_at"])
    tiers = {
        "memory": sum(each["memory"] is not None for each in told),
        "redis": any(each["redis"] is not None for each in told),
    }
    return json_answer({"key": key, "tiers": tiers, **newest})


ROUTES = (
    Route("GET", "/export", _export),
    Route("POST", "/import", _import),
    Route("GET", "/recordings/{key}", _inspect),
)
