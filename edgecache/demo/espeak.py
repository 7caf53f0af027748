"""Real speech from espeak-ng, always in a process of its own.

Keeps two rules: espeak-ng is GPL, so no process of ours that does anything else loads it; and text never becomes a
program's argument. It does not know formats beyond raw samples.
"""

import importlib.util
import shutil
import sys
from collections.abc import AsyncGenerator, Sequence
from functools import cache

from edgecache.demo.asked import Asked
from edgecache.demo.child import Child
from edgecache.demo.pcm import WAV_HEADER_BYTES
from edgecache.errors import ClientError, NodeError

#: What espeak-ng speaks at, unless a voice says otherwise (none that it comes with does).
RATE_HZ = 22_050
#: espeak-ng's own pace, and the bounds of its option -s.
_WORDS_PER_MINUTE = 175
_WORDS_BOUNDS = (80, 450)
#: Language tags that espeak-ng calls something else.
_LANGUAGES = {"zh": "cmn", "no": "nb", "iw": "he", "tl": "fil"}
#: Regions that have a voice of their own; any other region speaks its language's voice.
_REGIONAL = frozenset({"en-us", "en-gb", "pt-br", "es-419", "fr-be", "fr-ch"})
#: Voices worth naming in `GET /voices`; any name that espeak-ng knows may be asked for.
NAMED = ("en", "en-us", "de", "fr", "es", "it", "pt-br", "nl", "pl", "ru", "ar", "hi", "ja", "ko", "cmn")
_COMPLAINT_CHARACTERS = 2000
_CHILD = "edgecache.demo.espeak_child"
NO_SUCH_VOICE = 3  # exit status of our child; espeak-ng itself says it in words


@cache
def program() -> Sequence[str] | None:
    """What to run: our child with the library from `edgecache[demo]`, which tells timings; else the installed program."""
    if importlib.util.find_spec("espeakng_loader"):
        return (sys.executable, "-m", _CHILD)
    installed = shutil.which("espeak-ng")
    return (installed, "--stdout", "--stdin", "-b", "1") if installed else None


def tells_timings() -> bool:
    """Whether what is run says when which word is heard."""
    return _CHILD in (program() or ())


def voice_of(asked: Asked) -> str:
    """The name espeak-ng has for the voice that is asked for."""
    if asked.voice != "default":
        return asked.voice
    tag = asked.language.lower().replace("_", "-")
    language = tag if tag in _REGIONAL else tag.split("-")[0]
    return _LANGUAGES.get(language, language)


def words_per_minute(speaking_rate: float) -> int:
    """The pace as espeak-ng counts it."""
    low, high = _WORDS_BOUNDS
    return max(low, min(high, round(_WORDS_PER_MINUTE * speaking_rate)))


async def speak(asked: Asked, timings: bytearray) -> AsyncGenerator[bytes, None]:
    """Samples at RATE_HZ while they are made; then `timings` is filled, as JSON. ClientError: no such voice. NodeError:
    espeak-ng failed."""
    command = program()
    if command is None:
        message = f"no voice {asked.voice!r}: install espeak-ng, or edgecache[demo]; the voice `tone` is always there"
        raise ClientError(422, "voice_not_found", message, param="voice_id")
    voice = voice_of(asked)
    async with Child.started((*command, "-v", voice, "-s", str(words_per_minute(asked.speaking_rate)))) as child:
        # A NUL would end the text for espeak-ng.
        child.write_all(asked.text.replace("\0", " ").encode())
        skip = WAV_HEADER_BYTES
        while piece := await child.read():
            kept = piece[skip:]
            skip -= min(skip, len(piece))
            if kept:
                yield kept
        await _end(child, voice, timings)


async def _end(child: Child, voice: str, timings: bytearray) -> None:
    status, said = await child.ended()
    if status == 0:
        timings += said.encode() if tells_timings() else b""
        return
    complaint = said[:_COMPLAINT_CHARACTERS]
    if status == NO_SUCH_VOICE or "voice does not exist" in complaint:
        raise ClientError(422, "voice_not_found", f"espeak-ng has no voice {voice!r}", param="voice_id")
    raise NodeError(500, "synthesis_failed", f"espeak-ng ended with status {status}: {complaint}")
