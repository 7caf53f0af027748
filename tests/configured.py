"""Configurations written and read, for tests."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from edgecache.configuration.report import SettingsProblems
from edgecache.loading import Loaded, load, show

ROOT = Path(__file__).parents[1]
CLUSTER = 'clusters: [{name: syd, url: "http://127.0.0.1:9001"}]\n'
REGION_ENVIRON = {"REDIS_HOST": "10.0.0.5", "REDIS_PASSWORD": "r", "SPEEKO_API_KEY": "k", "RECORDINGS_SECRET": "s"}


def read(directory: Path, text: str, environ: Mapping[str, str] | None = None) -> Loaded:
    path = directory / "edge.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return load(path, environ or {})


def refused(directory: Path, text: str, environ: Mapping[str, str] | None = None) -> SettingsProblems:
    with pytest.raises(SettingsProblems) as caught:
        read(directory, text, environ)
    return caught.value


def told(error: SettingsProblems) -> list[tuple[int | None, int | None, str]]:
    return [(each.line, each.column, f"{each.key}: {each.message} / {each.hint}") for each in error.problems]


def held(loaded: Loaded, key: str) -> str:
    return next(spelled for each, spelled, _ in show(loaded, origin=False) if each == key)
