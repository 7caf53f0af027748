"""One `edgecache warm`, from the file to the exit code: progress on stderr, what it came to on stdout.

It does not know how an edge is asked, nor how a file is read.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from edgecache.commands.saying import by_distance
from edgecache.commands.terminal import FAILED, INTERRUPTED, PARTIAL, Ended, Misused, counted, talk
from edgecache.commands.warm_options import Kind
from edgecache.commands.warm_set import Choices, WarmSet, gathered, kind_of, read
from edgecache.commands.warm_state import Failure, State, check_writable, save_failures
from edgecache.commands.warming import Done, Plan, Tally, Warming

STDIN = "-"
#: So many lines that are bad, and so many failures, are told one by one; the rest is counted.
TOLD_AT_MOST = 20
#: Where there is no terminal, a line for each of so many parts.
PARTS = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """What `warm` was asked to do. file: its name, or `-`. kind: None: as the name says."""

    file: str
    plan: Plan
    choices: Choices
    kind: Kind | None = None
    state: Path | None = None
    anew: bool = False
    retry_file: Path | None = None


def warm(asked: Asked, *, as_json: bool) -> int:
    """All of it; the exit code."""
    check_writable(asked.retry_file, "--retry-file")
    url = by_distance(asked.plan.url)[0]
    plan = Plan(url, asked.plan.api_key, asked.plan.per_s, asked.plan.at_once, asked.plan.dry)
    warm_set = _read(asked, f"{url}\0{plan.api_key or ''}")
    state = State(None if plan.dry else asked.state or _beside(asked.file))
    state.open(anew=asked.anew)
    left = [each for each in warm_set.wanted if each.mark not in state.done]
    tally = Tally(len(warm_set.wanted), len(warm_set.wanted) - len(left))
    began_s = time.monotonic()
    ended = _carry_out(plan, state, tally, left)
    places = {each.mark: place for place, each in enumerate(warm_set.wanted)}
    tally.failures.sort(key=lambda each: places[each.wanted.mark])
    whole = ended is None and not tally.interrupted and not tally.failures
    state.close(forget=whole or not state.done)
    if asked.retry_file is not None and not plan.dry:
        _retry_file(asked.retry_file, asked, tally, early=ended is not None or bool(warm_set.bad))
    summary = _summary(warm_set, tally, plan) | {"took_s": round(time.monotonic() - began_s, 1)}
    summary["state"] = None if whole or not state.done or state.path is None else str(state.path)
    print(json.dumps(summary) if as_json else _line(summary))
    if ended is not None:
        raise ended
    return _code(tally, warm_set)


def _read(asked: Asked, salt: str) -> WarmSet:
    try:
        content = sys.stdin.buffer.read() if asked.file == STDIN else Path(asked.file).read_bytes()
    except OSError as error:
        raise Misused(f"{asked.file} can't be read: {error.strerror}") from error
    name = "stdin" if asked.file == STDIN else asked.file
    warm_set = gathered(read(content, name, asked.kind or kind_of(asked.file)), asked.choices, salt)
    for bad in warm_set.bad[:TOLD_AT_MOST]:
        talk(f"{bad.where}: {bad.why}")
    if len(warm_set.bad) > TOLD_AT_MOST:
        talk(f"and {counted(len(warm_set.bad) - TOLD_AT_MOST, 'bad line')} more")
    return warm_set


def _retry_file(path: Path, asked: Asked, tally: Tally, *, early: bool) -> None:
    """Written, unless it is what was read and holds more than what failed: what was not come to, or could not be read."""
    if (early or tally.interrupted) and asked.file != STDIN and path.exists() and path.samefile(asked.file):
        talk(f"{path} stays as it is: it holds more than what failed")
        return
    save_failures(path, tally.failures)


def _beside(file: str) -> Path | None:
    return None if file == STDIN else Path(f"{file}.warm")


def _carry_out(plan: Plan, state: State, tally: Tally, left: Sequence[Any]) -> Ended | None:
    """What ended it before its time, if anything did: what was done until then is to be told first."""
    if tally.before:
        talk(f"going on: {tally.before} of {tally.whole} were done before ({state.path})")
    try:
        with _progress(tally) as hear:
            asyncio.run(Warming(plan, state, tally, hear).run(list(left)))
    except Ended as error:
        return error
    return None


# Progress.


@contextmanager
def _progress(tally: Tally) -> Iterator[Any]:
    """What is told of each utterance."""
    if not sys.stderr.isatty():
        yield _Lines(tally).hear
        return
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=tally.whole, completed=tally.before)
        yield _Bar(tally, progress, task).hear


@dataclass(slots=True)
class _Bar:
    tally: Tally
    progress: Progress
    task: TaskID

    def hear(self, failure: Failure | None) -> None:
        if failure is not None and len(self.tally.failures) <= TOLD_AT_MOST:
            self.progress.console.print(_failed(failure), markup=False, highlight=False)
        self.progress.update(self.task, completed=self.tally.finished, description=_counts(self.tally))


@dataclass(slots=True)
class _Lines:
    tally: Tally
    part: int = 0

    def hear(self, failure: Failure | None) -> None:
        if failure is not None and len(self.tally.failures) <= TOLD_AT_MOST:
            talk(_failed(failure))
        part = self.tally.finished * PARTS // self.tally.whole
        if part > self.part:
            self.part = part
            talk(f"{self.tally.finished} of {self.tally.whole}: {_counts(self.tally)}")


def _failed(failure: Failure) -> str:
    return f"{failure.wanted.where}: {failure.why}"


def _counts(tally: Tally) -> str:
    told = [f"{many} {each.value}" for each, many in tally.counts.items() if many]
    return ", ".join([*told, f"{len(tally.failures)} failed"] if tally.failures else told)


# What it came to.


def _summary(warm_set: WarmSet, tally: Tally, plan: Plan) -> dict[str, Any]:
    """For programs; no text."""
    return {
        "edge": plan.url,
        "dry_run": plan.dry,
        "utterances": tally.whole,
        "characters": warm_set.characters,
        "duplicates": warm_set.duplicates,
        "done_before": tally.before,
        **{each.value: many for each, many in tally.counts.items()},
        "characters_made": tally.characters[Done.MADE],
        "characters_missing": tally.characters[Done.MISSING],
        "failed": len(tally.failures),
        "failures": [each.told() for each in tally.failures[:TOLD_AT_MOST]],
        "bad_lines": len(warm_set.bad),
        "bad": [{"line": each.where, "message": each.why} for each in warm_set.bad[:TOLD_AT_MOST]],
        "retries": tally.retries,
        "received_bytes": tally.received_bytes,
        "interrupted": tally.interrupted,
    }


def _line(told: dict[str, Any]) -> str:
    """For people."""
    asked = f"{counted(told['utterances'], 'utterance')}, {counted(told['characters'], 'character')}"
    if told["dry_run"]:
        came = f"{told['hits']} are there, {told['missing']} would be made ({told['characters_missing']} characters)"
    else:
        came = f"{told['made']} made, {told['hits']} were there, {told['joined']} joined"
    parts = [
        f"{asked}: {came}",
        f"{told['done_before']} done before" if told["done_before"] else "",
        f"{told['failed']} failed" if told["failed"] else "",
        counted(told["bad_lines"], "bad line") if told["bad_lines"] else "",
        f"{told['duplicates']} asked for twice" if told["duplicates"] else "",
        "interrupted; the same command goes on" if told["interrupted"] else "",
    ]
    return ", ".join(filter(None, parts)) + f"; {told['took_s']} s"


def _code(tally: Tally, warm_set: WarmSet) -> int:
    if tally.interrupted:
        return INTERRUPTED
    if not tally.failures and not warm_set.bad:
        return 0
    return PARTIAL if tally.before + sum(tally.counts.values()) else FAILED
