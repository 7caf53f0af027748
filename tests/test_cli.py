"""The command line as people and scripts meet it: each command in a process of its own, its words and its exit codes."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from edgecache.cli import main
from edgecache.commands.checking import Finding, report
from edgecache.delivery.auth import read_keys
from edgecache.demo import tone
from tests import command_line
from tests.command_line import CONFIG, HANG_S, PYTHON, Ran, Served, answering, at_terminal, command, run

pytestmark = pytest.mark.net


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with command_line.served(tmp_path_factory.mktemp("cli") / "edge.yaml") as serving:
        yield serving


# What starting costs


HEAVY = ("typer", "rich", "aiohttp", "redis", "hiredis", "uvloop", "pydantic", "yaml", "asyncio")
DAEMON = ("aiohttp", "redis", "hiredis", "uvloop")


@pytest.mark.parametrize(
    ("line", "kept_out"),
    [
        ("--version", HEAVY),
        ("check", DAEMON),
        ("--help", DAEMON),
        ("say hi --url http://127.0.0.1:1", (*DAEMON, "asyncio")),
    ],
)
def test_a_command_loads_only_what_it_needs(line: str, kept_out: tuple[str, ...]) -> None:
    started = [sys.executable, "-X", "importtime", "-m", "edgecache", *line.split()]
    environ = {**PYTHON, "EDGECACHE_CLUSTERS__0__NAME": "a", "EDGECACHE_CLUSTERS__0__URL": "http://127.0.0.1:1"}
    ran = subprocess.run(started, capture_output=True, env=environ, text=True, timeout=HANG_S, check=False)
    loaded = {each.rpartition("|")[2].strip() for each in ran.stderr.splitlines() if each.startswith("import time:")}
    assert "edgecache.cli" in loaded
    assert not loaded & set(kept_out)


# Mistakes: told in words, on stderr, with an exit code, and never a traceback


MISUSES: list[tuple[str, int, str]] = [
    ("say", 2, "Missing argument"),
    ("say hi --url http://a..b", 2, "can't be the name of a host"),
    ("say hi --api-key 'k\ney'", 2, "that no HTTP header can carry"),
    ("say hi --field speed", 2, "--field takes NAME=VALUE, such as speaking_rate=1.2, not 'speed'"),
    ("say hi -o /", 2, "/ is a directory; name a file in it"),
    ("say hi -o /nowhere/hello.wav", 2, "there is no directory /nowhere"),
    ("explain hi --admin http://127.0.0.1:1", 3, "no edge answers"),
    ("healthcheck --admin 127.0.0.1:1", 3, "no edge answers"),
    ("check", 2, "clusters: at least one is needed"),
    ("check -c /nowhere.yaml", 2, "the file does not exist"),
    ("serve --listen 8080x", 2, "--listen takes HOST:PORT"),
    ("origin --knob distance_ms=[1]", 2, "has to be a float"),
    ("demo --voice baritone", 2, "'auto', 'espeak-ng', 'tone'"),
    ("keys new me/you", 2, "is not a name"),
    ("completion ksh", 2, "'bash', 'zsh', 'fish', 'powershell'"),
]


@pytest.mark.parametrize(("line", "code", "words"), MISUSES, ids=[ascii(row[0]) for row in MISUSES])
def test_a_command_that_can_not_be(
    line: str, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["edgecache", *shlex.split(line)])
    monkeypatch.setenv("COLUMNS", PYTHON["COLUMNS"])
    with pytest.raises(SystemExit) as ended:
        main()
    out, said = capsys.readouterr()
    assert words in said
    assert (ended.value.code, out) == (code, "")


MISTAKES: list[tuple[str, int, str]] = [
    ("sevre", 2, "Did you mean 'serve'?"),
    ("say hi --url http://[::1", 2, "is no URL"),
    ("say hi --url http://127.0.0.1:1/", 3, "no edge answers at http://127.0.0.1:1: nobody listens there"),
    ("say hi --url {https}", 3, "does not speak TLS; did you mean http://?"),
    ("say \udcff", 2, "is not UTF-8"),
    ("say hi -o /dev/full --url {url}", 1, "/dev/full can't be written: No space left on device"),
    ("say '' --url {url}", 1, "error: 400 empty_text: "),
    ("say hi --field format=midi --url {url}", 1, "error: 422 refused_by_cluster: "),
    ("say hi --url {admin}", 1, "error: 405 "),
    ("explain hi --admin {url}", 1, "is that the admin listener?"),
    ("serve -c {config} --listen 0.0.0.0:0", 2, "--> --listen"),
    ("serve -c {config} --listen {taken}", 2, "already in use"),
    ("origin --port {taken_port}", 2, "--port"),
    ("origin --host 203.0.113.7", 2, "can't listen at 203.0.113.7:9001"),
]


@pytest.fixture(scope="module")
def mistaken(served: Served) -> Iterator[Mapping[str, Future[Ran]]]:
    """All of them, a few at a time."""
    with socket.create_server(("127.0.0.1", 0)) as taken, ThreadPoolExecutor(3) as pool:
        port = taken.getsockname()[1]
        named = {
            **{"url": served.url, "admin": served.admin, "https": served.url.replace("http", "https")},
            **{"config": served.config, "taken": f"127.0.0.1:{port}", "taken_port": port},
        }
        yield {line: pool.submit(run, *shlex.split(line.format(**named))) for line, _, _ in MISTAKES}


@pytest.mark.parametrize(("line", "code", "words"), MISTAKES, ids=[ascii(row[0]) for row in MISTAKES])
def test_a_mistake_is_told_in_words(mistaken: Mapping[str, Future[Ran]], line: str, code: int, words: str) -> None:
    ran = mistaken[line].result()
    said = ran.stderr.decode()
    assert words in said
    assert "Traceback" not in said
    assert "\x1b" not in said
    assert (ran.returncode, ran.stdout) == (code, b"")


def test_a_variable_with_a_typo_is_no_silent_default(served: Served) -> None:
    ran = run("serve", "-c", str(served.config), environ={"EDGECACHE_LISTEN__PROT": "1"})
    assert ran.returncode == 2
    assert "EDGECACHE_LISTEN__PROT: is no setting" in ran.stderr.decode()
    assert "did you mean EDGECACHE_LISTEN__PORT?" in ran.stderr.decode()


CUT = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nRIFF"


def test_a_pipe_has_heard_what_came_and_is_told_that_it_is_not_all() -> None:
    with answering(CUT) as url:
        ran = run("say", "hi", "--url", url, "-o", "-")
    assert (ran.returncode, ran.stdout) == (1, b"RIFF")
    assert ran.stderr.decode() == f"error: {url} broke off: what came is not whole\n"


def _interruptible() -> None:
    """A shell's background job ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_command_says_so_to_scripts_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asking = subprocess.Popen(
            command("say", "hi", "--url", f"127.0.0.1:{silent.getsockname()[1]}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=PYTHON,
            preexec_fn=_interruptible,
        )
        peer, _ = silent.accept()
        with peer:
            assert peer.recv(1 << 16)
            asking.send_signal(signal.SIGINT)
            assert asking.communicate(timeout=HANG_S) == (b"", b"")
    assert asking.returncode == 130


