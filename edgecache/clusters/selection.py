"""Which upstream is asked: the nearest that is up and has room, kept to until another is clearly nearer. Pure.

Keeps: an ejected upstream is never chosen; one on trial only when no other is available; noise within the policy's margin
never moves the choice. Every decision says why, for each candidate. It does not know how distances are measured, how
health is judged, nor what is asked.

Theory. Candidates that may not be asked are ruled out, each with its reason. The rest are ranked: those that are up before
those on trial, measured before unmeasured, near before far, and then in the operator's order. The first is asked, unless
the current one is of the same rank and the first is not nearer by both margins of the policy.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from edgecache.clusters.cluster import SelectionPolicy
from edgecache.clusters.health import Standing, State

#: An upstream without room has some again soon: fills take about this long.
ROOM_AGAIN_S = 1.0
#: What a client is told when every upstream was tried and none has asked for patience.
TRY_AGAIN_S = 1.0


class Why(Enum):
    """Why a candidate was chosen, or was not."""

    NEAREST = "nearest"
    KEPT = "kept by hysteresis"
    UNMEASURED = "unmeasured"  # chosen, but only because nothing measured is available; or passed over for that
    TRIAL = "on trial"  # chosen for want of another; or passed over
    FARTHER = "farther"
    NOT_NEARER_ENOUGH = "not nearer enough"  # nearest, but within the margins
    TRIED = "tried"
    EJECTED = "ejected"
    TOLD_TO_WAIT = "told to wait"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One upstream as it stands. rtt_s: None when unmeasured. room: how many more requests it may be asked now."""

    upstream: str
    cluster: str
    standing: Standing
    rtt_s: float | None
    room: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why one candidate was or was not chosen."""

    upstream: str
    why: Why


@dataclass(frozen=True, slots=True)
class Chosen:
    """Whom to ask. keep_to: the upstream to be `current` next time; not this one when it only stands in."""

    upstream: str
    cluster: str
    why: Why
    keep_to: str
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class NoneLeft:
    """Nobody can be asked. busy: some are alive but full or asking for patience; otherwise all are down or tried."""

    retry_after_s: float
    busy: bool
    verdicts: tuple[Verdict, ...] = ()


def choose(
    candidates: Sequence[Candidate], current: str | None, policy: SelectionPolicy, tried: Collection[str]
) -> Chosen | NoneLeft:
    """Whom to ask. candidates: in the operator's order. current: whom the last choice kept to. tried: asked in vain."""
    ruled_out = {each.upstream: why for each in candidates if (why := _obstacle(each, tried)) is not None}
    ranked = sorted((each for each in candidates if each.upstream not in ruled_out), key=_rank)
    if not ranked:
        return _none_left(candidates, ruled_out)
    nearest = ranked[0]
    kept = next((each for each in ranked if each.upstream == current), None)
    if kept is None or kept is nearest or not _holds(kept, nearest, policy):
        winner, why = nearest, _merit(nearest)
    else:
        winner, why = kept, Why.KEPT
    whys = ruled_out | {each.upstream: _shortcoming(each, winner) for each in ranked} | {winner.upstream: why}
    stands_in = current is not None and ruled_out.get(current) in (Why.TRIED, Why.FULL, Why.TOLD_TO_WAIT)
    return Chosen(
        winner.upstream,
        winner.cluster,
        why,
        keep_to=current if stands_in and current is not None else winner.upstream,
        verdicts=tuple(Verdict(each.upstream, whys[each.upstream]) for each in candidates),
    )


def _obstacle(candidate: Candidate, tried: Collection[str]) -> Why | None:
    """Why it may not be asked at all."""
    standing = candidate.standing
    if candidate.upstream in tried:
        return Why.TRIED
    if standing.state is State.EJECTED:
        return Why.EJECTED
    if standing.back_in_s > 0:
        return Why.TRIAL if standing.state is State.TRIAL else Why.TOLD_TO_WAIT
    return Why.FULL if candidate.room <= 0 else None


def _class(candidate: Candidate) -> tuple[bool, bool]:
    return candidate.standing.state is not State.UP, candidate.rtt_s is None


def _rank(candidate: Candidate) -> tuple[bool, bool, float]:
    """Sorts best first; sorting is stable, so equals stay in the operator's order."""
    return (*_class(candidate), candidate.rtt_s or 0.0)


def _holds(kept: Candidate, nearest: Candidate, policy: SelectionPolicy) -> bool:
    """Whether the current upstream is kept although another ranks first."""
    if _class(kept) != _class(nearest):
        return False
    if kept.rtt_s is None or nearest.rtt_s is None:
        return False  # unmeasured ones go strictly in the operator's order
    gain_s = kept.rtt_s - nearest.rtt_s
    return gain_s < policy.better_by_s or gain_s < policy.better_by * kept.rtt_s


def _merit(winner: Candidate) -> Why:
    if winner.standing.state is State.TRIAL:
        return Why.TRIAL
    return Why.NEAREST if winner.rtt_s is not None else Why.UNMEASURED


def _shortcoming(candidate: Candidate, winner: Candidate) -> Why:
    """Why a candidate that could have been asked was not."""
    if candidate.standing.state is State.TRIAL and winner.standing.state is State.UP:
        return Why.TRIAL
    if candidate.rtt_s is None:
        return Why.UNMEASURED
    nearer = winner.rtt_s is not None and candidate.rtt_s < winner.rtt_s
    return Why.NOT_NEARER_ENOUGH if nearer else Why.FARTHER


def _none_left(candidates: Sequence[Candidate], ruled_out: dict[str, Why]) -> NoneLeft:
    waits_s = [
        ROOM_AGAIN_S if ruled_out[each.upstream] is Why.FULL else each.standing.back_in_s
        for each in candidates
        if ruled_out[each.upstream] is not Why.TRIED
    ]
    return NoneLeft(
        retry_after_s=min(waits_s, default=TRY_AGAIN_S),
        busy=any(why in (Why.FULL, Why.TOLD_TO_WAIT) for why in ruled_out.values()),
        verdicts=tuple(Verdict(each.upstream, ruled_out[each.upstream]) for each in candidates),
    )
