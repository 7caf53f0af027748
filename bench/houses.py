"""Edges, clusters and Redis for benchmarks: each a process of its own, on a core that is said.

Whatever is started here ends with its block, and with this process however that ends. A server that does not come up is an
error that quotes what it said. It does not know what is measured.
"""

import ctypes
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent
#: The server under test has core 0 to itself where there are two; everything else shares the others.
SERVER_CORE = 0
OTHER_CORES = sorted(os.sched_getaffinity(0) - {SERVER_CORE}) or [SERVER_CORE]
LOOPBACK = "127.0.0.1"
#: On a machine that others keep busy.
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
#: How much of what a server said is quoted.
QUOTED_BYTES = 4000
#: What an edge says of where it serves: the system chose ports that nobody else has.
_SERVING = re.compile(rb'"msg":"serving","url":"http://[^"]*:(\d+)","admin":"http://[^"]*:(\d+)"')
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class ServerFailed(Exception):
    """A server that did not come up or did not do its work, and what it said."""


class Running:
    """A process that was started here."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self.name, self.pid = name, process.pid
        self._process = process
        self._said = said

    @property
    def ended(self) -> int | None:
        """Its exit status, once it has one."""
        return self._process.poll()

    def failed(self, what: str) -> ServerFailed:
        """The error that quotes what it said."""
        words = self.said()[-QUOTED_BYTES:].decode(errors="replace").strip()
        return ServerFailed(f"{self.name} {what}; it said:\n{words or '(nothing)'}")

    def said(self) -> bytes:
        """All that it said so far."""
        return os.pread(self._said.fileno(), 1 << 30, 0)

    def wait_until(self, there: Callable[[], bool], seconds: float = START_TIMEOUT_S) -> None:
        """Until it is there. ServerFailed: it ended before, or is not there in time."""
        deadline_s = time.monotonic() + seconds
        while not there():
            if self.ended is not None:
                raise self.failed(f"did not start (exit status {self.ended})")
            if time.monotonic() > deadline_s:
                raise self.failed(f"was not ready within {seconds:.0f} s")
            time.sleep(0.01)

    def end(self) -> None:
        """It and all that it started."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def says(port: int, path: str) -> bytes | None:
    """What a GET is answered with status 200; None: anything else."""
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        asking.request("GET", path)
        answer = asking.getresponse()
        return answer.read() if answer.status == 200 else None
    except OSError:
        return None
    finally:
        asking.close()


