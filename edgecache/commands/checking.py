"""`edgecache check` and `edgecache config show`: a configuration, and what was found of it, for people and programs.

Keeps the rule that a configuration is checked without loading the daemon. Whom it names is asked by `probing`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgecache.commands.terminal import FAILED, counted, painted
from edgecache.loading import Loaded, show


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. level: ok, warning or error."""

    level: str
    what: str
    told: str


def summary(loaded: Loaded) -> Finding:
    """What was read, and from where."""
    origins = loaded.origins.values()
    variables = {origin.variable for origin in origins if origin.variable is not None}
    written = sum(origin.file is not None for origin in origins)
    told = f"{counted(len(loaded.settings.clusters), 'cluster')}, {counted(written, 'setting')} in the file"
    if loaded.path is None:
        told = counted(len(loaded.settings.clusters), "cluster")
    from_environment = f", {len(variables)} from the environment" if variables else ""
    return Finding("ok", str(loaded.path or "the environment"), told + from_environment)


def report(findings: Sequence[Finding], *, strict: bool, as_json: bool) -> int:
    """Prints them, and the exit code they come to."""
    count = {level: sum(finding.level == level for finding in findings) for level in ("error", "warning")}
    code = FAILED if count["error"] or (strict and count["warning"]) else 0
    if as_json:
        print(json.dumps({"ok": code == 0, "problems": [], "findings": [asdict(finding) for finding in findings]}))
        return code
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"{painted(finding.level, sys.stdout, 8)} {finding.what:<{width}}  {finding.told}")
    if len(findings) > 1:
        print(f"{counted(count['error'], 'error')}, {counted(count['warning'], 'warning')}")
    return code


def configured(loaded: Loaded, *, origin: bool, as_json: bool) -> str:
    """Every setting, its value as the file would say it, and where that came from if it is asked for."""
    rows = show(loaded, origin=origin)
    if as_json:
        named: list[dict[str, Any]] = [
            {"key": key, "value": value} | ({"origin": where} if origin else {}) for key, value, where in rows
        ]
        return json.dumps(named, ensure_ascii=False)
    width = max(len(key) for key, _, _ in rows)
    return "\n".join(f"{key:<{width}}  {value}" + (f"   # {where}" if origin else "") for key, value, where in rows)
