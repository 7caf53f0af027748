"""`python -m bench.regions`: a user in Sydney asks TTS in US-East, an edge in Sydney, and the region's cluster by itself.

Each is a network namespace, and a relay holds every packet for its time, so that handshakes, windows and round trips are
TCP's own; without root a TCP relay plays the distances, and it is said. Told is the time from the request to the first and
to the last audio, on connections that are there already. The user's way to the nearest cluster is as long as that through
the edge.
"""

import argparse
import asyncio
import json
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.drawing import Bar, Panel, draw, milliseconds
from bench.houses import ServerFailed, edge, free_port, others_cpu_s, process
from bench.load import quantile, tts_request
from bench.programs import Unable, compiled, machine, missing, remedy
from bench.readings import Asked, Book, Number, Reading, verdicts
from bench.telling import aligned
from edgecache.delivery.auth import new_key
from edgecache.demo.links import Link
from edgecache.demo.regions import Atlas, Ground, Regions, ground, socket_in

RESULTS = Path(__file__).parent / "results"
USER, EDGE, NEAR, CENTRAL = "user", "edge", "near", "central"
ATLAS = Atlas(
    {
        (USER, EDGE): Link(20),
        (EDGE, NEAR): Link(4),
        (USER, NEAR): Link(24),
        (USER, CENTRAL): Link(350),
        (EDGE, CENTRAL): Link(340),
    },
    here=EDGE,
)
#: Two seconds of 24 kHz speech, which a cluster thinks of for so long, and then speaks at four times real time.
SIZE, CHUNK_BYTES, THINK_MS, PACE = 96_000, 4096, 150, 4
#: A second user asks for the same so much later, while the cluster still thinks.
JOINS_AFTER_S = 0.05
USERS = 4
CELL = "asked in Sydney"
NAMES = {
    CENTRAL: "TTS in US-East",
    NEAR: "the region's cluster",
    "miss": "edge, miss",
    "joined": "edge, joined",
    "hit": "edge, hit",
}
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
WAV_HEAD = 44


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer, in milliseconds from its request."""

    first_ms: float
    last_ms: float
    cache_status: str


class WrongAnswer(Exception):
    """An answer that is not what the scenario is about."""


class User:
    """One connection of a user's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def close(self) -> None:
        self._writer.close()

    async def ask(self, request: bytes) -> Heard:
        """Asks, and listens to the end. WrongAnswer: it is no whole speech."""
        began_s = time.perf_counter()
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().partition(": ")[::2] for line in head.split("\r\n")[1:] if line)
        if " 200 " not in head.partition("\r\n")[0]:
            raise WrongAnswer(head)
        first_s, size = 0.0, 0
        async for piece in self._pieces(fields):
            size += piece
            if not first_s and size > WAV_HEAD:
                first_s = time.perf_counter()
        if size != SIZE:
            raise WrongAnswer(f"{size} bytes instead of {SIZE}: {head}")
        return Heard((first_s - began_s) * 1000, (time.perf_counter() - began_s) * 1000, fields.get("cache-status", ""))

    async def _pieces(self, fields: Mapping[str, str]) -> AsyncIterator[int]:
        """How much there is, as it comes."""
        if "content-length" in fields:
            left = int(fields["content-length"])
            while left:
                piece = await self._reader.read(left)
                if not piece:
                    raise WrongAnswer("it broke off")
                left -= len(piece)
                yield len(piece)
            return
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield len(await self._reader.readexactly(size + 2)) - 2
        await self._reader.readexactly(2)


@dataclass(frozen=True, slots=True)
class Town:
    """Where users of a world ask."""

    places: Ground
    at: Mapping[str, tuple[str, int]]
    headers: str

    def request(self, text: str) -> bytes:
        """For that text."""
        return tts_request(json.dumps({"text": text, "voice_id": "tone", "language": "en"}).encode(), self.headers)

    @asynccontextmanager
    async def users(self, whom: str, count: int = USERS) -> AsyncIterator[list[User]]:
        """So many, connected and known to whom they ask."""
        users = []
        for _ in range(count):
            asking = socket_in(self.places, USER)
            await asyncio.get_running_loop().sock_connect(asking, self.at[whom])
            users.append(User(*await asyncio.open_connection(sock=asking)))
        try:
            yield users
        finally:
            for user in users:
                user.close()


Scenario = Callable[[Town, str, int], Awaitable[list[Heard]]]


async def _each(users: Sequence[User], count: int, ask: Callable[[User, int], Awaitable[Heard]]) -> list[Heard]:
    """So many times, spread over users."""

    async def one(at: int) -> list[Heard]:
        return [await ask(users[at], number) for number in range(at, count, len(users))]

    return [heard for each in await asyncio.gather(*map(one, range(len(users)))) for heard in each]


