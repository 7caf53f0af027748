"""Lines of the log: one event a line, as text or as JSON, whatever is in it."""

import io
import json
import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecache.cache.status import Outcome, Result
from edgecache.ops import log
from edgecache.ops.log import Lines, Logging

OUTCOME = Outcome(
    *("r-1", "ann", "POST", "/v1/tts", 200, Result.MISS, 1234, 12.3456, 100.0, True),
    cluster="syd",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Logging belongs to the whole process."""
    root, asyncios = logging.getLogger(), logging.getLogger("asyncio")
    before = list(root.handlers), root.level, asyncios.level
    yield
    root.handlers[:], level, asyncios_level = before
    root.setLevel(level)
    asyncios.setLevel(asyncios_level)


def line(message: str, fields: Mapping[str, object], *, as_json: bool) -> str:
    record = logging.LogRecord("edgecache", logging.WARNING, "", 0, message, None, None)
    record.fields = fields
    return Lines(as_json=as_json).format(record)


FIELDS: list[tuple[str, dict[str, object], str, dict[str, object]]] = [
    ("none", {}, "", {}),
    ("plain", {"status": 200, "whole": True, "ms": 1.5}, "status=200 whole=True ms=1.5", {}),
    ("empty ones are left out of text", {"error": "", "cluster": "syd"}, "cluster=syd", {}),
    ("of two words", {"reason": "told to wait"}, 'reason="told to wait"', {}),
    ("with quotes", {"reason": 'a"b'}, r'reason="a\"b"', {}),
    ("with an equals sign", {"url": "http://x/?a=1"}, 'url="http://x/?a=1"', {}),
    ("with a line break", {"reason": "a\nb"}, r'reason="a\nb"', {}),
    ("with a terminal's escapes", {"reason": "\x1b[2J"}, r'reason="\u001b[2J"', {}),
    ("with a line separator", {"reason": "a\u2028b"}, r'reason="a\u2028b"', {}),
    ("in another script", {"name": "шепот"}, "name=шепот", {}),
    ("half a character", {"name": "\udcff"}, r'name="\udcff"', {}),
    ("something else", {"path": Path("/run/x")}, "path=/run/x", {"path": "/run/x"}),
]
fields = pytest.mark.parametrize(
    ("given_fields", "text", "told"), [row[1:] for row in FIELDS], ids=[row[0] for row in FIELDS]
)


@fields
def test_fields_as_text(given_fields: dict[str, object], text: str, told: dict[str, object]) -> None:
    stamp, level, *rest = line("a cluster changed", given_fields, as_json=False).split(maxsplit=2)
    assert datetime.fromisoformat(stamp).tzinfo is not None
    assert (level, *rest) == ("warning", f"a cluster changed {text}".rstrip())


@fields
def test_fields_as_json(given_fields: dict[str, object], text: str, told: dict[str, object]) -> None:
    read = json.loads(line("a cluster changed", given_fields, as_json=True))
    assert datetime.fromisoformat(read.pop("ts")).tzinfo is not None
    assert read == {"level": "warning", "msg": "a cluster changed", **given_fields, **told}


@given(st.text(st.characters(codec=None)), st.dictionaries(st.just("name"), st.text(st.characters(codec=None))))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_said_is_said_in_one_line(message: str, about: dict[str, object]) -> None:
    for as_json in (True, False):
        said = line(message, about, as_json=as_json)
        assert "\n" not in said
        assert json.loads(said)["level"] == "warning" if as_json else said.isprintable()


def test_an_error_is_told_behind_its_event() -> None:
    try:
        raise OSError(28, "ENOSPC")
    except OSError as error:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "can't", None, (OSError, error, error.__traceback__))
    first, *rest = Lines(as_json=False).format(record).splitlines()
    assert first.endswith("error   can't")
    assert rest[-1] == "OSError: No space left on device"
    read = json.loads(Lines(as_json=True).format(record))
    assert read["exception"].splitlines() == rest


FORMS = [
    ("auto", io.StringIO, True),
    ("auto", Terminal, False),
    ("json", Terminal, True),
    ("text", io.StringIO, False),
]


@pytest.mark.parametrize(("form", "stream", "as_json"), FORMS, ids=[f"{row[0]} {row[1].__name__}" for row in FORMS])
def test_text_on_a_terminal_and_json_elsewhere(form: Any, stream: type[io.StringIO], as_json: bool) -> None:
    said = stream()
    log.start(Logging(format=form), said)
    log.event(logging.INFO, "serving", url="http://x")
    logging.getLogger("aiohttp").warning("said by a library: %s", 1)
    logging.getLogger("asyncio").info("too little to be said")
    first, second = said.getvalue().splitlines()
    if as_json:
        assert json.loads(first)["url"] == "http://x"
        assert json.loads(second)["msg"] == "said by a library: 1"
    else:
        assert first.endswith("info    serving url=http://x")


@pytest.mark.parametrize(
    ("level", "said"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)], ids=lambda value: str(value)
)
def test_what_is_less_than_the_level_is_not_said(level: Any, said: int) -> None:
    stream = io.StringIO()
    log.start(Logging(level=level), stream)
    for each in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        log.event(each, "x")
    assert len(stream.getvalue().splitlines()) == said


def test_a_line_for_each_exchange() -> None:
    stream = io.StringIO()
    log.start(Logging(format="json"), stream)
    log.access(OUTCOME)
    read = json.loads(stream.getvalue())
    assert read.pop("ts")
    assert read == {
        **{"level": "info", "msg": "POST /v1/tts", "request_id": "r-1", "caller": "ann", "status": 200},
        **{"cache": "miss", "cluster": "syd", "bytes": 1234, "first_byte_ms": 12.35, "total_ms": 100.0},
        **{"whole": True, "error": ""},
    }


def test_no_line_for_an_exchange_where_only_warnings_are_said() -> None:
    stream = io.StringIO()
    log.start(Logging(level="warning"), stream)
    log.access(OUTCOME)
    assert stream.getvalue() == ""


def test_starting_anew_says_nothing_twice() -> None:
    stream = io.StringIO()
    log.start(Logging(format="text"), stream)
    log.start(Logging(format="text"), stream)
    log.event(logging.INFO, "once")
    assert len(stream.getvalue().splitlines()) == 1
