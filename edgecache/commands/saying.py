"""`edgecache say`: asks an edge for speech, saves or plays it, and tells how it came.

Keeps the rule that what is saved is whole: a broken answer leaves no file. It does not know how an edge is asked.
"""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from edgecache.commands.addresses import address
from edgecache.commands.asking import Said, Target
from edgecache.commands.playing import Player, playing
from edgecache.commands.terminal import Misused, Refused, Unheard, Unreachable, painted, talk

if TYPE_CHECKING:
    from edgecache.commands.typing_aloud import Typed

STDOUT = Path("-")
SUFFIXES = {"wav": "wav", "x-wav": "wav", "mpeg": "mp3", "ogg": "ogg", "opus": "ogg", "flac": "flac", "pcm": "pcm"}
#: Why it went forward (RFC 9211 §2.2), in a word for people.
_FORWARDED = {"uri-miss": "MISS", "miss": "MISS", "request": "RETAKE", "stale": "EXPIRED", "bypass": "BYPASS"}


@dataclass(frozen=True, slots=True)
class Report:
    """What `say` tells of one answer. source: a tier on a hit, else the cluster. faster: than the cluster was."""

    cache: str
    first_audio_ms: float
    total_ms: float
    source: str
    speech_s: float | None
    size_bytes: int
    media_type: str
    faster: float | None
    saved_to: str
    cache_status: str

    def line(self, stream: TextIO) -> str:
        """For people."""
        speech = f"{self.speech_s:.1f} s of speech   " if self.speech_s is not None else ""
        times = (
            "" if self.faster is None else f"   {self.faster:.{0 if self.faster >= 10 else 1}f}x faster than the miss"
        )
        return (
            f"{painted(self.cache, stream, 5)} first audio {self.first_audio_ms:.1f} ms   total {self.total_ms:.1f} ms   "
            f"{self.source}   {speech}{self.size_bytes / 1000:.1f} kB {self.media_type}{times}   -> {self.saved_to}"
        )


def wanted(text: str, voice: str | None, language: str | None, others: Sequence[str]) -> bytes:
    """The request's body. others: NAME=VALUE, where a value that is no JSON is text. Misused: they are no fields."""
    fields: dict[str, object] = {"text": text}
    if voice is not None:
        fields["voice_id"] = voice
    if language is not None:
        fields["language"] = language
    for other in others:
        name, is_pair, spelled = other.partition("=")
        if not is_pair or not name:
            raise Misused(f"--field takes NAME=VALUE, such as speaking_rate=1.2, not {other!r}")
        if name in fields:
            raise Misused(f"--field {name}: {name!r} is given already")
        fields[name] = spelled_value(spelled)
    try:
        return json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Misused("what is to be spoken is not UTF-8") from error