def _directly(whom: str) -> Scenario:
    async def ask(town: Town, words: str, count: int) -> list[Heard]:
        async with town.users(whom) as users:
            return await _each(users, count, lambda user, n: user.ask(town.request(f"{words} {whom} {n}.")))

    return ask


def _proven(heard: Heard, word: str) -> Heard:
    if word not in heard.cache_status:
        raise WrongAnswer(f"no {word}: {heard.cache_status}")
    return heard


async def _misses(town: Town, words: str, count: int) -> list[Heard]:
    async with town.users(EDGE) as users:
        heard = await _each(users, count, lambda user, n: user.ask(town.request(f"{words} miss {n}.")))
    return [_proven(each, "fwd=uri-miss") for each in heard]


async def _joined(town: Town, words: str, count: int) -> list[Heard]:
    """The second of two who ask for the same."""
    async with town.users(EDGE) as leads, town.users(EDGE) as users:
        first = dict(zip(users, leads, strict=True))

        async def ask(user: User, number: int) -> Heard:
            request = town.request(f"{words} joined {number}.")
            leading = asyncio.ensure_future(first[user].ask(request))
            await asyncio.sleep(JOINS_AFTER_S)
            heard = await user.ask(request)
            await leading
            return _proven(heard, "collapsed")

        return await _each(users, count, ask)


async def _hits(town: Town, words: str, count: int) -> list[Heard]:
    async with town.users(EDGE) as users:
        await _each(users, USERS, lambda user, n: user.ask(town.request(f"{words} hit {n}.")))
        heard = await _each(users, count, lambda user, n: user.ask(town.request(f"{words} hit {n % USERS}.")))
    return [_proven(each, "; hit;") for each in heard]


SCENARIOS: Mapping[str, Scenario] = {
    CENTRAL: _directly(CENTRAL),
    NEAR: _directly(NEAR),
    "miss": _misses,
    "joined": _joined,
    "hit": _hits,
}


@asynccontextmanager
async def town(directory: Path) -> AsyncIterator[Town]:
    """Everything runs. The edge is in this process's own place."""
    async with ground(ATLAS) as places:
        with ExitStack() as running:
            program = compiled("cluster.c", directory)
            ports = {place: running.enter_context(_cluster(places, place, program)) for place in (NEAR, CENTRAL)}
            key, line = new_key("user")
            (directory / "keys.txt").write_text(line + "\n")
            port = free_port()
            urls = {name: _url(await places.way(EDGE, name, port)) for name, port in ports.items()}
            more = {
                "listen": {"host": places.address(EDGE), "port": port},
                "auth": {"keys_file": str(directory / "keys.txt")},
                "clusters": [{"name": name, "url": url} for name, url in urls.items()],
                "probing": {"measure": "tcp" if isinstance(places, Regions) else "answer"},
            }
            running.enter_context(edge(ports[NEAR], {"redis": {"url": "off"}}, more))
            at = {name: await places.way(USER, name, port) for name, port in (ports | {EDGE: port}).items()}
            yield Town(places, at, f"X-API-Key: {key}\r\n")


@contextmanager
def _cluster(places: Ground, place: str, program: Path) -> Iterator[int]:
    """A cluster in that place; its port."""
    port, how = free_port(), (SIZE, CHUNK_BYTES, THINK_MS, PACE)
    command = [str(program), places.address(place), str(port), *map(str, how)]
    if isinstance(places, Regions) and (namespace := places.namespace(place)):
        command = ["nsenter", f"--net={namespace}", *command]

    def listens_there() -> bool:
        with places.inside(place), socket.socket() as trial:
            return trial.connect_ex((places.address(place), port)) == 0

    with process(f"the cluster {place}", command) as running:
        running.wait_until(listens_there)
        yield port


@dataclass(frozen=True, slots=True)
class Run:
    """All that was heard, by scenario, and the readings of each round. why_not: what kept packets from travelling."""

    heard: Mapping[str, list[Heard]]
    book: Book
    why_not: str


async def measure(rounds: int, count: int) -> Run:
    """Every scenario so many times in each round, in an order that changes."""
    heard: dict[str, list[Heard]] = {name: [] for name in SCENARIOS}
    readings, names = [], list(SCENARIOS)
    with tempfile.TemporaryDirectory() as directory:
        async with town(Path(directory)) as here:
            await SCENARIOS["miss"](here, "Warm", USERS)
            for number in range(rounds):
                turn = number % len(names)
                for name in [*names[turn:], *names[:turn]]:
                    before_s, began_s = others_cpu_s(), time.monotonic()
                    found = await SCENARIOS[name](here, f"Round {number}", count)
                    others = (others_cpu_s() - before_s) / (time.monotonic() - began_s)
                    heard[name] += found
                    readings.append(Reading(name, CELL, number, _values(found), others))
                    first_ms = readings[-1].values["first_p50_ms"]
                    _say(f"round {number + 1} of {rounds}, {NAMES[name]}: first audio {first_ms:.1f} ms")
            return Run(heard, Book(readings), here.places.why_not)


