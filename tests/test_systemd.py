"""systemd/edgecache.service is hardened, fits the daemon it starts, and the daemon tells systemd how it is."""

import asyncio
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgecache.ops.systemd import keep_watchdog, notify, watchdog_s
from edgecache.settings import Settings
from edgecache.store.private import default_directory

UNIT = Path(__file__).parent.parent / "systemd" / "edgecache.service"
PROGRAM = "/opt/edgecache/bin/edgecache"
#: Of 10; the lower the better. Debian's redis-server has 1.2, its varnish 8.5.
MOST_EXPOSED = 1.5

SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
with_systemd = pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd-analyze is not installed")


def _directives(section: str) -> dict[str, list[str]]:
    """What the unit says in one section, by name; a name may be there more than once."""
    said: dict[str, list[str]] = {}
    at = ""
    for line in UNIT.read_text("utf-8").splitlines():
        if line.startswith("["):
            at = line.strip("[]")
        elif line and not line.startswith("#") and at == section:
            name, _, text = line.partition("=")
            said.setdefault(name, []).append(text)
    return said


SERVICE = _directives("Service")


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert SYSTEMD_ANALYZE is not None
    return subprocess.run(
        [SYSTEMD_ANALYZE, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"LC_ALL": "C.UTF-8"},
    )


@with_systemd
def test_the_exposure_is_low() -> None:
    told = _analyze("security", "--no-pager", "--offline=true", str(UNIT))
    found = re.search(r"Overall exposure level for edgecache\.service: ([0-9.]+)", told.stdout)
    assert found, told.stdout + told.stderr
    assert float(found[1]) <= MOST_EXPOSED, told.stdout


@with_systemd
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text("utf-8").replace(PROGRAM, "/bin/true"), "utf-8")
    told = _analyze("verify", str(copy))
    # It also looks at units that ours depends on; those are not ours to judge.
    assert [line for line in (told.stdout + told.stderr).splitlines() if UNIT.name in line] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("PrivateUsers", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("ProtectProc", "invisible"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectControlGroups", "yes"),
        ("RestrictNamespaces", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("SystemCallArchitectures", "native"),
        ("LockPersonality", "yes"),
        ("UMask", "0077"),
    ],
)
def test_what_is_taken_away(name: str, text: str) -> None:
    assert SERVICE[name] == [text]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("Type", "notify", "the daemon says when it serves"),
        ("KillMode", "mixed", "the private Redis must outlive the draining streams"),
        ("OOMPolicy", "continue", "speech goes on when the private Redis was killed for its memory"),
        ("RuntimeDirectory", "edgecache", "the private Redis has its socket there"),
        ("StateDirectory", "edgecache", ""),
        ("ConfigurationDirectory", "edgecache", ""),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX", "AF_UNIX: systemd itself, and the private Redis"),
        ("EnvironmentFile", "-/etc/edgecache/environment", "it may be absent"),
    ],
)
def test_what_the_daemon_needs(name: str, text: str, why: str) -> None:
    assert SERVICE[name] == [text], why


def test_system_calls_are_few() -> None:
    assert SERVICE["SystemCallFilter"] == ["@system-service", "~@privileged @resources"]


@pytest.mark.parametrize("directive", ["ExecStartPre", "ExecStart"])
def test_the_commands_are_there(directive: str) -> None:
    program, *arguments = SERVICE[directive][0].split()
    assert program == PROGRAM
    told = subprocess.run([sys.executable, "-m", "edgecache", *arguments, "--help"], capture_output=True, check=False)
    assert told.returncode == 0, told.stderr


def test_streams_have_the_time_to_finish() -> None:
    assert float(SERVICE["TimeoutStopSec"][0]) >= Settings(clusters=()).drain_s + 10


def test_the_private_redis_lives_in_the_runtime_directory() -> None:
    directory = f"/run/{SERVICE['RuntimeDirectory'][0]}"
    assert default_directory({"RUNTIME_DIRECTORY": directory}).is_relative_to(directory)


def test_the_watchdog_hears_twice_as_often_as_it_must() -> None:
    waits_s = int(SERVICE["WatchdogSec"][0])
    assert watchdog_s({"WATCHDOG_USEC": str(waits_s * 1_000_000)}) == waits_s / 2


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}])
def test_without_a_watchdog_none_is_kept(environ: dict[str, str]) -> None:
    assert watchdog_s(environ) is None


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_systemd_is_told(tmp_path: Path, abstract: bool) -> None:
    address = f"@edgecache-{tmp_path.name}-{id(tmp_path)}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0", 1) if abstract else address)
        notify("READY=1", "STATUS=serving on port 8080", environ={"NOTIFY_SOCKET": address})
        assert manager.recv(200) == b"READY=1\nSTATUS=serving on port 8080"


def test_without_systemd_nobody_is_told() -> None:
    notify("READY=1", environ={})


async def test_the_watchdog_is_told_for_as_long_as_the_loop_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setblocking(False)
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        keeping = asyncio.create_task(keep_watchdog(0.001))
        for _ in range(3):
            assert await loop.sock_recv(manager, 100) == b"WATCHDOG=1"
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
