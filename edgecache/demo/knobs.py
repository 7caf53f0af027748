"""How a demo cluster misbehaves, as the operator says it for all requests or one request says it for itself.

Keeps the rule that a knob nobody turned changes nothing. It does not know how a turned knob is carried out.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from edgecache.errors import ClientError
from edgecache.option import Option, option
from edgecache.speech.utterance import Value

#: Knobs of the process; a request can't turn them.
OF_THE_PROCESS = frozenset({"distance_ms", "voice", "max_concurrent", "seed"})


@dataclass(frozen=True, slots=True)
class Knobs:
    """Everything that can be turned; the names are those of the request field `demo` too."""

    voice: str = option("auto", "The default voice: auto, espeak-ng or tone. auto: tone where espeak-ng is missing.")
    distance_ms: float = option(
        0.0,
        "How far away the cluster is: one way, in milliseconds. TCP knows nothing of it; `probing.measure: answer` does.",
        minimum=0,
    )
    max_concurrent: int = option(256, "Syntheses at once; above: 429.", minimum=1)
    seed: int = option(0, "Seed of the errors that `error_rate` deals out.")
    first_byte_ms: float = option(0.0, "How long it thinks before it answers.", minimum=0)
    rtf: float = option(0.0, "Real-time factor: seconds it takes for a second of audio; 0: as it can.", minimum=0)
    chunk_bytes: int = option(4096, "The size of its chunks.", minimum=1, maximum=1 << 20)
    at_once: bool = option(False, "Answer only when all of it is made, as clusters do that can't stream.")
    error_rate: float = option(0.0, "The share of requests that fail with 500.", minimum=0, maximum=1)
    status: int = option(200, "The status it answers; other than 200: a JSON error.", minimum=200, maximum=599)
    retry_after_s: int = option(0, "`Retry-After` of such an answer; 0: none.", minimum=0)
    stall_after_bytes: int = option(-1, "Send so many bytes of body and then no more; -1: never stall.", minimum=-1)
    cut_after_bytes: int = option(-1, "Send so many bytes of body and hang up; -1: never.", minimum=-1)
    reset: bool = option(False, "Hang up with a TCP reset instead of a FIN.")
    unframed: bool = option(False, "A body whose end is the end of the connection: neither length nor chunks.")
    json_error: bool = option(False, "Status 200 and a JSON error as the body.")
    empty: bool = option(False, "Status 200 and no audio.")
    lie: bool = option(False, "Says audio/mpeg and sends JSON.")
    tags: str = option("", "Tags that it puts on its answers: `Surrogate-Key`, with spaces between.")
    take: bool = option(False, "The same request sounds different each time.")
    bytes: int = option(0, "Tone voice: how long the whole body is; 0: as the text.", minimum=0, maximum=1 << 28)

    def turned(self, demo: Value) -> "Knobs":
        """These knobs as a request's `demo` field turns them. ClientError: no such knob, or not such a value."""
        if demo is None:
            return self
        if not isinstance(demo, dict):
            raise _refusal("demo", "demo has to be an object of knobs")
        turned: dict[str, Any] = {name: _checked(name, value) for name, value in demo.items()}
        return dataclasses.replace(self, **turned)

    @property
    def stop_bytes(self) -> int | None:
        """After how many bytes of body it stops sending; None: it does not."""
        stops = [each for each in (self.stall_after_bytes, self.cut_after_bytes) if each >= 0]
        return min(stops) if stops else None

    @property
    def cuts(self) -> bool:
        """Whether it hangs up where it stops; else it stalls."""
        return self.cut_after_bytes >= 0 and self.cut_after_bytes == self.stop_bytes


def _refusal(param: str, message: str) -> ClientError:
    return ClientError(422, "bad_knob", message, param=param)


def _checked(name: str, value: Value, *, of_the_process: bool = False) -> Value:
    param = f"demo.{name}"
    field = (_ALL if of_the_process else _FIELDS).get(name)
    if field is None:
        raise _refusal(param, f"there is no knob {name!r}; there are {', '.join(sorted(_FIELDS))}")
    kinds = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}[field.type]
    if not isinstance(value, kinds) or (isinstance(value, bool) and field.type is not bool):
        raise _refusal(param, f"{param} has to be a {field.type.__name__}")
    bounds: Option = field.metadata["option"]
    low = -math.inf if bounds.minimum is None else bounds.minimum
    high = math.inf if bounds.maximum is None else bounds.maximum
    if isinstance(value, int | float) and not low <= value <= high:
        raise _refusal(param, f"{param} has to be between {low} and {high}")
    return value


_ALL: Mapping[str, Any] = {each.name: each for each in fields(Knobs)}
_FIELDS: Mapping[str, Any] = {name: each for name, each in _ALL.items() if name not in OF_THE_PROCESS}


def parse(turned: Sequence[str]) -> Knobs:
    """Knobs as a command line turns them: NAME=VALUE each. ClientError: no such knob, or not such a value."""
    kinds: dict[str, Any] = {each.name: each.type for each in fields(Knobs)}
    given: dict[str, Any] = {}
    for pair in turned:
        name, _, spelled = pair.partition("=")
        if name not in kinds:
            raise _refusal(name, f"there is no knob {name!r}; there are {', '.join(sorted(kinds))}")
        try:
            given[name] = spelled if kinds[name] is str else json.loads(spelled)
        except ValueError as error:
            raise _refusal(name, f"{name} takes a {kinds[name].__name__}, not {spelled!r}") from error
        _checked(name, given[name], of_the_process=True)
    return Knobs(**given)


def explained() -> list[str]:
    """A line for each knob: its name, what it is as long as nobody turns it, and what it does."""
    return [f"{each.name:<18} {each.default!s:<6} {each.metadata['option'].doc}" for each in fields(Knobs)]
