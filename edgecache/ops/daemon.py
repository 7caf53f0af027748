"""The whole daemon as the admin listener sees it: calls that every worker answers, and routes that make one answer of them.

A call has a name, takes a mapping and tells a mapping, both of plain values (msgpack carries them between processes). Node
registers calls; a route asks the daemon for them and merges what the workers tell. Neither knows how many workers there are.
"""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
from aiohttp import web

Told = Mapping[str, object]
Call = Callable[[Told], Awaitable[Told]]
NOTHING: Told = {}
#: Calls that a worker which comes later has to be told too, each with what makes it another order.
STANDING = {"drain": "", "drain cluster": "cluster"}


class Daemon(Protocol):
    """Who answers for all workers."""

    async def ask(self, call: str, argument: Told = NOTHING) -> list[Told]:
        """What each worker told that answered in time, at least one. NoWorker: none did."""
        ...

    async def ask_one(self, call: str, argument: Told = NOTHING) -> Told:
        """What any one of them told. NoWorker: none did."""
        ...

    def workers(self) -> list[Told]:
        """Every process that serves."""
        ...

    def replace(self) -> str:
        """Begins to replace all of them, one by one. Why not, if not."""
        ...


class NoWorker(Exception):
    """No worker answered in time; the supervisor is starting one, or stopping."""


class Alone:
    """A daemon of one process, which answers itself."""

    def __init__(self, calls: Mapping[str, Call]) -> None:
        self._calls = calls

    async def ask(self, call: str, argument: Told = NOTHING) -> list[Told]:
        """One answer."""
        return [await self._calls[call](argument)]

    async def ask_one(self, call: str, argument: Told = NOTHING) -> Told:
        """The same."""
        return await self._calls[call](argument)

    def workers(self) -> list[Told]:
        """This process."""
        return [{"worker": 0, "pid": os.getpid(), "state": "serving", "restarts": 0}]

    def replace(self) -> str:
        """Refused: who would start another?"""
        return "this edge is one process without a supervisor; with `workers: 2` or more there is one"


Answering = Callable[[Daemon, web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One admin call. open: it asks for no token, as probes of a platform have none."""

    method: str
    path: str
    answer: Answering
    open: bool = False


Routes = Sequence[Route]


def json_answer(told: object, status: int = 200) -> web.Response:
    """Anything plain, as JSON."""
    return web.Response(body=msgspec.json.encode(told), status=status, content_type="application/json")


def refusal(status: int, code: str, message: str) -> web.Response:
    """An error, in the shape that our command line reads."""
    return json_answer({"error": {"message": message, "code": code}}, status)
