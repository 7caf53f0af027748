"""`edgecache say`: several edges, text that is typed, and a player, by the program itself."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import command_line
from tests.command_line import HANG_S, PYTHON, Served, command, run
from tests.scripted_upstream import closed_port

pytestmark = pytest.mark.net
TEXT = "It was a bright cold day in April. The clocks were striking thirteen, as they do."


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with command_line.served(tmp_path_factory.mktemp("saying") / "edge.yaml") as serving:
        yield serving


def piped(stdin: bytes, *arguments: str, cwd: Path, path: str = "") -> subprocess.CompletedProcess[bytes]:
    surroundings = {**PYTHON, "PATH": path or PYTHON["PATH"]}
    return subprocess.run(
        command(*arguments), input=stdin, capture_output=True, cwd=cwd, env=surroundings, timeout=HANG_S, check=False
    )


def player(directory: Path, script: str) -> str:
    """A PATH on which `ffplay` is this script; no other player is on it."""
    program = directory / "ffplay"
    program.write_text(f"#!/bin/sh\nPATH={os.environ['PATH']}\n{script}\n")
    program.chmod(0o755)
    return str(directory)


def test_what_is_piped_is_spoken_as_the_long_text_of_the_same_words(served: Served, tmp_path: Path) -> None:
    ran = piped(TEXT.encode(), "say", "--stdin", "--json", "--url", served.url, cwd=tmp_path)
    told = json.loads(ran.stdout)
    assert (ran.returncode, told["characters"], told["saved_to"]) == (0, len(TEXT), "say.wav")
    page = run("say", TEXT, "--field", "chunking=sentence", "-o", "-", "--url", served.url).stdout
    assert (tmp_path / "say.wav").read_bytes() == page
    assert told["size_bytes"] == len(page)
    assert 0 < told["first_audio_ms"] <= told["total_ms"]
    assert piped(TEXT.encode(), "say", "--stdin", "-o", "-", "--url", served.url, cwd=tmp_path).stdout == page


def test_a_sentence_is_spoken_while_the_next_one_is_typed(served: Served) -> None:
    process = subprocess.Popen(
        command("say", "--stdin", "-o", "-", "--url", served.url), env=PYTHON, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"It was a bright cold day in April. The ")
    process.stdin.flush()
    assert process.stdout.read(4) == b"RIFF"
    rest, _ = process.communicate(b"end.", timeout=HANG_S)
    assert len(rest) > 1000
    assert process.returncode == 0


def test_what_was_past_its_time_and_asked_for_anew_is_not_called_stale(served: Served, tmp_path: Path) -> None:
    def said() -> list[str]:
        told = json.loads(served.run("say", "no longer fresh", "--json", cwd=tmp_path).stdout)
        return [told["cache"], told["cache_status"].split("; ")[1]]

    assert said() == ["MISS", "fwd=uri-miss"]
    assert served.run("purge", "--text", "no longer fresh", "--soft").returncode == 0
    assert said() == ["EXPIRED", "fwd=stale"]
    assert said() == ["HIT", "hit"]


def test_the_edge_that_can_be_reached_is_asked(served: Served, tmp_path: Path) -> None:
    gone = f"http://127.0.0.1:{closed_port()}"
    ran = run("say", "hi", "--json", "--url", f"{gone}, {served.url}", cwd=tmp_path)
    assert json.loads(ran.stdout)["saved_to"] == "say.wav"
    ran = run("say", "hi", "--url", f"{gone},{gone}", cwd=tmp_path)
    assert ran.returncode == 3
    assert ran.stderr.count(b"nobody listens there") == 2


def test_it_is_played_as_it_comes_and_saved_only_if_told(served: Served, tmp_path: Path) -> None:
    path = player(tmp_path, f"exec cat > {tmp_path / 'heard'}")
    ran = piped(b"", "say", "Play it", "--play", "--json", "--url", served.url, cwd=tmp_path, path=path)
    assert json.loads(ran.stdout)["saved_to"] == "ffplay"
    assert not (tmp_path / "say.wav").exists()
    heard = (tmp_path / "heard").read_bytes()
    assert heard == run("say", "Play it", "-o", "-", "--url", served.url).stdout
    ran = piped(
        TEXT.encode(), "say", "--stdin", "--play", "-o", "kept.wav", "--url", served.url, cwd=tmp_path, path=path
    )
    assert ran.returncode == 0
    assert (tmp_path / "heard").read_bytes() == (tmp_path / "kept.wav").read_bytes()


@pytest.mark.parametrize(
    ("script", "arguments", "code", "said"),
    [
        pytest.param("exit 0", ["--stdin", "x"], 2, b"TEXT or --stdin", id="both"),
        pytest.param("exit 0", [], 2, b"Missing argument 'TEXT'", id="neither"),
        pytest.param("exit 0", ["--stdin", "--fresh"], 2, b"--fresh is for TEXT", id="fresh"),
        pytest.param(
            "cat > /dev/null; echo no sound card >&2; exit 1", ["x", "--play"], 1, b"no sound card", id="fails"
        ),
        pytest.param("", ["x", "--play"], 2, b"--play needs a player", id="no player"),
    ],
)
def test_what_can_not_be_done(
    served: Served, tmp_path: Path, script: str, arguments: list[str], code: int, said: bytes
) -> None:
    path = player(tmp_path, script) if script else str(tmp_path)
    ran = piped(b"text", "say", *arguments, "--url", served.url, cwd=tmp_path, path=path)
    assert (ran.returncode, said in ran.stderr) == (code, True), ran.stderr


def test_nothing_that_is_piped_is_no_speech_and_leaves_no_file(served: Served, tmp_path: Path) -> None:
    for nothing in (b"", b" \n", b"..."):
        ran = piped(nothing, "say", "--stdin", "--json", "--url", served.url, cwd=tmp_path)
        assert (ran.returncode, ran.stdout, b"nothing came on stdin" in ran.stderr) == (1, b"", True)
    assert list(tmp_path.iterdir()) == []


def test_what_is_piped_must_be_utf_8(served: Served, tmp_path: Path) -> None:
    ran = piped(b"\xff", "say", "--stdin", "--url", served.url, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (2, b"error: what came on stdin is not UTF-8\n")
    assert not (tmp_path / "say.wav").exists()
