"""`edgecache status`, `stats` and `inspect`: how a running edge stands, what it has come to, and one of its recordings.

All of it is asked of the admin listener; nothing here is measured. It never tells a text unless it was told to.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO
from urllib.parse import quote

from edgecache.cache.status import WARM_UP
from edgecache.commands.asking import Target
from edgecache.commands.terminal import counted

_HITS = {"memory": ("hit_memory",), "redis": ("hit_redis",), "joined": ("collapsed",)}
_SPOKEN = frozenset({"hit_memory", "hit_redis", "collapsed", "miss", "bypass", "stale"})


def status(target: Target) -> dict[str, Any]:
    """How it stands."""
    code, ready = target.ask_admin("GET", "/readyz")
    return {
        **target.ask_admin("GET", "/status")[1],
        "ready": code == 200,
        "checks": ready["checks"],
        "processes": target.ask_admin("GET", "/workers")[1]["workers"],
        "upstreams": target.ask_admin("GET", "/clusters")[1]["upstreams"],
    }


def shown_status(told: Mapping[str, Any]) -> str:
    """For people."""
    tiers, fills = told["tiers"], told["fills"]
    redis = tiers["redis"] if isinstance(tiers["redis"], str) else _redis(tiers["redis"])
    failing = [f"{name}: {why}" for name, why in told["checks"].items() if why]
    rows = [
        ("node", f"{told['node']} in {told['region']}" if told["region"] else told["node"]),
        ("version", f"{told['version']}, up {_span(told['uptime_s'])}"),
        ("ready", "yes" if told["ready"] else f"no ({'; '.join(failing)})"),
        ("mode", _mode(told)),
        ("workers", ", ".join(f"{each['worker']} {each['state']} (pid {each['pid']})" for each in told["processes"])),
        ("memory", f"{tiers['memory']['recordings']} recordings, {_size(tiers['memory']['held_bytes'])}"),
        ("redis", redis),
        *((f"cluster {each['name']}", _upstream(each)) for each in told["upstreams"]),
        ("fills", f"{fills['under_way']} under way, {_size(fills['held_bytes'])} held"),
        ("connections", f"{told['connections']}, {told['sessions']} WebSocket sessions"),
        *([("keys file", f"not taken over: {told['keys_fault']}")] if told.get("keys_fault") else []),
        ("wrong bytes", f"{told['record_mismatches']} recordings of another utterance (0 is right)"),
    ]
    return _table(rows)


def _mode(told: Mapping[str, Any]) -> str:
    causes = "; ".join(f"{name}: {why}" for name, why in told.get("causes", {}).items())
    return f"{told.get('mode', '-')}{f' ({causes})' if causes else ''}"


def _redis(told: Mapping[str, Any]) -> str:
    failed = f", last failure: {told['last_write_failure']}" if told.get("last_write_failure") else ""
    state = "asked" if told["state"] == "closed" else f"not asked ({told['state']})"
    return f"{state}, {told['hits']} hits, {told['misses']} misses, {_size(told['pending_bytes'])} to write{failed}"


def _upstream(each: Mapping[str, Any]) -> str:
    state = "drained" if each["drained"] else each["state"]
    rtt = "-" if each["rtt_ms"] is None else f"{each['rtt_ms']:.1f} ms"
    fault = f", last fault: {each['last_fault']}" if each["last_fault"] and state != "up" else ""
    return f"{state}, rtt {rtt}, {each['in_flight']} of {each['max_in_flight']} busy, {each['why']}{fault}"


def stats(target: Target) -> dict[str, Any]:
    """What it has come to since it began."""
    told, seen = target.ask_admin("GET", "/status")[1], target.ask_admin("GET", "/glance")[1]
    results, later = _by_result(told["requests"], later=False), _by_result(told["requests"], later=True)
    spoken = sum(many for result, many in results.items() if result in _SPOKEN)
    shares = {tier: sum(results.get(each, 0) for each in whose) for tier, whose in _HITS.items()}
    shares["hit"] = shares["memory"] + shares["redis"]
    tiers = told["tiers"]
    return {
        "node": told["node"],
        "uptime_s": told["uptime_s"],
        "requests": results,
        "warm_up": later,
        "hit_ratio": {tier: round(many / spoken, 4) if spoken else None for tier, many in shares.items()},
        "saved": {name: seen["saved"][name] for name in ("syntheses", "characters", "speech_s")},
        "held": {
            "recordings": tiers["memory"]["recordings"],
            "memory_bytes": tiers["memory"]["held_bytes"],
            "capacity_bytes": seen["tiers"]["memory"]["capacity_bytes"],
            "fill_bytes": told["fills"]["held_bytes"],
        },
        "sent_bytes": sum(row["sent_bytes"] for row in told["requests"]),
        "broken": sum(row["broken"] for row in told["requests"]),
    }


def _by_result(rows: list[dict[str, Any]], *, later: bool) -> dict[str, int]:
    """Exchanges that were about speech, by what the cache did."""
    found: dict[str, int] = {}
    for row in rows:
        if row["result"] != "none" and (row["route"] == WARM_UP) == later:
            found[row["result"]] = found.get(row["result"], 0) + row["exchanges"]
    return found


def shown_stats(told: Mapping[str, Any]) -> str:
    """For people."""
    saved, held = told["saved"], told["held"]
    ratios = [f"{name} {_percent(share)}" for name, share in told["hit_ratio"].items() if name != "hit"]
    return _table(
        [
            ("node", f"{told['node']}, up {_span(told['uptime_s'])}"),
            ("requests", _counts(told["requests"])),
            ("warm-up", _counts(told["warm_up"])),
            ("hits", f"{_percent(told['hit_ratio']['hit'])} ({', '.join(ratios)})"),
            (
                "saved",
                f"{saved['syntheses']} syntheses, {saved['characters']} characters, {saved['speech_s']:.1f} s of speech",
            ),
            (
                "held",
                f"{held['recordings']} recordings, {_size(held['memory_bytes'])} of {_size(held['capacity_bytes'])}; "
                f"{_size(held['fill_bytes'])} in fills",
            ),
            ("sent", f"{_size(told['sent_bytes'])}; {told['broken']} answers broke off"),
        ]
    )


def _counts(counts: Mapping[str, int]) -> str:
    told = ", ".join(f"{many} {result}" for result, many in counts.items())
    return f"{sum(counts.values())}{f' ({told})' if told else ''}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def inspect(target: Target, key: str, *, text: bool) -> dict[str, Any]:
    """The recording under a key. Refused: there is none."""
    return target.ask_admin("GET", f"/recordings/{quote(key, safe='')}{'?text=1' if text else ''}")[1]


def shown_recording(told: Mapping[str, Any]) -> str:
    """For people."""
    duration = "-" if told["duration_ms"] is None else f"{told['duration_ms'] / 1000:.2f} s"
    channels = counted(told["channels"] or 1, "channel")
    rate = "" if told["sample_rate_hz"] is None else f", {told['sample_rate_hz']} Hz, {channels}"
    made = datetime.fromtimestamp(told["made_at"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    where = [f"memory of {counted(told['tiers']['memory'], 'worker')}"] if told["tiers"]["memory"] else []
    where += ["redis"] if told["tiers"]["redis"] else []
    fields = {name: each for name, each in told["utterance"].items() if name != "text"}
    return _table(
        [
            ("key", told["key"]),
            ("namespace", told["namespace"]),
            *([("text", told["utterance"]["text"])] if "text" in told["utterance"] else []),
            ("utterance", f"{told['characters']} characters, {json.dumps(fields, ensure_ascii=False)}"),
            ("audio", f"{duration}, {told['bytes']} bytes, {told['media_type']} ({told['container']}){rate}"),
            ("made", f"{made} by {told['cluster']} in {told['made_in_ms']:.0f} ms"),
            ("first audio", f"{told['first_audio_ms']:.0f} ms after it was asked for"),
            ("is", f"a {told['verdict']}, {_fresh(told['ttl_s'])}"),
            ("gone in", _span(told["gone_in_s"])),
            ("in", ", ".join(where)),
            ("tags", ", ".join(told["tags"]) or "-"),
            ("timings", f"{told['words_timed']} words" if told["words_timed"] else "-"),
            ("etag", told["etag"]),
        ]
    )


# In words.


def _fresh(ttl_s: float) -> str:
    return f"fresh for {_span(ttl_s)}" if ttl_s > 0 else f"past its time by {_span(-ttl_s)}"


def _table(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {told}" for name, told in rows)


def _size(many_bytes: float) -> str:
    return f"{many_bytes / 2**20:.1f} MiB" if many_bytes >= 2**20 else f"{many_bytes / 2**10:.1f} KiB"


def _span(seconds: float) -> str:
    for unit, long_s in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * long_s:
            return f"{seconds / long_s:.1f} {unit}"
    return f"{seconds:.0f} s"


def show(told: Mapping[str, Any], words: str, stream: TextIO, *, as_json: bool) -> None:
    """For people or for programs."""
    print(json.dumps(told) if as_json else words, file=stream)
