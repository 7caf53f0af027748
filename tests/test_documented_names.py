"""What the documents tell people to type is there: settings, variables, metrics, commands and their options."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from edgecache.cli import _program
from edgecache.configuration.declaration import declare, paths
from edgecache.ops.families import FAMILIES
from edgecache.settings import Settings
from tests.test_documents import DOCUMENTS, ROOT

#: A place in a list is `0` there; prose speaks of lists without one.
KEYS = {tuple(part for part in each if part != "0") for each in paths(declare(Settings))}
SECTIONS = {each[:length] for each in KEYS for length in range(1, len(each))}
VARIABLES = {"EDGECACHE_" + "__".join(each).upper() for each in paths(declare(Settings))} | {
    f"EDGECACHE_{each}" for each in ("CONFIG", "URL", "ADMIN_URL", "ADMIN_TOKEN", "ADMIN_TOKEN_FILE", "API_KEY")
}
SERIES = {name + suffix for name in FAMILIES for suffix in ("", "_total", "_bucket", "_sum", "_count")}
#: What `/status` tells under a name that settings have too.
TOLD = {"fills.leases"}
#: Decisions and the changelog tell of their own day.
CURRENT = [path for path in DOCUMENTS if path.parent.name != "decisions" and path.name != "CHANGELOG.md"]

_SETTING = re.compile(rf"`((?:{'|'.join(sorted({each[0] for each in SECTIONS}))})(?:\.[a-z_]+)+)(?=[`:= ])")
_VARIABLE = re.compile(r"\bEDGECACHE_[A-Z0-9_]+\b")
_METRIC = re.compile(r"\bedgecache_[a-z_]+\b")
_TYPED = re.compile(r"(?:`|\$ |/|^ *|&& )edgecache ([a-z][^`\n#|&>]*)", re.MULTILINE)
_FLAG = re.compile(r"(?<!\S)--?[a-z][a-z-]*")
documents = pytest.mark.parametrize(
    "text", [pytest.param(path.read_text("utf-8"), id=str(path.relative_to(ROOT))) for path in CURRENT]
)


@documents
def test_settings_and_variables_that_are_named_exist(text: str) -> None:
    settings = {each for each in _SETTING.findall(text) if tuple(each.split(".")) not in KEYS | SECTIONS}
    variables = {each for each in _VARIABLE.findall(text) if not {each, each.removesuffix("_FILE")} & VARIABLES}
    assert (settings - TOLD, variables) == (set(), set())


@documents
def test_metrics_that_are_named_exist(text: str) -> None:
    assert set(_METRIC.findall(text)) - SERIES == set()


@documents
def test_commands_and_options_that_are_shown_exist(text: str) -> None:
    assert [wrong for typed in _TYPED.findall(text) for wrong in _mistyped(typed)] == []


def _mistyped(typed: str) -> Iterator[str]:
    command: Any = typer.main.get_command(_program())
    for word in typed.split():
        if not hasattr(command, "commands"):
            break
        if word not in command.commands:
            yield typed
            return
        command = command.commands[word]
    known = {flag for each in command.params for flag in each.opts}
    yield from (f"{typed}: {flag}" for flag in _FLAG.findall(typed) if flag not in known)


def test_what_an_operator_is_shown_is_for_scripts_too() -> None:
    """As docs/operations.md says of every command in its table."""
    operations = next(path for path in CURRENT if path.name == "operations.md").read_text("utf-8")
    rows = re.findall(r"^\| (`edgecache .*?) \|", operations, re.MULTILINE)
    shown = {words.split()[0] for row in rows for words in re.findall(r"`(?:edgecache )?([a-z]+)", row)}
    commands: Any = typer.main.get_command(_program())
    assert len(shown) > 10
    flags = {name: {flag for each in commands.commands[name].params for flag in each.opts} for name in shown}
    assert {name for name, known in flags.items() if "--json" not in known} == set()


def test_a_name_without_a_place_would_be_found() -> None:
    """The expressions above see what they are to see."""
    assert _SETTING.findall("`limits.bdy`, `cache.ttl: 1h`") == ["limits.bdy", "cache.ttl"]
    assert list(_mistyped("purge --voic ann")) == ["purge --voic ann: --voic"]
    assert list(_mistyped("purg --voice ann")) == ["purg --voice ann"]
