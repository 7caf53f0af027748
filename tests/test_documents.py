"""The documents say what is there: files, tests, layers, links, state machines, and a record for each dependency."""

import re
import runpy
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ARCHITECTURE = ROOT / "docs" / "architecture.md"
FAULTS = ROOT / "docs" / "cluster-faults.md"
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
DOCUMENTS = sorted(
    {
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "systemd").glob("*.md"),
        *(ROOT / "bench").glob("*.md"),
    }
)
ROOMS = {path.parent.name for path in (ROOT / "edgecache").glob("*/__init__.py")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

_IN_BACKTICKS = re.compile(r"`([^`]+)`")
_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")
_RULES = re.compile(r"test_rule_(\d+(?:_and_\d+)*)_")


def _tests_in(path: Path) -> list[str]:
    return re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)


def _prose(document: Path) -> str:
    return _FENCED.sub("", document.read_text("utf-8"))


def _named(document: Path) -> Iterator[str]:
    """What stands in backticks and looks like a file of ours or a test."""
    for name in _IN_BACKTICKS.findall(_prose(document)):
        if re.match(r"(?:edgecache|tests|docs|bench|config|systemd)/[\w./*:-]*$", name):
            yield name
        elif re.match(r"\w+/\w*(?:\.py)?$", name) and name.partition("/")[0] in ROOMS:
            yield f"edgecache/{name}"


def _missing(name: str) -> str:
    """What is not there of `path`, `path/*.py` or `path::test_name_*`; empty if all is."""
    pattern, _, wanted = name.partition("::")
    paths = list(ROOT.glob(pattern)) if "*" in pattern else [ROOT / pattern]
    if not paths or not all(path.exists() for path in paths):
        return f"there is no {pattern}"
    if wanted and not any(fnmatchcase(test, wanted) for path in paths for test in _tests_in(path)):
        return f"there is no {wanted} in {pattern}"
    return ""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_tests_that_are_named_exist(document: Path) -> None:
    missing = {name: _missing(name) for name in _named(document) if not name.startswith("bench/results")}
    assert {name: why for name, why in missing.items() if why} == {}


def test_architecture_names_the_rooms_that_there_are() -> None:
    assert {f"edgecache/{room}/" for room in ROOMS} - set(_named(ARCHITECTURE)) == set()


def test_architecture_has_the_layers_of_the_contract() -> None:
    told = re.search(r"^```layers\n(.*?)^```", ARCHITECTURE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert told
    (contract,) = PROJECT["tool"]["importlinter"]["contracts"]
    assert told[1].splitlines() == contract["layers"]


@pytest.mark.parametrize("rule", range(1, 9))
def test_each_rule_has_a_test_and_architecture_names_it(rule: int) -> None:
    named = {
        int(number)
        for path in (ROOT / "tests").glob("test_*.py")
        for test in _tests_in(path)
        for numbers in _RULES.findall(test)
        for number in numbers.split("_and_")
    }
    assert rule in named, f"no test is named test_rule_{rule}_..."
    paragraph = re.search(rf"\*\*Rule {rule}: .*?(?=\n\n)", ARCHITECTURE.read_text("utf-8"), re.DOTALL)
    assert paragraph
    assert re.search(rf"::test_rule_\S*{rule}_", paragraph[0])


def test_every_fault_of_a_cluster_has_its_row_and_its_tests() -> None:
    """And no test of a row is missing on the page."""
    named: dict[str, list[str]] = {}
    for number, row in re.findall(r"^\| (\d+) \|(.*)$", FAULTS.read_text("utf-8"), re.MULTILINE):
        tests = re.findall(r"`(tests/\w+\.py::[\w*]+)`", row)
        assert tests, f"who holds row {number}?"
        named.setdefault(number, []).extend(tests)
    assert [int(number) for number in named] == [*range(14, 30), 108, 109]
    for path in (ROOT / "tests").glob("test_*.py"):
        for test in _tests_in(path):
            found = re.match(r"test_(?:row_)?(\d+)_", test)
            if found and found[1] in named:
                assert any(fnmatchcase(f"tests/{path.name}::{test}", each) for each in named[found[1]]), test


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for target in _LINK.findall(_prose(document)):
        where, _, heading = target.partition("#")
        if re.match(r"[a-z]+:", where):
            continue
        path = (document.parent / where).resolve() if where else document
        if not path.exists() or (heading and heading not in _headings(path)):
            broken.append(target)
    assert broken == []


def _headings(document: Path) -> set[str]:
    """Anchors as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_machines_are_drawn_as_the_code_has_them() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "machines.py"))
    current = (ROOT / "docs" / "machines.md").read_text("utf-8")
    assert current == script["drawn"](), "run `python docs/machines.py`"


def test_every_machine_is_drawn() -> None:
    drawn = {machine.path for machine in runpy.run_path(str(ROOT / "docs" / "machines.py"))["MACHINES"]}
    tables = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "edgecache").rglob("*.py")
        if re.search(r"^TRANSITIONS\b", path.read_text("utf-8"), re.MULTILINE)
    }
    assert tables == drawn


def test_each_decision_has_a_number_of_its_own() -> None:
    """Gaps are nothing: numbers are given out before the decisions are made."""
    numbers = [int(path.name.partition("-")[0]) for path in DECISIONS]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) == 1


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_its_form_and_half_a_page(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith(f"# {int(path.name[:4])}. ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Choice", "Consequence"]
    assert len(text.splitlines()) <= 45


@pytest.mark.parametrize(
    "dependency", [re.split(r"[\[<>=~! ;]", each)[0] for each in PROJECT["project"]["dependencies"]]
)
def test_each_dependency_is_defended(dependency: str) -> None:
    assert any(re.search(rf"`{re.escape(dependency)}\b", path.read_text("utf-8")) for path in DECISIONS), (
        f"{dependency}: half a page in docs/decisions/ says why"
    )


def test_the_changelog_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "## [Unreleased]" in text
    assert PROJECT["project"]["version"] in text
