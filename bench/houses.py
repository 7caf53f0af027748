"""Edges, clusters and Redis for benchmarks: each a process of its own, on a core that is said."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

#: The server under test has core 0 to itself where there are two; everything else shares the others.
SERVER_CORE = 0
OTHER_CORES = sorted(os.sched_getaffinity(0) - {SERVER_CORE}) or [SERVER_CORE]


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def wait_for(port: int, path: str = "/livez", seconds: float = 20.0) -> None:
    """Until something answers there with 200."""
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        asking = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            asking.request("GET", path)
            if asking.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.02)
        finally:
            asking.close()
    raise TimeoutError(f"nothing answers at port {port}")


@contextmanager
def process(arguments: Sequence[str], core: int | None = None, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    cores = [core] if core is not None else OTHER_CORES
    started = subprocess.Popen(arguments, start_new_session=True, **options)
    os.sched_setaffinity(started.pid, cores)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextmanager
def bare_cluster() -> Iterator[int]:
    """A cluster that costs next to nothing; its port."""
    port = free_port()
    with process([sys.executable, "-m", "bench.bare_cluster", str(port)]):
        wait_for(port, "/healthz")
        yield port


@contextmanager
def plain(*what: str) -> Iterator["ServerProcess"]:
    """A plain aiohttp server on the core of the server under test: `hits`, or `proxy URL`."""
    port = free_port()
    with process([sys.executable, "-m", "bench.peers.plain", str(port), *what], SERVER_CORE) as started:
        wait_for(port)
        yield ServerProcess(started.pid, port)


@contextmanager
def redis(directory: Path) -> Iterator[str]:
    """A Redis of its own; its URL."""
    path = directory / "redis.sock"
    arguments = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    with process(arguments, stdout=subprocess.DEVNULL):
        deadline_s = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        yield f"unix://{path}"


@contextmanager
def edge(cluster_port: int, cache: Mapping[str, object]) -> Iterator["ServerProcess"]:
    """An edge on its own core."""
    port, admin = free_port(), free_port()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = {
            "listen": {"host": "127.0.0.1", "port": port},
            "admin": {"host": "127.0.0.1", "port": admin},
            "cache": cache,
            "clusters": [{"name": "near", "url": f"http://127.0.0.1:{cluster_port}", "max_in_flight": 1000}],
            "log": {"access": False},
        }
        path = directory / "edge.yaml"
        path.write_text(json.dumps(settings))
        arguments = [sys.executable, "-m", "edgecache", "serve", "--config", str(path)]
        started = stack.enter_context(process(arguments, SERVER_CORE, stderr=subprocess.DEVNULL))
        wait_for(admin, "/readyz")
        yield ServerProcess(started.pid, port)


class ServerProcess:
    """A server under test."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid, self.port = pid, port

    def rss_bytes(self) -> int:
        """Resident memory."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        """CPU time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
