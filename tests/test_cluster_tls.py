"""TLS towards clusters: whom an edge can't trust is told nothing (faults.md row 23).

The edge is a process of its own that trusts one authority, made for the test; clusters are of this process.
"""

import asyncio
import ssl
import subprocess
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests import daemon as daemons
from tests.scripted_upstream import FIN, HOLD, RST, Script, ScriptedUpstream, whole
from tests.sounds import WAV

#: A handshake may take as long as a busy machine takes; and where one is waited for in vain.
PATIENT = {"connect": "30s", "first_byte": "30s", "between_bytes": "30s", "total": "60s"}
IMPATIENT = {**PATIENT, "connect": "3s"}
#: The first bytes of a ServerHello, in a record that says there are more.
PART_OF_A_HELLO = bytes.fromhex("160303007a020000760303")


def signed(directory: Path, name: str, *, days: int = 30, host: str = "localhost", by: str = "ca") -> Path:
    """A certificate with its key in one file, made now."""
    path, made = directory / f"{name}.pem", directory / by
    _openssl("req", *_NEW_KEY, "-keyout", f"{path}.key", "-out", f"{path}.csr", "-subj", f"/CN={host}")
    (directory / f"{name}.ext").write_text(f"subjectAltName=DNS:{host}\n")
    _openssl(
        *("x509", "-req", "-in", f"{path}.csr", "-CA", f"{made}.pem", "-CAkey", f"{made}.pem", "-CAcreateserial"),
        *("-days", str(days), "-extfile", str(directory / f"{name}.ext"), "-out", f"{path}.crt"),
    )
    path.write_text(Path(f"{path}.crt").read_text() + Path(f"{path}.key").read_text())
    return path


