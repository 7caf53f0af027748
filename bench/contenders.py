"""Who is measured, and how each is started: on the server's core, warm of nothing, in front of a bare cluster."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.bare_cluster import wav
from bench.houses import SERVER_CORE, ServerProcess, edge, free_port, listens, plain, process
from bench.programs import compiled, filled
from bench.questions import NO_PROOF, Proof, Questions

#: Caches on disk and shared logs belong in memory.
MEMORY_DIRECTORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass(frozen=True, slots=True)
class Stage:
    """What the contenders share: one size of audio, its cluster, a Redis."""

    size: int
    cluster: int
    redis: str
    questions: Questions
    directory: Path


Start = Callable[[Stage], AbstractContextManager[ServerProcess]]


@dataclass(frozen=True, slots=True)
class Contender:
    """reads: it reads requests, so it may be sent different ones. shares: Redis needs the load generator's core too."""

    name: str
    told: str
    start: Start
    needs: tuple[str, ...] = ()
    proof: Proof = NO_PROOF
    reads: bool = False
    shares: bool = False


@contextmanager
def _alone(name: str, command: Sequence[str], port: int) -> Iterator[ServerProcess]:
    with process(name, command, SERVER_CORE) as running:
        running.wait_until(lambda: listens(port))
        yield ServerProcess(running, port)


def _edge(cache: Callable[[Stage], dict[str, object]], *, lane: bool) -> Start:
    def start(stage: Stage) -> AbstractContextManager[ServerProcess]:
        auth = {"keys_file": str(stage.questions.keys_file)}
        fast_lane = {"enabled": lane, "memo": "16MiB"}
        return edge(stage.cluster, cache(stage), {"auth": auth, "fast_lane": fast_lane})

    return start


def _in_memory(stage: Stage) -> dict[str, object]:
    return {"redis": {"url": "off"}}


def _in_redis(stage: Stage) -> dict[str, object]:
    return {"memory": {"max_size": 0}, "redis": {"url": stage.redis}}


@contextmanager
def nginx(template: str, words: Mapping[str, str]) -> Iterator[ServerProcess]:
    """nginx with this file of `peers`, its cache in memory."""
    port = free_port()
    with tempfile.TemporaryDirectory(dir=MEMORY_DIRECTORY) as directory:
        # Its worker would else become a user who may not enter this directory.
        user = "user root;" if os.geteuid() == 0 else ""
        path = Path(directory) / "nginx.conf"
        path.write_text(filled(template, {**words, "DIRECTORY": directory, "PORT": str(port), "USER": user}))
        with _alone("nginx", ["nginx", "-p", directory, "-c", str(path), "-e", "stderr"], port) as server:
            yield server


@contextmanager
def varnish(template: str, words: Mapping[str, str]) -> Iterator[ServerProcess]:
    """Threads for every connection from the start, one pool for one core, connections kept; nobody reads its log."""
    port = free_port()
    parameters = {"thread_pools": "1", "thread_pool_min": "400", "thread_pool_max": "4000", "timeout_idle": "3600"}
    parameters |= {"workspace_client": "128k", "workspace_backend": "128k"}
    with tempfile.TemporaryDirectory(dir=MEMORY_DIRECTORY) as directory:
        path = Path(directory) / "speech.vcl"
        path.write_text(filled(template, words))
        # -j none: the jail's user may not enter this directory.
        command = ["varnishd", "-j", "none", "-F", "-n", f"{directory}/n", "-f", str(path), "-s", "malloc,1G"]
        command += ["-a", f"127.0.0.1:{port}", "-T", "none"]
        command += [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
        with _alone("varnishd", command, port) as server:
            yield server


def _nginx(stage: Stage) -> AbstractContextManager[ServerProcess]:
    return nginx("nginx.conf", {"CLUSTER": str(stage.cluster)})


def _varnish(stage: Stage) -> AbstractContextManager[ServerProcess]:
    return varnish("varnish.vcl", {"CLUSTER": str(stage.cluster)})


@contextmanager
def _limit(stage: Stage) -> Iterator[ServerProcess]:
    port = free_port()
    audio = stage.directory / f"{stage.size}.wav"
    audio.write_bytes(wav(stage.size))
    with _alone("limit", [str(compiled("limit.c", stage.directory)), str(port), str(audio)], port) as server:
        yield server


def _bare(stage: Stage) -> AbstractContextManager[ServerProcess]:
    port = free_port()
    return _alone("bare", [sys.executable, "-m", "bench.peers.bare", str(port), str(stage.size)], port)


def _plain(stage: Stage) -> AbstractContextManager[ServerProcess]:
    return plain("hits", str(stage.size))


_FROM_MEMORY = Proof("Cache-Status", "; detail=memory")
_FROM_REDIS = Proof("Cache-Status", "; detail=redis")
_FROM_CACHE = Proof("X-Cache-Status", "HIT")
_REDIS = ("redis-server",)
CONTENDERS = (
    Contender("memory", "edgecache", _edge(_in_memory, lane=True), (), _FROM_MEMORY, reads=True),
    Contender("lane-off", "edgecache, fast lane off", _edge(_in_memory, lane=False), (), _FROM_MEMORY, reads=True),
    Contender("redis", "edgecache, Redis only", _edge(_in_redis, lane=True), _REDIS, _FROM_REDIS, shares=True),
    Contender("nginx", "nginx proxy_cache", _nginx, ("nginx",), _FROM_CACHE, reads=True),
    Contender("varnish", "Varnish bodyaccess", _varnish, ("varnishd",), _FROM_CACHE, reads=True),
    Contender("plain", "plain aiohttp", _plain),
    Contender("limit", "C loop, parses nothing", _limit, ("gcc",)),
    Contender("bare", "bare uvloop, memo", _bare),
)
