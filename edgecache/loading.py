"""How settings are read, checked across parts, and shown.

Keeps the rule that every mistake is reported at once and nothing is applied while there is one. It does not know what
YAML, the environment or a report look like (`configuration` does), and it builds no part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecache.checks import Checks
from edgecache.configuration import document, writing
from edgecache.configuration import schema as json_schema
from edgecache.configuration.declaration import declare
from edgecache.configuration.environment import Overlay
from edgecache.configuration.reading import Reading
from edgecache.configuration.report import Findings, Origin, SettingsProblems
from edgecache.errors import SettingsError
from edgecache.settings import Settings

PREFIX = "EDGECACHE_"
#: Variables of the command line, which are no settings.
OTHER_VARIABLES = (
    "EDGECACHE_CONFIG",
    "EDGECACHE_URL",
    "EDGECACHE_ADMIN_URL",
    "EDGECACHE_ADMIN_TOKEN",
    "EDGECACHE_ADMIN_TOKEN_FILE",
    "EDGECACHE_API_KEY",
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings without a mistake. origins: where each value came from, by its dotted key."""

    settings: Settings
    origins: Mapping[str, Origin]
    path: Path | None


def load(path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """The file's settings with the environment over them; no path: the environment's alone.

    SettingsProblems, a SettingsError: every mistake, ready to print.
    """
    findings, tree = Findings(None, "the environment"), None
    directory, top = Path(), Origin()
    if path is not None:
        findings, tree = document.read(path)
        directory, top = path.absolute().parent, Origin(str(path), 1, 1)
        if tree is None and findings.problems:
            raise findings.error()
    declared = declare(Settings)
    tree = Overlay(declared, PREFIX, findings, OTHER_VARIABLES).lay(tree, environ)
    reading = Reading(findings, environ, directory)
    settings: Settings = reading.read(declared, tree, top)
    Checks(settings, reading, findings).all()
    if findings.problems:
        raise findings.error()
    return Loaded(settings, reading.origins, path)


def problems_of(error: SettingsError) -> list[dict[str, Any]]:
    """The mistakes for programs; one without a place if the error has only words."""
    if isinstance(error, SettingsProblems):
        return error.as_json()
    return [{"where": "", "line": None, "column": None, "key": "", "message": str(error), "hint": None}]


def show(loaded: Loaded, *, origin: bool) -> list[tuple[str, str, str]]:
    """Key, value as the file would say it (secrets are stars), and where it came from (empty unless asked for)."""
    rows = writing.rows(declare(Settings), loaded.settings, loaded.origins)
    return [(key, spelled, where if origin else "") for key, spelled, where in rows]


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the file."""
    return json_schema.schema(declare(Settings), "edgecache configuration")


def reference() -> str:
    """All keys as Markdown tables: what docs/configuration.md holds."""
    return writing.reference(declare(Settings))