# Where words go


def test_a_reader_that_has_left_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for line in ("config schema", "version --json"):
        ran = subprocess.run(
            command(*line.split()), stdout=writing, stderr=subprocess.PIPE, env=PYTHON, timeout=HANG_S, check=False
        )
        assert ran.stderr == b""
    os.close(writing)


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=["stdout", "stderr", "all"])
def test_fault_88_a_daemon_whose_standard_streams_are_closed_serves_and_stops(
    closed: tuple[int, ...], tmp_path: Path
) -> None:
    """Else its sockets had their numbers, and libuv aborts where it is to close one of those."""
    config = tmp_path / "edge.yaml"
    config.write_text(CONFIG % "http://127.0.0.1:1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(HANG_S)
        serving = subprocess.Popen(
            command("serve", "-c", str(config), "--listen", "127.0.0.1:0"),
            env={**PYTHON, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            preexec_fn=partial(os.closerange, closed[0], closed[-1] + 1),
        )
        heard = systemd.recv(1 << 12)
        serving.send_signal(signal.SIGTERM)
        assert (heard.splitlines()[0], serving.wait(HANG_S)) == (b"READY=1", 0)


@pytest.mark.parametrize("line", ["config schema", "version --json"])
def test_a_full_disk_is_an_error_in_words(line: str) -> None:
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            command(*line.split()), stdout=full, stderr=subprocess.PIPE, env=PYTHON, timeout=HANG_S, check=False
        )
    assert (ran.returncode, ran.stderr) == (1, b"error: stdout can't be written: No space left on device\n")


def test_colours_are_for_terminals_that_want_them(served: Served) -> None:
    checked = ("check", "-c", str(served.config))
    assert "\x1b[32mok" in at_terminal(*checked)
    assert "\x1b" not in at_terminal(*checked, environ={"NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", at_terminal("sevre", environ={"NO_COLOR": "1"}))


def test_at_a_terminal_a_port_in_use_suggests_the_flag(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        seen = at_terminal("serve", "-c", str(served.config), "--listen", address)
    assert f"error: listen: {address} is already in use" in seen
    assert "`edgecache serve --listen HOST:PORT`" in seen


def test_audio_is_not_for_terminals() -> None:
    assert "audio is not for a terminal" in at_terminal("say", "hi", "-o", "-")


# Speech


REPORT = re.compile(
    r"(?P<cache>\w+) +first audio (?P<first>[\d.]+) ms   total (?P<total>[\d.]+) ms   (?P<source>\S+)   "
    r"[\d.]+ s of speech   (?P<kb>[\d.]+) kB audio/wav(   (?P<faster>[\d.]+)x faster than the miss)?   -> (?P<file>\S+)\n"
)


def reported(line: bytes) -> re.Match[str]:
    found = REPORT.fullmatch(line.decode())
    assert found, line
    return found


def test_saying_it_twice_is_a_hit_and_told_how_much_faster(served: Served, tmp_path: Path) -> None:
    asked: dict[str, str | float] = {"text": "twice", "voice_id": "tone", "language": "de", "speaking_rate": 1.5}
    words = ("say", "twice", "-v", "tone", "-l", "de", "--field", "speaking_rate=1.5")
    miss = reported(served.run(*words, cwd=tmp_path).stdout)
    hit = reported(served.run(*words, "-o", "again.wav", cwd=tmp_path).stdout)
    piped = served.run(*words, "-o", "-")
    retake = reported(served.run(*words, "--fresh", cwd=tmp_path).stdout)

    saved = (tmp_path / "say.wav").read_bytes()
    assert tone.owner_mismatch(saved, asked) is None
    assert (tmp_path / "again.wav").read_bytes() == piped.stdout == saved
    assert (miss["cache"], miss["source"], miss["faster"], miss["file"]) == ("MISS", "syd", None, "say.wav")
    assert (hit["cache"], hit["source"], hit["file"]) == ("HIT", "memory", "again.wav")
    assert float(hit["faster"]) > 0  # how much, a busy machine decides
    assert (reported(piped.stderr)["cache"], reported(piped.stderr)["file"]) == ("HIT", "stdout")
    assert (retake["cache"], retake["source"]) == ("RETAKE", "syd")
    assert float(miss["kb"]) == round(len(saved) / 1000, 1)


def test_what_is_said_for_scripts(served: Served, tmp_path: Path) -> None:
    ran = served.run("say", "for scripts", "--json", "--url", served.url + "/v1/tts/", cwd=tmp_path)
    told = json.loads(ran.stdout)
    direct = json.loads(served.run("say", "for scripts", "--json", "--url", served.cluster, "-o", "-").stderr)
    assert (told["cache"], told["source"], told["media_type"], told["saved_to"]) == (
        "MISS",
        "syd",
        "audio/wav",
        "say.wav",
    )
    assert told["size_bytes"] == (tmp_path / "say.wav").stat().st_size
    assert 50 <= told["first_audio_ms"] <= told["total_ms"]
    assert told["cache_status"].startswith("test-edge; fwd=uri-miss")
    assert (direct["cache"], direct["source"]) == ("DIRECT", "no cache")


def test_explaining_changes_nothing(served: Served, tmp_path: Path) -> None:
    before = json.loads(served.run("explain", "what next", "--json").stdout)
    miss = reported(served.run("say", "what next", cwd=tmp_path).stdout)
    after = served.run("explain", "what next").stdout.decode()
    elsewhere = json.loads(served.run("explain", "what next", "--namespace", "key-a&b", "--json").stdout)

    assert (before["verdict"], before["reason"], before["utterance"]["text"]) == ("miss", "uri-miss", "what next")
    assert miss["cache"] == "MISS"
    lines = dict(line.split(maxsplit=1) for line in after.splitlines())
    assert (lines["verdict"], lines["tier"], lines["cluster"]) == ("hit", "memory", "syd")
    assert lines["key"] == before["key"] != elsewhere["key"]
    assert json.loads(lines["utterance"]) == before["utterance"]
    assert 86_000 < float(lines["ttl_s"]) <= 86_400
    assert (elsewhere["namespace"], elsewhere["verdict"]) == ("key-a&b", "miss")


def test_health_is_an_exit_code(served: Served) -> None:
    ready = served.run("healthcheck", "--json")
    assert (ready.returncode, json.loads(ready.stdout)["status"]) == (0, "ok")
    assert served.run("healthcheck").stdout == b"ready\n"
    body = b'{"status":"failing","checks":{"loop":"","draining":"this edge is stopping"}}'
    with answering(b"HTTP/1.1 503 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)) as url:
        ran, people = run("healthcheck", "--json", "--admin", url), run("healthcheck", "--admin", url)
    assert (ran.returncode, json.loads(ran.stdout)["status"]) == (1, "failing")
    assert (people.returncode, people.stdout) == (1, b"not ready; draining: this edge is stopping\n")


# Configuration


def test_checking_asks_the_clusters_when_told_to(served: Served, tmp_path: Path) -> None:
    ran = served.run("check", "-c", str(served.config), "--probe", "--strict")
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["ok"] * 3
    assert re.search(rf"cluster syd +{served.cluster}  rtt [\d.]+ ms", lines[2])
    assert lines[3] == "0 errors, 0 warnings"

    dead = tmp_path / "dead.yaml"
    dead.write_text(CONFIG % "http://127.0.0.1:1")
    ran = run("check", "-c", str(dead), "--probe", "--json")
    told = json.loads(ran.stdout)
    assert (ran.returncode, told["ok"], told["findings"][-1]["level"]) == (1, False, "error")


def test_a_warning_fails_when_it_is_to(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text(CONFIG.replace('{redis: {url: "off"}}', "{}") % served.cluster)
    ran = run("check", "-c", str(path), "--probe", "--strict", environ={"PATH": str(tmp_path)})
    assert ran.returncode == 1
    assert "warning  redis" in ran.stdout.decode()
    assert ran.stdout.decode().endswith("0 errors, 1 warning\n")
    assert report([Finding("warning", "redis", "")], strict=False, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["ok"]


def test_a_check_for_scripts_has_every_mistake(tmp_path: Path) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text("listen: {port: http}\nclusters: [{name: a}]\n")
    ran = run("check", "-c", str(path), "--json")
    told = json.loads(ran.stdout)
    assert (ran.returncode, ran.stderr, told["ok"]) == (2, b"", False)
    assert [(each["key"], each["line"]) for each in told["problems"]] == [("listen.port", 1), ("clusters.0", 2)]


def test_settings_are_shown_with_their_origin(served: Served) -> None:
    environ = {"EDGECACHE_CACHE__TTL": "1h", "EDGECACHE_CONFIG": str(served.config)}
    told = json.loads(run("config", "show", "--origin", "--json", environ=environ).stdout)
    shown = {each["key"]: (each["value"], each["origin"]) for each in told}
    plain = run("config", "show", environ=environ).stdout.decode().splitlines()
    assert shown["cache.ttl"] == ("1h", "environment EDGECACHE_CACHE__TTL")
    assert shown["listen.port"] == ("8080", f"{served.config}:3:16")
    assert shown["drain"][1] == "default"
    assert "cache.ttl 1h" in [" ".join(line.split()) for line in plain]


def test_the_schema_is_one() -> None:
    told = json.loads(run("config", "schema").stdout)
    assert told["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "clusters" in told["properties"]


def test_a_new_key_admits_whom_it_names(tmp_path: Path) -> None:
    ran = run("keys", "new", "ada", "--namespace", "lab")
    path = tmp_path / "keys.txt"
    path.write_bytes(ran.stdout)
    key = ran.stderr.decode().split()[-1]
    assert key.encode() not in ran.stdout
    caller = read_keys(path).admit(key)
    assert (caller.name, caller.namespace) == ("ada", "lab")


# What it says of itself


def test_the_installed_program_is_the_same() -> None:
    program = Path(sys.executable).with_name("edgecache")
    said = subprocess.run([program, "--version"], capture_output=True, env=PYTHON, timeout=HANG_S, check=True)
    told = json.loads(run("version", "--json").stdout)
    assert said.stdout.decode() == f"edgecache {told['version']}\n"
    assert told["python"] == ".".join(map(str, sys.version_info[:3]))


def test_help_ends_with_three_examples() -> None:
    said = [line.strip() for line in run("--help").stdout.decode().splitlines() if line.strip()]
    assert said[-4] == "Examples:"
    commands = {re.match(r"│ (\w+)  ", line).group(1) for line in said if re.match(r"│ (\w+)  ", line)}  # type: ignore[union-attr]  # it matched
    assert {shlex.split(line)[1] for line in said[-3:]} <= commands
    assert all(line.startswith("edgecache ") for line in said[-3:])


def test_knobs_are_listed() -> None:
    lines = run("origin", "--knobs").stdout.decode().splitlines()
    assert {"distance_ms", "error_rate", "voice"} <= {line.split()[0] for line in lines}


@pytest.mark.parametrize(
    ("shell", "first"),
    [
        ("zsh", "#compdef edgecache"),
        ("powershell", "Import-Module PSReadLine"),
    ],
)
def test_commands_complete(shell: str, first: str) -> None:
    ran = run("completion", shell)
    assert ran.returncode == 0
    assert ran.stdout.decode().startswith(first)


@pytest.mark.parametrize(("typed", "offered"), [("edgecache se", "serve"), ("edgecache say --fr", "--fresh")])
def test_bash_is_offered(typed: str, offered: str) -> None:
    environ = {"_EDGECACHE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    assert run(environ=environ).stdout.decode().split() == [offered]
