"""The command line for tests: `edgecache` in processes of its own, at a terminal or not, and whom it asks."""

import http.client
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HANG_S = 60.0
Ran = subprocess.CompletedProcess[bytes]
PYTHON = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "COLUMNS": "200"}
CONFIG = """
node: {name: test-edge}
listen: {port: 8080}
admin: {port: 0}
cache: {redis: {url: "off"}}
clusters: [{name: syd, url: "%s"}]
log: {format: json, access: false}
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "edgecache", *arguments]


def run(*arguments: str, cwd: Path | str = "/", environ: Mapping[str, str] | None = None) -> Ran:
    """stdin is no terminal, nor are the others."""
    surroundings = {**PYTHON, **(environ or {})}
    return subprocess.run(
        command(*arguments), capture_output=True, cwd=cwd, env=surroundings, timeout=HANG_S, check=False
    )


def at_terminal(*arguments: str, environ: Mapping[str, str] | None = None) -> str:
    """What a person sees."""
    ours, theirs = pty.openpty()
    surroundings = {**PYTHON, "TERM": "xterm-256color", **(environ or {})}
    process = subprocess.Popen(command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=surroundings)
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 1 << 16):
            seen += piece
    except OSError:
        assert seen  # Linux says so when the other end is closed
    os.close(ours)
    process.wait(HANG_S)
    return seen.decode().replace("\r\n", "\n")


@dataclass(frozen=True, slots=True)
class Served:
    """An edge in front of one cluster, both of them processes."""

    url: str
    admin: str
    cluster: str
    config: Path

    def run(self, *arguments: str, cwd: Path | str = "/") -> Ran:
        environ = {"EDGECACHE_URL": self.url, "EDGECACHE_ADMIN_URL": self.admin}
        return run(*arguments, cwd=cwd, environ=environ)


@contextmanager
def process(*arguments: str, environ: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """One that serves until the block ends, and then ends well."""
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**PYTHON, **(environ or {})}
    ) as running:
        try:
            yield running
        finally:
            running.send_signal(signal.SIGTERM)
            assert running.wait(HANG_S) == 0


@contextmanager
def served(path: Path) -> Iterator[Served]:
    """An edge that is ready; path: where its configuration is written."""
    with process(
        "origin", "--name", "syd", "--port", "0", "--knob", "voice=tone", "--knob", "first_byte_ms=50"
    ) as origin:
        assert origin.stdout is not None
        cluster = origin.stdout.readline().decode().partition("listening on ")[2].split()[0]
        path.write_text(CONFIG % cluster)
        flags = ("--config", str(path), "--listen", "127.0.0.1:0")  # over the variable, and that over the file
        with process("serve", *flags, environ={"EDGECACHE_LISTEN__PORT": "1"}) as edge:
            assert edge.stderr is not None
            told = next(line for line in map(json.loads, edge.stderr) if line["msg"] == "serving")
            until_ready(told["admin"])
            yield Served(told["url"], told["admin"], cluster, path)


def until_ready(admin: str) -> None:
    connection = http.client.HTTPConnection(admin.removeprefix("http://"), timeout=HANG_S)
    for _ in range(10_000):
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        answer.read()
        if answer.status == 200:
            break
    connection.close()


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that says just this to everyone, and hangs up."""

    def serve() -> None:
        while True:
            try:
                peer, _ = door.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(HANG_S)
                peer.recv(1 << 16)
                peer.sendall(answer)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(1 << 16):
                    continue

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join()