def _values(heard: Sequence[Heard]) -> dict[str, float]:
    first, last = [each.first_ms for each in heard], [each.last_ms for each in heard]
    both = (("first", first), ("last", last))
    return {f"{what}_{name}_ms": quantile(values, share) for what, values in both for name, share in SHARES.items()}


def _asked() -> list[Asked]:
    def first(who: str, share: str, over: str = "") -> Number:
        return Number(who, CELL, f"first_{share}_ms", over)

    return [
        Asked("first audio of a hit, p50, ms", 30, first("hit", "p50")),
        Asked("first audio of a hit, p99, ms", 30, first("hit", "p99")),
        Asked("times sooner than US-East, p50", 10, first(CENTRAL, "p50"), first("hit", "p50"), at_least=True),
        Asked("a miss adds over asking the region's cluster, p50, ms", 3, first("miss", "p50", over=NEAR)),
    ]


def table(heard: Mapping[str, Sequence[Heard]]) -> str:
    """A row for each scenario, of all rounds together."""
    rows = [["", *(f"{what} {name}" for what in ("first", "last") for name in SHARES), "asked", ""]]
    for name, found in heard.items():
        values = _values(found)
        rows.append([NAMES[name], *(f"{value:.1f}" for value in values.values()), str(len(found)), ""])
    return "Milliseconds from the request to the first and to the last audio\n" + aligned(rows) + "\n"


def panels(book: Book) -> list[Panel]:
    """The picture."""
    found = []
    for what in ("first", "last"):
        spreads = ((name, book.spread(Number(name, CELL, f"{what}_p50_ms"))) for name in NAMES)
        bars = [Bar(NAMES[who], value, "peer" if who in (NEAR, CENTRAL) else "ours") for who, value in spreads if value]
        found.append(Panel(f"Time to the {what} audio, p50", bars, milliseconds))
    return found


def _report(run: Run) -> str:
    note = f"A TCP relay played the distances: {run.why_not}.\n" if run.why_not else ""
    return "\n".join([_geography() + note, table(run.heard), verdicts(_asked(), run.book)])


def _geography() -> str:
    ways = ", ".join(f"{a}-{b} {link.rtt_ms:g}" for (a, b), link in ATLAS.links.items())
    speech_s = (SIZE - WAV_HEAD) / 48_000
    cluster = f"a cluster thinks {THINK_MS} ms, then speaks {PACE} times real time"
    return f"Round trips in ms: {ways}. {speech_s:.0f} s of speech; {cluster}.\n"


def _write(options: argparse.Namespace, run: Run) -> dict[str, Any]:
    """JSON and the picture."""
    document = {
        "machine": {**machine(), "at": int(time.time())},
        "plan": {"rounds": options.rounds, "count": options.count, "geography": _geography(), "why_not": run.why_not},
        "targets": [each.document(run.book) for each in _asked()],
        "scenarios": {name: _values(found) for name, found in run.heard.items()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "regions.json").write_text(json.dumps(document, indent=1) + "\n")
    note = f"TTS in US-East is 350 ms away, the edge 20. Median, lowest and highest of {options.rounds} rounds."
    (RESULTS / "regions.svg").write_text(draw("Speech, heard in Sydney", note, panels(run.book)))
    return document


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.regions", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--rounds", type=int, help="how often each is measured (5; quick: 2)")
    parser.add_argument("--count", type=int, help="how often each is asked in a round (40; quick: 8)")
    parser.add_argument("--json", action="store_true", help="JSON alone on stdout")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.count = options.count or (8 if options.quick else 40)
    return options


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if absent := missing(["gcc"]):
            raise Unable(f"there is no {absent[0]} for clusters: {remedy(absent)}")
        run = asyncio.run(measure(options.rounds, options.count))
    except (ServerFailed, Unable, WrongAnswer) as error:
        sys.exit(f"bench.regions: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    document = _write(options, run)
    print(json.dumps(document) if options.json else _report(run))
    _say(f"written to {RESULTS / 'regions.json'} and regions.svg")


def _url(at: tuple[str, int]) -> str:
    return f"http://{at[0]}:{at[1]}"


if __name__ == "__main__":
    main()
