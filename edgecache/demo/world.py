"""A small world to try the edge in: two demo clusters, one near and one far, and an edge in front, each a process.

Ctrl-C takes all of it down, the edge first. It says where things listen, and what to type.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

#: One way, in milliseconds: a cluster in the region, and one across an ocean.
NEAR_MS, FAR_MS = 10, 90
#: How long a cluster takes to think, and how much faster than real time it speaks.
FIRST_BYTE_MS, REAL_TIME_FACTOR = 250, 0.25
START_S = 20.0


class World:
    """The processes of one demonstration."""

    def __init__(self, port: int, voice: str) -> None:
        self._port = port if _is_free(port) else 0
        self._voice = voice
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stop = threading.Event()

    def run(self) -> int:
        """Until Ctrl-C. The exit code: 0, or 1 when something would not start."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stop.set())
        began_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="edgecache-demo-") as directory:
            try:
                urls = [self._cluster("near", NEAR_MS), self._cluster("far", FAR_MS)]
                port, admin = self._edge(Path(directory), urls)
                self._greet(port, admin, urls, time.monotonic() - began_s)
                while not self._stop.wait(0.5):
                    self._check_alive()
            except WorldError as error:
                if not self._stop.is_set():
                    print(f"error: {error}", file=sys.stderr)
                    return 1
            finally:
                self._end()
        print("Stopped. Bye.", file=sys.stderr)
        return 0

    def _start(self, *arguments: str, pipe: bool = False) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgecache", *arguments],
            stdout=subprocess.PIPE if pipe else None,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def _cluster(self, name: str, distance_ms: int) -> str:
        knobs = {
            "voice": self._voice,
            "distance_ms": distance_ms,
            "first_byte_ms": FIRST_BYTE_MS,
            "rtf": REAL_TIME_FACTOR,
        }
        turned = [word for knob, value in knobs.items() for word in ("--knob", f"{knob}={value}")]
        process = self._start("origin", "--name", name, "--port", "0", *turned, pipe=True)
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        if "listening on" not in line:
            raise WorldError(f"the demo cluster {name} did not start")
        print(f"  {line.strip()}", file=sys.stderr)
        return line.partition("listening on ")[2].split()[0]

    def _edge(self, directory: Path, urls: list[str]) -> tuple[int, int]:
        port, admin = self._port or _free_port(), _free_port()
        settings = directory / "edge.yaml"
        settings.write_text(
            f"node: {{name: demo-edge, region: here}}\n"
            f"listen: {{host: 127.0.0.1, port: {port}}}\n"
            f"admin: {{host: 127.0.0.1, port: {admin}}}\n"
            f"cache: {{redis: {{private_directory: {directory / 'redis'}}}}}\n"
            f"clusters:\n"
            f"  - {{name: near, url: '{urls[0]}', dialect: speeko}}\n"
            f"  - {{name: far, url: '{urls[1]}', dialect: speeko}}\n"
        )
        self._start("serve", "--config", str(settings))
        deadline_s = time.monotonic() + START_S
        while not _is_ready(admin):
            self._check_alive()
            if self._stop.wait(0.05) or time.monotonic() > deadline_s:
                raise WorldError("the edge did not get ready")
        return port, admin

    def _greet(self, port: int, admin: int, urls: list[str], took_s: float) -> None:
        print(
            f"""
  Listening   http://127.0.0.1:{port}
  Admin       http://127.0.0.1:{admin}   /readyz /status /clusters
  Clusters    near {urls[0]}   {2 * NEAR_MS} ms away and back
              far  {urls[1]}   {2 * FAR_MS} ms away and back
  Ready in {took_s:.1f} s. Ctrl-C stops.

  Try it, twice:
    curl -s http://127.0.0.1:{port}/v1/tts -d '{{"text":"Hello from the edge"}}' -o hello.wav -D -
  or
    {_program()} say 'Hello from the edge' --url http://127.0.0.1:{port} -o hello.wav
""",
            flush=True,
        )

    def _check_alive(self) -> None:
        for process in self._processes:
            if process.poll() is not None:
                raise WorldError(f"a part of the world ended with exit code {process.returncode}")

    def _end(self) -> None:
        """The edge first, so that it can finish what it streams."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(START_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


class WorldError(Exception):
    """A part of the world would not start, or ended by itself."""


def _program() -> str:
    beside = Path(sys.executable).with_name("edgecache")
    return os.path.relpath(beside) if beside.exists() else "edgecache"


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            print(f"  port {port} is in use; taking another", file=sys.stderr)
            return False
    return True


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


def _is_ready(admin: int) -> bool:
    asking = http.client.HTTPConnection("127.0.0.1", admin, timeout=1)
    try:
        asking.request("GET", "/readyz")
        return asking.getresponse().status == 200
    except OSError:
        return False
    finally:
        asking.close()