def listens(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def bound_to(cores: Sequence[int]) -> Callable[[], None]:
    """What a child does before it becomes another program: it stays on these cores, and ends when we do.

    No threads are here when a process is started, so the child may run Python.
    """

    def bind() -> None:
        os.sched_setaffinity(0, cores)
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return bind


@contextmanager
def process(name: str, arguments: Sequence[str], core: int | None = None, **options: Any) -> Iterator[Running]:
    """A process that ends with the block. core: where it and its children run; None: beside the server under test."""
    cores = [core] if core is not None else OTHER_CORES

    with tempfile.TemporaryFile() as said:
        started = subprocess.Popen(
            arguments, stdout=said, stderr=said, cwd=ROOT, start_new_session=True, preexec_fn=bound_to(cores), **options
        )
        running = Running(name, started, said)
        try:
            yield running
        finally:
            running.end()


@contextmanager
def bare_cluster(*how: str) -> Iterator[int]:
    """A cluster that costs next to nothing; its port. how: `BYTES [whole]`."""
    port = free_port()
    with process("the cluster", [sys.executable, "-m", "bench.bare_cluster", str(port), *how]) as running:
        running.wait_until(lambda: says(port, "/healthz") is not None)
        yield port


@contextmanager
def compiled_cluster(program: Path, *how: str) -> Iterator["ServerProcess"]:
    """peers/cluster.c, for what is too fast for Python: `BYTES CHUNK_BYTES THINK_MS PACE`."""
    port = free_port()
    with process("the cluster", [str(program), LOOPBACK, str(port), *how]) as running:
        running.wait_until(lambda: says(port, "/healthz") is not None)
        yield ServerProcess(running, port)


@contextmanager
def plain(*what: str) -> Iterator["ServerProcess"]:
    """A plain aiohttp server on the core of the server under test: `hits [BYTES]`, or `proxy URL`."""
    port = free_port()
    arguments = [sys.executable, "-m", "bench.peers.plain", str(port), *what]
    with process("plain aiohttp", arguments, SERVER_CORE) as running:
        running.wait_until(lambda: listens(port))
        yield ServerProcess(running, port)


@contextmanager
def redis(directory: Path) -> Iterator[str]:
    """A Redis of its own; its URL."""
    path = directory / "redis.sock"
    arguments = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    with process("redis-server", [*arguments, "--dir", str(directory)]) as running:
        running.wait_until(path.exists)
        yield f"unix://{path}"


@contextmanager
def edge(
    cluster_port: int, cache: Mapping[str, object], more: Mapping[str, object] | None = None
) -> Iterator["ServerProcess"]:
    """An edge on its own core."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = {
            "listen": {"host": "127.0.0.1", "port": 0},
            "admin": {"host": "127.0.0.1", "port": 0},
            "cache": cache,
            "clusters": [{"name": "near", "url": f"http://127.0.0.1:{cluster_port}", "max_in_flight": 1000}],
            "log": {"access": False},
            **(more or {}),
        }
        path = directory / "edge.yaml"
        path.write_text(json.dumps(settings))
        arguments = [sys.executable, "-m", "edgecache", "serve", "--config", str(path)]
        running = stack.enter_context(process("edgecache", arguments, SERVER_CORE))
        running.wait_until(lambda: _SERVING.search(running.said()) is not None)
        port, admin = (int(each) for each in _SERVING.findall(running.said())[0])
        running.wait_until(lambda: says(admin, "/readyz") is not None)
        yield ServerProcess(running, port, admin)


class ServerProcess:
    """A server under test. admin_port: 0 if it has none."""

    def __init__(self, running: Running, port: int, admin_port: int = 0) -> None:
        self.pid, self.port, self.admin_port = running.pid, port, admin_port
        self._running = running

    def failed(self, what: str) -> ServerFailed:
        """The error that quotes what it said."""
        return self._running.failed(what)

    def rss_bytes(self) -> int:
        """Resident memory."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        """CPU time so far, of it and of the processes that it started."""
        return family_cpu_s(self.pid)


def family_cpu_s(root: int) -> float:
    """CPU time of a process and its descendants, those included that have ended and were waited for."""
    stats = _stats()
    return _cpu_s(stats, _family(stats, root))


def family_rss_bytes(root: int) -> int:
    """Resident memory of a process and its descendants; what they share counts for each."""
    stats = _stats()
    pages = sum(int(stats[pid][21]) for pid in _family(stats, root) if pid in stats)
    return pages * os.sysconf("SC_PAGE_SIZE")


def others_cpu_s() -> float:
    """CPU time so far of all processes but this one and what it started, and time that the machine was not given."""
    stats = _stats()
    stolen = int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")
    return stolen + _cpu_s(stats, stats.keys() - _family(stats, os.getpid()))


def _stats() -> dict[int, list[str]]:
    """What the system says of every process, from its state on."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            stats[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
    return stats


def _family(stats: Mapping[int, Sequence[str]], root: int) -> set[int]:
    family = {root}
    while more := {pid for pid, fields in stats.items() if int(fields[1]) in family} - family:
        family |= more
    return family


def _cpu_s(stats: Mapping[int, Sequence[str]], pids: Iterable[int]) -> float:
    return sum(int(ticks) for pid in pids for ticks in stats[pid][11:15]) / os.sysconf("SC_CLK_TCK")
