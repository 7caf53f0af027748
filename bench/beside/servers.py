"""Who is looked at, each in front of the same two scripted clusters, configured as carefully as its documentation allows."""

import http.client
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from bench.beside.asking import Remote
from bench.contenders import nginx, varnish
from bench.houses import ServerProcess, edge, process


@dataclass(frozen=True, slots=True)
class Setup:
    """What a situation needs of the configuration. hedge_ms: where a second cluster may be asked before the first has
    failed; 0: not."""

    ttl_s: int = 86_400
    first_byte_s: int = 30
    hedge_ms: int = 0


USUAL = Setup()


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the clusters are."""

    near: int
    far: int


Start = Callable[[Setup, Ports], AbstractContextManager[ServerProcess]]
#: Purges a voice; whether it was taken.
PurgeVoice = Callable[[ServerProcess, str], bool]


@dataclass(frozen=True, slots=True)
class Server:
    """purge_voice: None where there is no way to. tags: it does that by a tag that the cluster has to set."""

    name: str
    told: str
    start: Start
    needs: tuple[str, ...] = ()
    purge_voice: PurgeVoice | None = None
    tags: bool = False


@dataclass(frozen=True, slots=True)
class Stand:
    """One server, up, with its clusters, before one situation. patience_s: how long a cluster that speaks waits for those
    who have not heard it."""

    who: Server
    server: ServerProcess
    near: Remote
    far: Remote
    patience_s: float = 1.0
    text: str = "Ready at half past nine."

    @property
    def said(self) -> dict[str, object]:
        """The utterance of this situation."""
        return {"text": self.text, "voice_id": "ava", "language": "en"}

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def clusters(self) -> tuple[Remote, Remote]:
        return (self.near, self.far)


def _edge(setup: Setup, ports: Ports) -> AbstractContextManager[ServerProcess]:
    cache = {"redis": {"url": "off"}, "ttl": f"{setup.ttl_s}s", "stale_if_error": "7d"}
    more: dict[str, object] = {
        "clusters": [
            {"name": "near", "url": f"http://127.0.0.1:{ports.near}"},
            {"name": "far", "url": f"http://127.0.0.1:{ports.far}"},
        ],
        "timeouts": {"connect": "5s", "first_byte": f"{setup.first_byte_s}s", "between_bytes": "60s"},
        "probing": {"timeout": "20s"},
        "fills": {"hedge": f"{setup.hedge_ms}ms" if setup.hedge_ms else "off"},
    }
    return edge(ports.near, cache, more)


def _words(setup: Setup, ports: Ports) -> dict[str, str]:
    return {
        "NEAR": str(ports.near),
        "FAR": str(ports.far),
        "TTL": f"{setup.ttl_s}s",
        "FIRST_BYTE": f"{setup.first_byte_s}s",
    }


def _nginx(setup: Setup, ports: Ports) -> AbstractContextManager[ServerProcess]:
    return nginx("beside.conf", _words(setup, ports))


def _varnish(setup: Setup, ports: Ports) -> AbstractContextManager[ServerProcess]:
    return varnish("beside.vcl", _words(setup, ports))


def _purge_edge(server: ServerProcess, voice: str) -> bool:
    body = json.dumps({"voice": voice})
    return _taken(server.admin_port, "POST", "/purge", body, {"Content-Type": "application/json"})


def _purge_varnish(server: ServerProcess, voice: str) -> bool:
    return _taken(server.port, "PURGE", "/", "", {"xkey-purge": f"voice-{voice}"})


def _taken(port: int, method: str, path: str, body: str, headers: dict[str, str]) -> bool:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        line.request(method, path, body, headers)
        return line.getresponse().status == 200
    finally:
        line.close()


SERVERS = (
    Server("edge", "edgecache", _edge, (), _purge_edge),
    Server("nginx", "nginx", _nginx, ("nginx",)),
    Server("varnish", "Varnish", _varnish, ("varnishd",), _purge_varnish, tags=True),
)


@contextmanager
def up(who: Server, setup: Setup, patience_s: float = 1.0) -> Iterator[Stand]:
    """A server and its clusters, new."""
    with ExitStack() as stack:
        near, at_near = stack.enter_context(_cluster("near"))
        far, at_far = stack.enter_context(_cluster("far"))
        server = stack.enter_context(who.start(setup, Ports(at_near, at_far)))
        yield Stand(who, server, near, far, patience_s)


@contextmanager
def _cluster(name: str) -> Iterator[tuple[Remote, int]]:
    with process(f"cluster {name}", [sys.executable, "-m", "bench.beside.cluster"]) as running:
        running.wait_until(lambda: running.said().endswith(b"\n"))
        port, control = map(int, running.said().split())
        yield Remote(name, control), port
