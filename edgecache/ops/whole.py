"""What several workers tell, as one. Pure.

Numbers add up, truths hold if any holds, texts that differ are listed, mappings are merged name by name. What does not add
up is named here. It does not know what is counted, except for rows: requests by their kind, upstreams by their name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from edgecache.ops import modes

Told = Mapping[str, Any]

#: Of these the largest is told.
LARGEST = frozenset({"uptime_s", "standing"})
#: An upstream's state: the further on, the worse. The worst of what the workers see is told.
STATES = ("up", "trial", "ejected")
#: How things stand, which ends with who told it.
PASSING = frozenset(
    {
        *("under_way", "held_bytes", "state", "pending_bytes", "requests", "memo_bytes", "last_write_failure"),
        *("holding", "following", "sheets", "sheet_bytes"),
    }
)
_KIND = ("route", "method", "status", "result")
_MEANS = ("share", "error_rate", "warmth")
_MEASURES = ("rtt_ms", "rtt_spread_ms", "first_byte_ms", "first_audio_ms", "real_time_factor")
_SUMS = ("in_flight", "max_in_flight", "chosen", "failures")


def merged(told: Sequence[Told]) -> dict[str, Any]:
    """One mapping of all names in any of them."""
    names = {name: None for each in told for name in each}
    return {name: _one(name, [each[name] for each in told if name in each]) for name in names}


def _one(name: str, values: Sequence[Any]) -> Any:
    known = [each for each in values if each is not None]
    if not known:
        return None
    first = known[0]
    if all(isinstance(each, bool) for each in known):
        return any(known)
    if all(isinstance(each, int | float) for each in known):
        return max(known) if name in LARGEST else sum(known)
    if all(isinstance(each, Mapping) for each in known):
        return merged(known)
    if all(isinstance(each, list) for each in known):
        return [row for each in known for row in each]
    return (
        ", ".join(sorted({str(each) for each in known if each != ""}))
        if any(each != first for each in known)
        else first
    )


def status(told: Sequence[Told]) -> dict[str, Any]:
    """`/status` of the daemon."""
    rows = [row for each in told for row in each["requests"]]
    living = sum("uptime_s" in each for each in told)
    standing = modes.of_daemon(each["standing"] for each in told if "standing" in each)
    rest = [{name: told for name, told in each.items() if name != "standing"} for each in told]
    return {"workers": living, **standing, **merged(rest), "requests": requests(rows)}


def counted(told: Sequence[Told]) -> dict[str, Any]:
    """What of `status` stays true when who told it is gone: counts, and nothing of how things stand."""
    kept = [
        {
            "requests": each["requests"],
            "fills": _lasting(each["fills"]),
            "tiers": {"redis": _lasting(each["tiers"].get("redis"))},
            "fast_lane": _lasting(each["fast_lane"]),
            "record_mismatches": each["record_mismatches"],
            "stale_served": each["stale_served"],
        }
        for each in told
    ]
    return merged(kept) | {"requests": requests(row for each in kept for row in each["requests"])}


def _lasting(told: Any) -> Any:
    """Without how things stand. What is off stays so."""
    return {name: each for name, each in told.items() if name not in PASSING} if isinstance(told, Mapping) else told


def requests(rows: Iterable[Told]) -> list[dict[str, Any]]:
    """Counts of exchanges, one row for each kind, the most frequent first."""
    found = []
    for alike in _grouped(rows, _KIND):
        exchanges = sum(row["exchanges"] for row in alike)
        mean_ms = sum(row["first_byte_ms_mean"] * row["exchanges"] for row in alike) / exchanges
        summed = {name: sum(row[name] for row in alike) for name in ("exchanges", "broken", "sent_bytes")}
        found.append({**alike[0], **summed, "first_byte_ms_mean": round(mean_ms, 3)})
    return sorted(found, key=lambda row: -row["exchanges"])


def upstreams(rows: Iterable[Told]) -> list[dict[str, Any]]:
    """Each upstream once: as the worker sees it that thinks worst of it, with measures and shares of all."""
    found = []
    for alike in _grouped(rows, ("name",)):
        worst = max(alike, key=lambda row: STATES.index(row["state"]) if row["state"] in STATES else 0)
        summed = {name: sum(row[name] for row in alike) for name in _SUMS}
        means = {name: sum(row[name] for row in alike) / len(alike) for name in _MEANS}
        measures = {name: _mean([row[name] for row in alike if row[name] is not None]) for name in _MEASURES}
        rest = {"current": any(row["current"] for row in alike), "faults": merged([row["faults"] for row in alike])}
        found.append({**worst, **summed, **means, **measures, **rest})
    return found


#: Calls whose counts outlive the worker that told them: how those of the dead are made one.
KEPT: Mapping[str, Callable[[Sequence[Told]], Told]] = {"status": counted}


def checks(told: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Why clients should not come: a worker that is well is enough, except that one that drains speaks for the daemon."""
    names = {name: None for each in told for name in each}
    return {name: _failing(name, [each.get(name, "") for each in told]) for name in names}


def _failing(name: str, reasons: Sequence[str]) -> str:
    said = [reason for reason in reasons if reason]
    return said[0] if len(said) == len(reasons) else ""


def _grouped(rows: Iterable[Told], names: Sequence[str]) -> list[list[Told]]:
    groups: dict[tuple[Any, ...], list[Told]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return list(groups.values())


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
