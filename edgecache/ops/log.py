"""What the daemon says of itself: text on a terminal, JSON elsewhere. Never the text spoken (rule 8).

Events go through `logging`, so that libraries' own lines come out in the same form; an access line is made from an
`Outcome`, which holds neither text nor query. Of an error nobody foresaw it is told where it was raised and of what kind
it is, but not its own words: they may quote what it was about.
"""

import asyncio
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal

import msgspec

from edgecache.cache.status import Outcome
from edgecache.clusters.fault import UpstreamFault
from edgecache.errors import SettingsError, SpeechError
from edgecache.option import option

log = logging.getLogger("edgecache")


@dataclass(frozen=True, slots=True)
class Logging:
    """Logs go to standard error."""

    format: Literal["auto", "text", "json"] = option("auto", "auto: text on a terminal, JSON elsewhere.")
    level: Literal["debug", "info", "warning", "error"] = option("info", "The least important thing that is said.")
    access: bool = option(True, "A line per request.")


#: Attributes of a log record that say more than its message, and only those.
_FIELDS = "fields"


class Lines(logging.Formatter):
    """One event a line, as text or JSON."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, _FIELDS, {})
        reason = self.formatException(record.exc_info) if record.exc_info else ""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        level = record.levelname.lower()
        if self._as_json:
            line = {"ts": stamp, "level": level, "msg": record.getMessage(), **fields}
            return _json({**line, "exception": reason} if reason else line)
        told = " ".join(f"{name}={_word(str(value))}" for name, value in fields.items() if value != "")
        return f"{stamp} {level:<7} {_line(record.getMessage())} {told}".rstrip() + (f"\n{reason}" if reason else "")

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """The traceback, without the error's own words."""
        return "".join(_traced(ei[1], set())).rstrip()


def _json(line: dict[str, object]) -> str:
    try:
        return msgspec.json.encode(line, enc_hook=str).decode()
    except UnicodeEncodeError:  # half a surrogate pair, as Python makes of bytes that are not UTF-8
        return json.dumps(line, default=str)


def _line(text: str) -> str:
    """The text in one line: what comes from outside can't pretend to be a line of its own."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _word(text: str) -> str:
    """The text as one value among others."""
    return text if text.isprintable() and not set(' "=') & set(text) else json.dumps(text)


def _traced(error: BaseException, seen: set[int]) -> Iterator[str]:
    """What led to it first, as Python tells it."""
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _traced(before, seen)
        yield "and then\n"
    yield from traceback.format_tb(error.__traceback__)
    yield _kind(error) + "\n"
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _traced(each, seen)


def _kind(error: BaseException) -> str:
    """Its class, and words only where they are ours or the system's."""
    name = type(error).__qualname__
    match error:
        case SettingsError() | UpstreamFault():
            return f"{name}: {error}"
        case SpeechError():
            return f"{name}: {error.code}"
        case OSError(errno=int(number)):
            return f"{name}: {os.strerror(number)}"
        case _:
            return name


def start(settings: Logging, stream: IO[str] | None = None) -> None:
    """Sends all logs to one stream (standard error), in one form."""
    stream = sys.stderr if stream is None else stream
    as_json = settings.format == "json" or (settings.format == "auto" and not stream.isatty())
    lines = logging.StreamHandler(stream)
    lines.setFormatter(Lines(as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [lines]
    root.setLevel(settings.level.upper())
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def event(level: int, message: str, **fields: object) -> None:
    """One thing that happened."""
    log.log(level, message, extra={_FIELDS: fields})


def unforeseen(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An error nobody caught: for `loop.set_exception_handler`. asyncio's own way shows arguments and results too."""
    message = str(context.get("message", "an error nobody caught"))
    if message.startswith("Exception in callback"):  # and then the callback, with what it was called with
        message = "an error in a callback"
    task, error = context.get("task") or context.get("future"), context.get("exception")
    fields = {"task": task.get_name()} if isinstance(task, asyncio.Task) else {}
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    log.error(message, exc_info=exc_info, extra={_FIELDS: fields})


def access(outcome: Outcome) -> None:
    """The line of one exchange."""
    if not log.isEnabledFor(logging.INFO):
        return
    fields: dict[str, object] = {
        "request_id": outcome.request_id,
        "caller": outcome.caller,
        "status": outcome.status,
        "cache": outcome.result.value,
        "cluster": outcome.cluster,
        "bytes": outcome.sent_bytes,
        "first_byte_ms": round(outcome.first_byte_ms, 2),
        "total_ms": round(outcome.total_ms, 2),
        "whole": outcome.whole,
        "error": outcome.error,
    }
    log.info("%s %s", outcome.method, outcome.route, extra={_FIELDS: fields})


def cluster_changed(upstream: str, old: str, new: str, reason: str) -> None:
    """An upstream's health is another."""
    event(logging.WARNING, "a cluster changed", upstream=upstream, old=old, new=new, reason=reason)


def address_refused(host: str, why: str) -> None:
    """DNS says of a cluster what is not believed."""
    event(logging.WARNING, "an address of a cluster was refused", host=host, reason=why)


def connections_fitted(limit: int, wanted: int) -> None:
    """There may be fewer connections than was configured."""
    if limit < wanted:
        remedy = "raise LimitNOFILE or ulimit -n, or lower limits.connections"
        event(logging.WARNING, "fewer descriptors than connections", limit=limit, configured=wanted, remedy=remedy)


def mode_changed(before: str, after: str, reason: str, *, worse: bool) -> None:
    """This process can do less than before, or more."""
    event(logging.WARNING if worse else logging.INFO, "the mode changed", old=before, new=after, reason=reason)


def redis_changed(state: object, reason: str) -> None:
    """Redis is asked, or no longer."""
    event(logging.WARNING, "Redis changed", state=getattr(state, "value", state), reason=reason)
