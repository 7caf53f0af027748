"""The house itself: sizes, names, imports, and what core code may not do. Layers are import-linter's."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgecache

ROOT = Path(edgecache.__file__).parent
MAX_CODE_LINES, MAX_PARAMETERS, MAX_FILE_LINES = 40, 5, 400
#: typer makes a command's options out of its function's parameters, so a command has as many as it has options. Commands
#: are made inside the function that registers them; that one is not charged with their lines, they are counted themselves.
COMMANDS = "verbs/"
BANNED_NAMES = {"utils", "util", "helpers", "common", "base", "manager", "misc"}
#: The roots of tasks, and of calls back, that must outlive what nobody foresaw; each says why where it is.
TASK_ROOTS = {
    **{"fill/fills.py": "_run", "clusters/fleet.py": "_keep_probing", "delivery/http.py": "handle"},
    **{"fill/flight.py": "_call", "clusters/connections.py": "_hand_over"},
    **{"clusters/exchange.py": "begin", "clusters/upstream.py": "_headed"},
    **{"fill/edge.py": "_tell", "delivery/miss.py": "_told", "delivery/misslane.py": "begin"},
}
BROAD = {"Exception", "BaseException", "CancelledError"}
CORE = (
    *("measures/*.py", "ops/objectives.py", "ops/windows.py"),
    *("speech/*.py", "cache/*.py", "dialects/*.py", "fill/flight.py", "fill/seal.py", "delivery/ranges.py"),
    *("fill/tail.py", "fill/priority.py", "fill/refusal.py", "fill/budget.py", "fill/queue.py", "fill/orphans.py"),
    *("clusters/routing.py", "clusters/recent.py", "clusters/roster.py", "clusters/deadlines.py"),
    *("delivery/memo.py", "delivery/plain.py", "delivery/prepared.py", "delivery/problem.py"),
    *("delivery/heads.py", "delivery/streamhead.py"),
    *("delivery/accept.py", "delivery/framer.py", "delivery/sse.py", "delivery/protobuf.py"),
    *("delivery/talk.py", "delivery/handshake.py", "delivery/urgency.py"),
    *("clusters/estimate.py", "clusters/health.py", "clusters/selection.py", "clusters/fault.py", "clusters/wire.py"),
    *("ops/whole.py", "ops/restarts.py", "ops/modes.py", "fill/shedding.py"),
)
#: Sockets, clocks, logs, chance and the process: the shell's.
SHELL_ONLY = {"aiohttp", "redis", "socket", "time", "datetime", "logging", "random", "secrets", "os", "subprocess"}
#: A flight wakes its readers; no other core module knows that there is an event loop.
WAKES = "fill/flight.py"

#: Made by protoc from speech.proto, and not ours to shape; tests/test_protobuf.py checks that it is current.
GENERATED = {ROOT / "dialects/speech_pb2.py"}

FILES = sorted(set(ROOT.rglob("*.py")) - GENERATED)
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(), path.name) for path in FILES}
Function = ast.FunctionDef | ast.AsyncFunctionDef
NAMES = (ast.Attribute, ast.Name)

every_module = pytest.mark.parametrize("name", [name for name in TREES if not name.endswith("__init__.py")])
core_module = pytest.mark.parametrize(
    "name",
    sorted(
        {
            path.relative_to(ROOT).as_posix()
            for each in CORE
            for path in ROOT.glob(each)
            if path in FILES and path.stem[0] != "_"
        }
    ),
)


def functions(name: str) -> Iterator[Function]:
    return (node for node in ast.walk(TREES[name]) if isinstance(node, Function))


def code_lines(source: str) -> set[int]:
    """Numbers of lines with code on them: no comments, no blank lines."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {line for token in tokens if token.type not in silent for line in range(token.start[0], token.end[0] + 1)}


def span(node: ast.stmt) -> set[int]:
    assert node.end_lineno is not None
    return set(range(node.lineno, node.end_lineno + 1))


def own_lines(function: Function, code: set[int], *, with_nested: bool) -> set[int]:
    lines = span(function) & code
    if ast.get_docstring(function, clean=False) is not None:
        lines -= span(function.body[0])
    if not with_nested:
        nested = (each for each in ast.walk(function) if isinstance(each, Function) and each is not function)
        lines -= {line for each in nested for line in span(each)}
    return lines


