"""`edgecache purge`: asks an edge to forget, and says what became of it.

Keeps the rule that nothing is purged by accident: one scope at a time, and all only with `--yes`. It does not know how an
edge purges.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from edgecache.commands.asking import Target
from edgecache.commands.saying import wanted
from edgecache.commands.terminal import PARTIAL, Misused, counted, talk


@dataclass(frozen=True, slots=True)
class Asked:
    """What was typed."""

    key: Sequence[str] = ()
    text: str | None = None
    voice: str | None = None
    language: str | None = None
    fields: Sequence[str] = ()
    namespace: str | None = None
    cluster: str | None = None
    tag: Sequence[str] = ()
    everything: bool = False

    @property
    def scope(self) -> dict[str, Any]:
        """As POST /purge has it. Misused: none, or more than one."""
        if self.text is not None:
            if self.key or self.cluster or self.tag or self.everything:
                raise Misused("--text goes with --voice, --language, --field and --namespace only")
            utterance = json.loads(wanted(self.text, self.voice, self.language, self.fields))
            return {"utterance": utterance} | ({} if self.namespace is None else {"namespace": self.namespace})
        if self.fields:
            raise Misused("--field goes with --text")
        named = {
            "keys": list(self.key),
            "tags": list(self.tag),
            "voice": self.voice,
            "language": self.language,
            "namespace": self.namespace,
            "cluster": self.cluster,
            "all": self.everything,
        }
        chosen = {name: value for name, value in named.items() if value}
        if len(chosen) != 1:
            raise Misused(
                "say what to purge: one of --key, --text, --voice, --language, --namespace, --cluster, --tag, --all"
            )
        return chosen


@dataclass(frozen=True, slots=True)
class How:
    """What is to be done."""

    soft: bool = False
    dry_run: bool = False
    count_redis: bool = False
    yes: bool = False
    erase: bool = False


def purge(target: Target, asked: Asked, how: How) -> dict[str, Any]:
    """What the edge says of it. Misused: it is none, or of everything and not meant."""
    if how.erase and (how.soft or how.dry_run):
        raise Misused("--erase goes with neither --soft nor --dry-run: what is stale may be asked for still")
    if how.erase and asked == Asked():
        return {"erased": erase(target)}
    scope = asked.scope
    if "all" in scope and not (how.yes or how.dry_run):
        raise Misused("--all purges every recording: say --yes too, or look first with --dry-run")
    if how.count_redis and not how.dry_run:
        raise Misused("--count-redis goes with --dry-run")
    switches = {"soft": how.soft, "dry_run": how.dry_run, "count_redis": how.count_redis}
    body = json.dumps({**scope, **switches}).encode()
    told = target.ask_admin("POST", "/purge", body)[1]
    return {**told, "erased": erase(target)} if how.erase else told


def erase(target: Target) -> dict[str, Any]:
    """Has everything that is purged deleted out of Redis, some at a time."""
    erased, looked_at, cursor = 0, 0, "0"
    while True:
        told = target.ask_admin("POST", "/purge/erase", json.dumps({"cursor": cursor}).encode())[1]
        erased, looked_at, cursor = erased + told["erased"], looked_at + told["looked_at"], told["cursor"]
        if cursor == "0" or told["redis_fault"]:
            return {"recordings": erased, "looked_at": looked_at, "redis_fault": told["redis_fault"]}
        talk(f"{counted(erased, 'recording')} erased of {looked_at} looked at; going on")


def show(told: Mapping[str, Any], stream: TextIO, *, as_json: bool) -> int:
    """For people or for programs; the exit code."""
    print(json.dumps(told) if as_json else "\n".join(_lines(told)), file=stream)
    kept = told.get("erased", {}).get("redis_fault", "")
    if kept not in ("", "off"):
        talk(f"not all of it is erased ({kept}): `edgecache purge --erase` goes through Redis once more")
    if told.get("dry_run") or told.get("done", True):
        return PARTIAL if kept not in ("", "off") else 0
    for pid in told["workers"]["missing"]:
        talk(f"worker {pid} did not answer: purge again, or replace it")
    if told["redis_fault"]:
        talk(f"Redis was not told ({told['redis_fault']}); it will be when it answers, and other nodes then")
    return PARTIAL


def _lines(told: Mapping[str, Any]) -> list[str]:
    return [*(_purged(told) if "memory" in told else []), *([_erased(told["erased"])] if "erased" in told else [])]


def _erased(told: Mapping[str, Any]) -> str:
    if told["redis_fault"] == "off":
        return "Redis is off: there is nothing to erase"
    return f"{counted(told['recordings'], 'recording')} erased out of Redis, of {told['looked_at']} looked at"


def _purged(told: Mapping[str, Any]) -> list[str]:
    memory, dry = told["memory"], told.get("dry_run", False)
    more = "" if memory["whole"] else " or more"
    verb = "would be purged" if dry else "stale now" if told["purges"][0]["kind"] == "soft" else "purged"
    lines = [f"{counted(memory['recordings'], 'recording')}{more} in memory {verb}: {memory['bytes']} bytes"]
    if dry:
        return [*lines, _in_redis(told)]
    if told["fills"]:
        lines.append(f"{counted(told['fills'], 'fill')} under way: neither joined nor stored")
    redis = "off" if told["redis"] == "off" else "told" if told["redis"] else "not told"
    lines.append(f"{counted(told['workers']['reached'], 'worker')} reached, Redis {redis}")
    return lines


def _in_redis(told: Mapping[str, Any]) -> str:
    found = told.get("redis")
    if found is None or found == "off":
        return "Redis is off" if found else "Redis is not searched; --count-redis looks at all that it holds"
    more = "" if told.get("redis_whole", True) else f" or more: {told['redis_looked']} were looked at"
    fault = f"; then {told['redis_fault']}" if told.get("redis_fault") else ""
    return f"{counted(found, 'recording')} in Redis{more}{fault}"
