"""What the daemon says of itself: text on a terminal, JSON elsewhere. Never the text spoken (rule 8).

Events go through `logging`, so that libraries' own lines come out in the same form; an access line is made from an
`Outcome`, which holds neither text nor query.
"""

import logging
import sys
import time
from dataclasses import dataclass
from typing import IO, Any, Literal

import msgspec

from edgecache.cache.status import Outcome
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
            return msgspec.json.encode({**line, "exception": reason} if reason else line).decode()
        told = " ".join(f"{name}={value}" for name, value in fields.items() if value != "")
        return f"{stamp} {level:<7} {record.getMessage()} {told}".rstrip() + (f"\n{reason}" if reason else "")


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