def parameters(function: Function) -> list[str]:
    given = function.args
    plain = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    packed = [each for each in (given.vararg, given.kwarg) if each is not None]
    return [each.arg for each in (*plain, *packed) if each.arg not in ("self", "cls")]


@every_module
def test_functions_and_files_stay_small(name: str) -> None:
    source = (ROOT / name).read_text()
    code = code_lines(source)
    assert len(source.splitlines()) <= MAX_FILE_LINES
    for function in functions(name):
        length = len(own_lines(function, code, with_nested=not name.startswith(COMMANDS)))
        assert length <= MAX_CODE_LINES, f"{function.name} has {length} lines of code"
        taken = parameters(function)
        assert name.startswith(COMMANDS) or len(taken) <= MAX_PARAMETERS, f"{function.name} takes {', '.join(taken)}"


@every_module
def test_every_module_says_what_it_is(name: str) -> None:
    assert ast.get_docstring(TREES[name])


def test_a_module_is_named_after_what_it_is_about() -> None:
    words = {word for path in FILES for word in path.relative_to(ROOT).with_suffix("").parts}
    assert not words & BANNED_NAMES


def test_packages_hold_no_code_of_their_own() -> None:
    packages = [path for path in FILES if path.name == "__init__.py"]
    assert packages
    assert not [path for path in packages if path.read_text()]
    assert {path.parent for path in FILES} == {path.parent for path in packages}


def named(expression: ast.expr | None) -> set[str]:
    """The words of the names in an expression."""
    parts = () if expression is None else ast.walk(expression)
    return {each.attr if isinstance(each, ast.Attribute) else each.id for each in parts if isinstance(each, NAMES)}


@every_module
def test_no_error_is_swallowed(name: str) -> None:
    roots = {line for each in functions(name) if TASK_ROOTS.get(name) == each.name for line in span(each)}
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ExceptHandler):
            where = f"{name}:{node.lineno}"
            again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if node.type is None or named(node.type) & BROAD:
                assert again or (node.lineno in roots and named(node.type) == {"Exception"}), where
            assert not all(isinstance(each, ast.Pass) for each in node.body), f"{where} says nothing of why"
        if isinstance(node, ast.Call) and "suppress" in named(node.func):
            assert not {word for each in node.args for word in named(each)} & BROAD, f"{name}:{node.lineno}"


def test_the_list_of_task_roots_is_exact() -> None:
    caught = {
        (name, function.name)
        for name in TREES
        for function in functions(name)
        for node in ast.walk(function)
        if isinstance(node, ast.ExceptHandler) and named(node.type) == {"Exception"}
    }
    assert caught == set(TASK_ROOTS.items())


def imported(name: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


@core_module
def test_core_code_reads_no_clock_and_touches_nothing(name: str) -> None:
    used = imported(name)
    assert not used & SHELL_ONLY
    if name == WAKES:
        return
    assert "asyncio" not in used
    waits = (ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(TREES[name]) if isinstance(node, waits)]


def test_the_flight_is_handed_no_clock_and_opens_nothing() -> None:
    called = {
        node.attr
        for node in ast.walk(TREES[WAKES])
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "asyncio"
    }
    assert called == {"Future", "get_running_loop"}


IMPORT_EACH_ALONE = """
import importlib, io, sys, threading, contextlib
said = io.StringIO()
for name in sys.argv[1:]:
    for loaded in [each for each in sys.modules if each.partition(".")[0] == "edgecache"]:
        del sys.modules[loaded]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            importlib.import_module(name)
    except BaseException as error:
        print(f"{name}: {type(error).__name__}: {error}")
    if said.getvalue() or threading.active_count() > 1:
        print(f"{name}: did more than be imported: {said.getvalue()}")
        break
"""


@pytest.mark.timeout(300)
def test_each_module_imports_alone_without_a_warning() -> None:
    names = ["edgecache." + name.removesuffix(".py").replace("/", ".") for name in TREES if "__" not in name]
    assert len(names) > 50
    command = [sys.executable, "-W", "error", "-c", IMPORT_EACH_ALONE, *names]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_tests_have_a_word_on_what_they_are_about() -> None:
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name != "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text())), path.name


def test_no_source_file_names_a_home_directory() -> None:
    for path in FILES:
        assert not re.search(r"/(home|Users)/[a-z]", path.read_text()), path.name
