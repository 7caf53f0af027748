"""The one process that loads libespeak-ng (GPL-3), from the wheel `espeakng-loader`: text in, WAV out.

Run as `python -m edgecache.demo.espeak_child -v VOICE -s WORDS_PER_MINUTE`, it behaves as `espeak-ng --stdin --stdout`, and
then says on stderr, as JSON, when which words and sentences are heard. Nothing imports it.
"""

import argparse
import ctypes
import importlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

_SYNCHRONOUS = 2
_BUFFER_MS = 60
_UTF8 = 1
_PARAMETER_RATE = 1
_FAILED, _NO_LIBRARY, _NO_SUCH_VOICE = 1, 2, 3
_STDOUT = 1
#: Kinds of events (speak_lib.h, espeak_EVENT_TYPE).
_NO_MORE, _WORD, _SENTENCE, _END = 0, 1, 2, 5


class _Event(ctypes.Structure):
    """espeak_EVENT: where in the text, from 1, and when, in milliseconds."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("utterance", ctypes.c_uint),
        ("position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("at_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("caller", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
#: What the library told: kind, position, length, time.
_events: list[tuple[int, int, int, int]] = []


def _write(content: bytes) -> None:
    while content:
        content = content[os.write(_STDOUT, content) :]


def _on_samples(wav: Any, count: int, events: Any) -> int:
    """Called by the library for every 60 ms of speech; 1 tells it to stop, since nobody listens any more."""
    _events.extend((event.kind, event.position, event.length, event.at_ms) for event in _all(events))
    if not wav or count <= 0:
        return 0
    try:
        _write(ctypes.string_at(wav, count * 2))
    except OSError:
        return 1
    return 0


def _all(events: Any) -> Iterator[_Event]:
    at = 0
    while events and events[at].kind != _NO_MORE:
        yield events[at]
        at += 1


def _timings(characters: int) -> dict[str, list[dict[str, int]]]:
    """Each word, to where the next one begins or its clause ends; each sentence, to the next one."""
    over_ms = max((at_ms for kind, _, _, at_ms in _events if kind == _END), default=0)
    told: dict[str, list[dict[str, int]]] = {"words": [], "sentences": []}
    for name, kinds in (("words", (_WORD, _END)), ("sentences", (_SENTENCE,))):
        bounds = [each for each in _events if each[0] in kinds]
        for at, (kind, position, length, begins_ms) in enumerate(bounds):
            _, next_position, _, ends_ms = bounds[at + 1] if at + 1 < len(bounds) else (0, characters + 1, 0, over_ms)
            start = position - 1
            end = min(start + length if kind == _WORD else next_position - 1, characters)
            if kind != _END and 0 <= start < end and begins_ms < ends_ms:
                told[name].append({"begins_ms": begins_ms, "ends_ms": ends_ms, "start": start, "end": end})
    return told


def _library() -> tuple[ctypes.CDLL, int]:
    """The library, ready to speak, and its sample rate."""
    loader = importlib.import_module("espeakng_loader")
    library = ctypes.CDLL(str(loader.get_library_path()))
    rate_hz = library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, os.fsencode(os.fspath(loader.get_data_path())), 0)
    if rate_hz <= 0:
        raise OSError("espeak_Initialize failed")
    return library, int(rate_hz)


def _options() -> argparse.Namespace:
    reader = argparse.ArgumentParser(prog="espeak_child")
    reader.add_argument("-v", dest="voice", default="en")
    reader.add_argument("-s", dest="words_per_minute", type=int, default=175)
    return reader.parse_args()


def main() -> int:
    """Speaks standard input; the exit status says how it went."""
    from edgecache.demo.pcm import wav_header

    options = _options()
    try:
        library, rate_hz = _library()
    except (ImportError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return _NO_LIBRARY
    on_samples = _CALLBACK(_on_samples)
    library.espeak_SetSynthCallback(on_samples)
    if library.espeak_SetVoiceByName(options.voice.encode()) != 0:
        print("Error: The specified espeak-ng voice does not exist.", file=sys.stderr)
        return _NO_SUCH_VOICE
    library.espeak_SetParameter(_PARAMETER_RATE, options.words_per_minute, 0)
    text = sys.stdin.buffer.read()
    characters = len(text.decode("utf-8", "replace"))
    text += b"\0"
    _write(wav_header(rate_hz, None))
    spoken: int = library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 1, 0, _UTF8, None, None)
    if spoken != 0:
        return _FAILED
    os.close(_STDOUT)  # whoever reads the samples to their end reads what follows next
    print(json.dumps(_timings(characters)), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