def authority(directory: Path, name: str) -> Path:
    """Whom to trust, or not; gives the file to be trusted."""
    path = directory / f"{name}.pem"
    _openssl("req", "-x509", *_NEW_KEY, "-keyout", f"{path}.key", "-out", f"{path}.crt", "-subj", f"/CN={name}")
    path.write_text(Path(f"{path}.crt").read_text() + Path(f"{path}.key").read_text())
    return Path(f"{path}.crt")


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def presenting(chain: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context


def outdated(context: ssl.SSLContext) -> ssl.SSLContext:
    """Knows TLS 1.0, and no other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    return context


@dataclass
class TlsCluster:
    """Speaks to whoever shakes hands. handshakes: that were done; asked: the texts, by number of handshake."""

    context: ssl.SSLContext
    port: int = 0
    handshakes: int = 0
    asked: list[int] = field(default_factory=list)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handshakes += 1
        number = self.handshakes
        self._open.add(writer)
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                if request.startswith(b"POST"):
                    lines = request.lower().split(b"\r\n")
                    length = next(line for line in lines if line.startswith(b"content-length:"))
                    await reader.readexactly(int(length.split(b":")[1]))
                    self.asked.append(number)
                writer.write(whole(WAV))
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            return  # it went away
        finally:
            self._open.discard(writer)
            writer.close()

    def hang_up(self) -> None:
        """Ends all that it keeps."""
        for each in self._open:
            each.close()


@asynccontextmanager
async def tls_cluster(context: ssl.SSLContext) -> AsyncIterator[TlsCluster]:
    made = TlsCluster(context)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.hang_up()


@dataclass
class Edge:
    daemon: daemons.Daemon
    client: aiohttp.ClientSession
    said: int = 0

    async def says(self, language: str = "en") -> int:
        """The status of a text that was never asked for."""
        self.said += 1
        wanted = {"text": f"secret {self.said}", "language": language, "format": "wav"}
        async with self.client.post(f"{self.daemon.url}/v1/tts", json=wanted) as answer:
            await answer.read()
            return answer.status

    async def faults(self) -> dict[str, str]:
        """What went wrong last, by cluster."""
        return {each["name"]: each["last_fault"] for each in await self.upstreams()}

    async def upstreams(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = (await self.daemon.admin("/clusters"))[1]["upstreams"]
        return told

    async def metrics(self) -> str:
        async with self.client.get(f"http://127.0.0.1:{self.daemon.admin_port}/metrics") as answer:
            return await answer.text()


@asynccontextmanager
async def edge(trusted: Path, ports: dict[str, int], **changed: Any) -> AsyncIterator[Edge]:
    """One in front of these clusters, each for the language of its name; it trusts this file alone."""
    routes = [{"name": name, "groups": [name], "languages": [name]} for name in ports]
    of = daemons.config(**{"routes": routes, "timeouts": PATIENT, **changed})
    of["clusters"] = [
        {"name": name, "url": f"https://localhost:{port}", "groups": [name]} for name, port in ports.items()
    ]
    async with daemons.daemons() as start, aiohttp.ClientSession() as client:
        yield Edge(await start.serve(of, {"SSL_CERT_FILE": str(trusted)}), client)


REFUSED = "TLS handshake or certificate refused"
#: Whether it says so by an alert, an end or a reset is the system's to tell.
BROKE_OFF = "TLS handshake"

#: What a cluster shows, and what the edge says of it.
UNTRUSTED: dict[str, tuple[Callable[[Path], ssl.SSLContext], str]] = {
    "expired": (lambda tmp: presenting(signed(tmp, "expired", days=-1)), REFUSED),
    "wrong-name": (lambda tmp: presenting(signed(tmp, "wrong-name", host="elsewhere.example")), REFUSED),
    "unknown-ca": (lambda tmp: presenting(signed(tmp, "unknown-ca", by="stranger")), REFUSED),
    "tls-1.0": (lambda tmp: outdated(presenting(signed(tmp, "tls-1.0"))), BROKE_OFF),
}
#: What a cluster does where a handshake should be.
NO_HANDSHAKE: dict[str, tuple[Script, str]] = {
    "closes": ([FIN], BROKE_OFF),
    "closes-in-mid-hello": ([PART_OF_A_HELLO, FIN], BROKE_OFF),
    "resets-in-mid-hello": ([PART_OF_A_HELLO, RST], BROKE_OFF),
    "falls-silent-in-mid-hello": ([PART_OF_A_HELLO, HOLD], "can't connect in time"),
    "speaks-plain-http": ([b"HTTP/1.1 400 Bad Request\r\n\r\n", FIN], REFUSED),
}


async def test_23_whom_tls_can_not_trust_is_told_nothing(tmp_path: Path) -> None:
    """Clusters that each have a language of their own; of ten only the one that is trusted ever hears a text."""
    trusted = authority(tmp_path, "ca")
    authority(tmp_path, "stranger")
    async with AsyncExitStack() as left:
        good = await left.enter_async_context(tls_cluster(presenting(signed(tmp_path, "good"))))
        bad = {
            name: await left.enter_async_context(tls_cluster(make(tmp_path))) for name, (make, _) in UNTRUSTED.items()
        }
        mute = {
            name: await left.enter_async_context(ScriptedUpstream(on_connect=script))
            for name, (script, _) in NO_HANDSHAKE.items()
        }
        ports = {"good": good.port}
        ports |= {name: each.port for name, each in bad.items()} | {name: each.port for name, each in mute.items()}
        it = await left.enter_async_context(edge(trusted, ports, timeouts=IMPATIENT))
        told = {name: await it.says(name) for name in ports}
        assert told == {name: 200 if name == "good" else 503 for name in ports}
        assert len(good.asked) == 1
        assert {name: (each.handshakes, each.asked) for name, each in bad.items()} == dict.fromkeys(bad, (0, []))
        assert {name: len(each.requests) for name, each in mute.items()} == dict.fromkeys(mute, 0)
        faults = await it.faults()
        assert faults.pop("good") == ""
        for name, (_, says) in {**UNTRUSTED, **NO_HANDSHAKE}.items():
            assert says in faults[name], (name, faults[name])
        counted = {each["name"]: each["faults"] for each in await it.upstreams()}
        silent = {"good": {}, "falls-silent-in-mid-hello": {"connect": 1}}
        assert counted == {name: silent.get(name, {"untrusted": 1}) for name in ports}
        row = 'edgecache_upstream_faults_total{cluster="expired",fault="untrusted",upstream="expired"} 1'
        assert row in await it.metrics()


@pytest.mark.skipif(not ssl.HAS_TLSv1, reason="this OpenSSL has no TLS 1.0")
async def test_23_a_cluster_of_tls_1_0_would_speak_to_others(tmp_path: Path) -> None:
    """So that it is the edge who refuses."""
    lenient = outdated(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    lenient.load_verify_locations(authority(tmp_path, "ca"))
    async with tls_cluster(outdated(presenting(signed(tmp_path, "old")))) as old:
        _, writer = await asyncio.open_connection("127.0.0.1", old.port, ssl=lenient, server_hostname="localhost")
        assert writer.get_extra_info("ssl_object").version() == "TLSv1"
        writer.close()


async def test_23_a_certificate_that_is_rotated_costs_nobody_an_answer(tmp_path: Path) -> None:
    """Connections from before go on; new ones are made with the new certificate, or not at all."""
    trusted = authority(tmp_path, "ca")
    first, second, third = (signed(tmp_path, name) for name in ("first", "second", "third"))
    expired = signed(tmp_path, "expired", days=-1)
    patient = {"failures": 1000, "error_rate": 1}
    async with (
        tls_cluster(presenting(first)) as it,
        # No probe comes between: each handshake is a request's.
        edge(trusted, {"en": it.port}, health=patient, probing={"interval": "1h"}) as here,
    ):
        assert await here.says() == 200
        before = it.handshakes
        it.context.load_cert_chain(second)
        assert [await here.says() for _ in range(5)] == [200] * 5
        assert it.handshakes == before, "the connection from before is kept"
        it.hang_up()
        assert [await here.says() for _ in range(5)] == [200] * 5
        assert it.handshakes == before + 1
        it.context.load_cert_chain(expired)
        assert [await here.says() for _ in range(5)] == [200] * 5
        it.hang_up()
        asked = len(it.asked)
        assert [await here.says() for _ in range(5)] == [503] * 5
        assert (it.handshakes, len(it.asked)) == (before + 1, asked)
        it.context.load_cert_chain(third)
        assert [await here.says() for _ in range(5)] == [200] * 5
        told = (await here.daemon.admin("/status"))[1]["fills"]
        assert (told["sealed"], told["refused"]) == (21, 5)


@pytest.mark.parametrize("written", [None, "", "no certificate"], ids=["absent", "empty", "not PEM"])
async def test_23_without_anyone_to_trust_nobody_is_trusted(tmp_path: Path, written: str | None) -> None:
    """What SSL_CERT_FILE names can't be read: it falls back neither on other authorities nor on none."""
    authority(tmp_path, "ca")
    nobody = tmp_path / "nobody.crt"
    if written is not None:
        nobody.write_text(written)
    async with tls_cluster(presenting(signed(tmp_path, "good"))) as it, edge(nobody, {"en": it.port}) as here:
        assert await here.says() == 503
        assert (it.handshakes, it.asked) == (0, [])
        assert REFUSED in (await here.faults())["en"]


async def test_23_whom_to_trust_is_read_anew_by_a_worker_that_is_started_anew(tmp_path: Path) -> None:
    """The authority changes: what is running trusts the one from before, until its workers are replaced."""
    trusted = authority(tmp_path, "ca")
    theirs = presenting(signed(tmp_path, "good"))
    newer = authority(tmp_path, "newer")
    async with tls_cluster(theirs) as it, edge(trusted, {"en": it.port}, workers=2) as here:
        assert await here.says() == 200
        trusted.write_text(newer.read_text())
        theirs.load_cert_chain(signed(tmp_path, "changed", by="newer"))
        it.hang_up()
        assert await here.says() == 503
        before = set(await here.daemon.workers())
        await here.daemon.admin("/workers/replace", "POST")
        while before & set(await here.daemon.workers()) or len(await here.daemon.workers()) < 2:
            continue
        async with aiohttp.ClientSession() as client:
            assert await Edge(here.daemon, client, said=100).says() == 200
