"""The one process that loads libespeak-ng (GPL-3), from the wheel `espeakng-loader`: text in, WAV out.

Run as `python -m edgecache.demo.espeak_child -v VOICE -s WORDS_PER_MINUTE`, it behaves as `espeak-ng --stdin --stdout`.
Nothing imports it.
"""

import argparse
import ctypes
import importlib
import os
import sys
from typing import Any

_SYNCHRONOUS = 2
_BUFFER_MS = 60
_UTF8 = 1
_PARAMETER_RATE = 1
_FAILED, _NO_LIBRARY, _NO_SUCH_VOICE = 1, 2, 3
_STDOUT = 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def _write(content: bytes) -> None:
    while content:
        content = content[os.write(_STDOUT, content) :]


def _on_samples(wav: Any, count: int, _events: int | None) -> int:
    """Called by the library for every 60 ms of speech; 1 tells it to stop, since nobody listens any more."""
    if not wav or count <= 0:
        return 0
    try:
        _write(ctypes.string_at(wav, count * 2))
    except OSError:
        return 1
    return 0


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
    text = sys.stdin.buffer.read() + b"\0"
    _write(wav_header(rate_hz, None))
    spoken: int = library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 1, 0, _UTF8, None, None)
    return _FAILED if spoken != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
