"""A real redis-server on a socket of its own, and a scripted peer that answers what a test tells it to."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis

START_TIMEOUT_S = 10.0
CERTIFICATE = Path(__file__).with_name("certificate.pem")


class RedisServer:
    """One server. `start` returns when it has answered PONG."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        # Not under pytest's tmp_path: the path of a Unix socket has to be short.
        self.directory = Path(tempfile.mkdtemp(prefix="edgecache-redis-"))
        self.socket = self.directory / "s"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> "RedisServer":
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            pytest.fail("These tests start a real Redis: apt-get install redis-server", pytrace=False)
        command = [program, "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        command += ["--enable-debug-command", "yes", "--dir", str(self.directory), *self._options]
        log = self.directory / "log"
        with log.open("ab") as written:
            self._process = subprocess.Popen(command, stdout=written, stderr=written, start_new_session=True)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._ponged():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                pytest.fail(f"redis-server did not start:\n{log.read_text()}", pytrace=False)
        return self

    def call(self, *command: str | bytes | int) -> Any:
        """One command on a connection of its own."""
        with contextlib.closing(redis.Redis(unix_socket_path=str(self.socket), protocol=2)) as client:
            asked: Callable[..., Any] = client.execute_command
            return asked(*command)

    def stop(self) -> None:
        """Hangs: SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Dies: SIGKILL."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.directory)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)

    def _ponged(self) -> bool:
        """Whether it answers; connecting again and again is the wait."""
        with socket.socket(socket.AF_UNIX) as knocking:
            knocking.settimeout(1.0)
            try:
                knocking.connect(str(self.socket))
                knocking.sendall(b"PING\r\n")
                return knocking.recv(7) == b"+PONG\r\n"
            except OSError:
                return False


Answer = Callable[[list[bytes]], Awaitable[bytes | None]]


class ScriptedRedis:
    """A peer that speaks RESP as told. `answer` gets a command and returns raw bytes; None: closes the connection."""

    def __init__(
        self,
        answer: Answer,
        commands_each: int | None = None,
        tls: ssl.SSLContext | None = None,
        *,
        crumbs: bool = False,
    ) -> None:
        """commands_each: so many a connection answers; it is closed at the next one. crumbs: single bytes are sent."""
        self._answer = answer
        self._commands_each = commands_each
        self._tls = tls
        self._crumbs = crumbs
        self._serving: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()
        self.directory = Path(tempfile.mkdtemp(prefix="edgecache-peer-"))
        self.url = f"unix://{self.directory / 's'}"
        self.connections = 0

    async def __aenter__(self) -> "ScriptedRedis":
        if self._tls is None:
            self._serving = await asyncio.start_unix_server(self._accept, str(self.directory / "s"))
        else:
            self._serving = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
            self.url = f"rediss://127.0.0.1:{self._serving.sockets[0].getsockname()[1]}?ssl_ca_certs={CERTIFICATE}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._serving is not None
        self._serving.close()
        for task in self._talks:
            task.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        await self._serving.wait_closed()
        shutil.rmtree(self.directory)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        answered = 0
        try:
            while (command := await read_command(reader)) is not None and answered != self._commands_each:
                answer = await self._answer(command)
                if answer is None:
                    break
                answered += 1
                for piece in [answer[at : at + 1] for at in range(len(answer))] if self._crumbs else [answer]:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the edge dropped the connection, or the test is over
        finally:
            self._talks.discard(task)
            writer.transport.abort()


def trusted_only_by_tests() -> ssl.SSLContext:
    """A server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


async def read_command(reader: asyncio.StreamReader) -> list[bytes] | None:
    """One RESP command; None: the other side has closed."""
    head = await reader.readline()
    if not head:
        return None
    words = []
    for _ in range(int(head[1:])):
        length = int((await reader.readline())[1:])
        words.append((await reader.readexactly(length + 2))[:-2])
    return words


def bulk(value: bytes) -> bytes:
    """A RESP bulk string."""
    return b"$%d\r\n%s\r\n" % (len(value), value)
