"""What every server is asked, byte for byte the same, and whether what it answers is right.

Clients ask for a hundred texts in turn, each with its own API key out of a thousand that the edge knows. `identical`: a text
always comes with the same bytes. `traced`, `numbered`: a `traceparent`, an `X-Request-Id` makes each request differ.
`missed`: another text every time.
"""

import http.client
import json
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.bare_cluster import wav
from bench.load import tts_request
from edgecache.delivery.auth import new_key

TEXTS = 100
KEYS = 1000
#: Where it stands in a request, the load generators put another number every time (peers/cycling.lua, openloop.c).
MARK = "0123456789abcdef"
_DIFFERS = {
    "identical": "",
    "traced": f"traceparent: 00-4bf92f3577b34da6{MARK}-00f067aa0ba902b7-01\r\n",
    "numbered": f"X-Request-Id: bench-{MARK}\r\n",
}
LOADS = tuple(_DIFFERS)
#: No recording of it is anywhere.
MISSED = "missed"
#: A recording may be written behind the answer, so that it is no hit at once.
WARM_TIMEOUT_S = 10.0


class WrongAnswer(Exception):
    """What was wrong, and with which head."""


@dataclass(frozen=True, slots=True)
class Questions:
    """keys_file: what the edge knows of the keys. files: the requests of each load, as the generators read them."""

    requests: tuple[bytes, ...]
    keys_file: Path
    files: dict[str, Path]


def write_questions(directory: Path) -> Questions:
    """The requests, with fresh keys."""
    keys, lines = zip(*(new_key(f"client-{n:04}") for n in range(KEYS)), strict=True)
    keys_file = directory / "keys.txt"
    keys_file.write_text("\n".join(lines) + "\n")
    files, requests = {}, {}
    for load, differs in _DIFFERS.items():
        requests[load] = tuple(_request(f"{n:03}", keys[n * KEYS // TEXTS], differs) for n in range(TEXTS))
    requests[MISSED] = tuple(_request(MARK, keys[n * KEYS // TEXTS]) for n in range(TEXTS))
    for load, asked in requests.items():
        files[load] = directory / f"{load}.requests"
        files[load].write_bytes(b"".join(struct.pack("<I", len(each)) + each for each in asked))
    return Questions(requests["identical"], keys_file, files)


def _request(number: str, key: str, differs: str = "") -> bytes:
    # Short enough for 4 KiB of sound, which the edge would not believe to be a long sentence.
    text = f"Number {number}: ready at half past nine."
    body = json.dumps({"text": text, "voice_id": "tone", "language": "en"}).encode()
    return tts_request(body, f"User-Agent: bench\r\nAccept: */*\r\nX-API-Key: {key}\r\n{differs}")


class Asking:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=WARM_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        """Head and body of the answer."""
        self._socket.sendall(request)
        answer = http.client.HTTPResponse(self._socket, method="POST")
        answer.begin()
        return answer, answer.read()


@dataclass(frozen=True, slots=True)
class Proof:
    """By which header an answer shows that it is a hit; without one, the server has nothing but hits."""

    header: str = ""
    word: str = ""

    def of(self, answer: http.client.HTTPResponse) -> bool:
        """Whether this is one."""
        return not self.header or self.word in (answer.headers[self.header] or "")


NO_PROOF = Proof()


def warm(port: int, questions: Questions, size: int, proof: Proof) -> None:
    """Asks for every text until it is a hit, and looks at every answer. WrongAnswer: one is wrong, or no hit comes."""
    audio = wav(size)
    deadline_s = time.monotonic() + WARM_TIMEOUT_S
    with Asking(port) as asking:
        for request in questions.requests:
            while True:
                answer, body = asking.ask(request)
                wrong = fault(answer, body, audio, proof)
                if wrong is None and proof.of(answer):
                    break
                if wrong is not None or time.monotonic() > deadline_s:
                    raise WrongAnswer(f"{wrong or 'has no hits'}:\n{answer.headers}".strip())


def fault(answer: http.client.HTTPResponse, body: bytes, audio: bytes, proof: Proof) -> str | None:
    """What is wrong with an answer. The length is announced with a hit alone."""
    if answer.status != 200:
        return f"answers {answer.status}: {body[:300].decode(errors='replace')}"
    if body != audio:
        return f"answers {len(body)} bytes that are not the cluster's {len(audio)}"
    if proof.of(answer) and answer.headers["Content-Length"] != str(len(audio)):
        return "does not announce the length of a hit"
    return None
