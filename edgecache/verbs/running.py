"""What every command needs: the program's name and version, its settings, and an event loop. Imports the rest when asked."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecache.loading import Loaded

PROGRAM = "edgecache"


def spelled_version() -> str:
    """As `--version` prints it."""
    from importlib.metadata import version

    return f"{PROGRAM} {version(PROGRAM)}"


def load(config: Path | None, flags: Mapping[str, str] | None = None) -> "Loaded":
    """flags: settings as variables, over those of the environment."""
    from edgecache.loading import load as read

    return read(config, {**os.environ, **(flags or {})})


def run(main: Any) -> None:
    """A coroutine to its end, on uvloop."""
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