def spelled_value(spelled: str) -> object:
    """A field's value as it was typed: JSON, else text."""
    try:
        return json.loads(spelled, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return spelled


def _no_json(constant: str) -> object:
    raise ValueError(constant)


@dataclass(frozen=True, slots=True)
class Spoken:
    """What `say` was asked to do. output: None: a file of a name that fits, or none if it is played."""

    body: bytes
    output: Path | None = None
    fresh: bool = False
    play: bool = False


def by_distance(url: str) -> list[str]:
    """The edges that were typed (several with commas between), the nearest first. Misused: one is no URL."""
    edges = [str(address(each.strip())) for each in url.split(",")]
    if len(edges) == 1:
        return edges  # nothing to measure, and half the start is saved
    import asyncio

    from edgecache.client import Client

    return asyncio.run(Client(edges).order())


def speak(edges: Sequence[str], api_key: str | None, asked: Spoken) -> Report:
    """Asks the first edge that can be reached. Unreachable: none can. Refused: the edge's own words."""
    if asked.output is not None:
        _check_writable(asked.output)
    with playing() if asked.play else nullcontext() as player:
        for edge in edges[:-1]:
            try:
                return say(Target(edge, api_key), asked, player)
            except Unreachable as error:
                talk(f"{error}; asking the next edge")
        return say(Target(edges[-1], api_key), asked, player)


def speak_typed(edges: Sequence[str], api_key: str | None, asked: Spoken) -> "Typed":
    """Speaks what is typed, or piped, to its end."""
    from edgecache.commands.typing_aloud import say_typed

    if asked.output is not None:
        _check_writable(asked.output)
    kept: list[bytes] = []
    path = None if asked.output == STDOUT or (asked.play and asked.output is None) else asked.output or Path("say.wav")
    with playing() if asked.play else nullcontext() as player:
        hears = [
            *([player.hear] if player else []),
            *([_to_stdout] if asked.output == STDOUT else []),
            *([kept.append] if path else []),
        ]
        told = say_typed(edges, api_key, asked.body, lambda sound: [hear(sound) for hear in hears])
    if not told.size_bytes:
        raise Refused("nothing came on stdin that can be spoken")
    if path is not None:
        _save(path, b"".join(kept))
    told.saved_to = str(path) if path else player.name if player else "stdout"
    return told


def say(target: Target, asked: Spoken, player: Player | None = None) -> Report:
    """Asks for speech and saves it, or writes it to stdout or a player as it comes. Refused: the edge's own words."""
    output, body = asked.output, asked.body
    headers = {"Content-Type": "application/json", "Accept": "audio/*"}
    if asked.fresh:
        headers["Cache-Control"] = "no-cache"
    hear = _to_stdout if output == STDOUT else player.hear if player else None
    said = target.ask("POST", "/v1/tts", body, headers, hear)
    if said.status != 200:
        raise Refused(said.problem)
    if not said.media_type.startswith("audio/"):
        raise Refused(f"the answer is {said.media_type or 'nothing that has a name'}, not audio; is --url an edge?")
    text = json.loads(body)["text"]
    if player is not None and output is None:
        return _report(said, len(text), player.name)
    path = output or Path(f"say.{SUFFIXES.get(said.media_type.removeprefix('audio/'), 'audio')}")
    if path != STDOUT:
        _save(path, said.body)
    return _report(said, len(text), "stdout" if path == STDOUT else str(path))


def _check_writable(output: Path) -> None:
    """Before anybody speaks. Misused: there is no such place, or nothing may be written there."""
    if output == STDOUT:
        if sys.stdout.isatty():
            raise Misused("audio is not for a terminal; give --output a file, or send it through a pipe")
        return
    if output.is_dir():
        raise Misused(f"--output: {output} is a directory; name a file in it")
    if not output.parent.is_dir():
        raise Misused(f"--output: there is no directory {output.parent}")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise Misused(f"--output: {output} may not be written")


def _to_stdout(content: bytes) -> None:
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        raise Unheard from error
    except OSError as error:
        raise Refused(f"stdout can't be written: {error.strerror}") from error


def _save(path: Path, audio: bytes) -> None:
    try:
        path.write_bytes(audio)
    except OSError as error:
        raise Refused(f"{path} can't be written: {error.strerror}") from error


def _report(said: Said, characters: int, saved_to: str) -> Report:
    cache_status = said.headers.get("cache-status", "")
    first_ms, speech_s = _heard(said, characters)
    cache, source = _cache(cache_status)
    made_ms = _made_ms(said.headers.get("server-timing", "")) if cache == "HIT" else None
    return Report(
        cache=cache,
        first_audio_ms=round(first_ms, 3),
        total_ms=round(said.total_ms, 3),
        source=source,
        speech_s=speech_s,
        size_bytes=len(said.body),
        media_type=said.media_type,
        faster=round(made_ms / first_ms, 1) if made_ms and first_ms else None,
        saved_to=saved_to,
        cache_status=cache_status,
    )


def _cache(cache_status: str) -> tuple[str, str]:
    """How the cache did and who had the speech, from `Cache-Status` (RFC 9211); the last of several is the nearest."""
    if not cache_status:
        return "DIRECT", "no cache"
    told = dict(each.strip().partition("=")[::2] for each in cache_status.rpartition(", ")[2].split(";"))
    source = told.get("detail", "").strip('"') or "-"
    if "hit" in told:
        return "HIT", source
    if "collapsed" in told:
        return "JOIN", source
    if "fwd-status" in told:  # what was asked for in vain; a recording past its time is told instead
        return "STALE", source
    return _FORWARDED.get(told.get("fwd", ""), "MISS"), source


def _made_ms(server_timing: str) -> float | None:
    """How long the cluster took to its first audio when this was made."""
    for metric in server_timing.split(","):
        name, _, parameters = metric.strip().partition(";")
        if name == "made":
            try:
                return float(parameters.partition("dur=")[2])
            except ValueError:
                return None
    return None


def _heard(said: Said, characters: int) -> tuple[float, float | None]:
    """When the first sample came, past any header, and how many seconds of speech there are, if the bytes tell."""
    from edgecache.speech.formats import Expected, NotAudio, inspector

    first_ms = said.pieces[0].after_ms if said.pieces else said.total_ms
    try:
        listening = inspector(said.headers.get("content-type", ""), Expected(None, None, characters, 1.0))
        for piece in said.pieces:
            heard_before = listening.audible
            listening.feed(piece.content)
            if listening.audible and not heard_before:
                first_ms = piece.after_ms
        measured = listening.finish()
    except NotAudio:
        return first_ms, None
    return first_ms, None if measured.duration_ms is None else measured.duration_ms / 1000
