"""Which upstream is asked: the nearest that is up and has room, kept to until another is clearly nearer. Pure.

Keeps: an ejected upstream is never chosen, nor one that a route bars or that is drained; one on trial only when no other is
available; noise within the policy's margin never moves the choice. Every decision says why, for each candidate. It does
not know how distances are measured, how health is judged, nor what is asked.

Theory. Candidates that may not be asked are ruled out, each with its reason. The rest are ranked: those that are up before
those on trial, those that speak in good time before those that are slow, measured before unmeasured, near before far, and
then in the operator's order. The first is the *anchor*, unless the current one is of the same rank and the first is not
nearer by both margins of the policy. All of the anchor's rank within the margins are as good as near: the one of them with
the least to do for its size is asked. So distance decides first, and load only where distance makes no difference.
"""

from collections.abc import Collection, Sequence
from enum import Enum

import msgspec

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
    LESS_LOADED = "as near, and less loaded"
    MORE_LOADED = "as near, and more loaded"
    AS_NEAR = "as near, and not before it in order"
    FARTHER = "farther"
    SLOW = "slow to speak"  # chosen for want of another; or passed over
    NOT_NEARER_ENOUGH = "not nearer enough"  # nearest, but within the margins
    TRIED = "tried"
    BARRED = "barred by a route"
    DRAINED = "drained"
    EJECTED = "ejected"
    TOLD_TO_WAIT = "told to wait"
    FULL = "full"


class Candidate(msgspec.Struct, frozen=True):
    """One upstream as it stands.

    rtt_s: None when unmeasured. room: how many more requests it may be asked now; under_way: how many it is. size: how
    many it may be asked at once, by its weight. barred: the route that bars it, or empty. slow: it speaks far later than
    others do.
    """

    upstream: str
    cluster: str
    standing: Standing
    rtt_s: float | None
    room: int
    under_way: int = 0
    size: float = 1.0
    barred: str = ""
    drained: bool = False
    slow: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """Why one candidate was or was not chosen."""

    upstream: str
    why: Why


class Chosen(msgspec.Struct, frozen=True):
    """Whom to ask. keep_to: the upstream to be `current` next time; not this one when it only stands in.

    verdicts: of all candidates, where `choose` was asked.
    """

    upstream: str
    cluster: str
    why: Why
    keep_to: str
    verdicts: tuple[Verdict, ...] = ()


class NoneLeft(msgspec.Struct, frozen=True):
    """Nobody can be asked. busy: some are alive but full or asking for patience; otherwise all are down or tried.

    barred: routes that bar others.
    """

    retry_after_s: float
    busy: bool
    verdicts: tuple[Verdict, ...] = ()
    barred: tuple[str, ...] = ()


def pick(
    candidates: Sequence[Candidate], current: str | None, policy: SelectionPolicy, tried: Collection[str]
) -> Chosen | NoneLeft:
    """Whom to ask. candidates: in the operator's order. current: whom the last choice kept to. tried: asked in vain."""
    ranked = _ranked(candidates, tried)
    if not ranked:
        return _none_left(candidates, tried)
    first = ranked[0]
    if len(ranked) == 1:
        anchor = winner = first
    else:
        near = _near(ranked, current, policy)
        anchor, winner = near[0], min(near, key=_load)  # of equals the first, which is the anchor
    stands_in = current is not None and current != anchor.upstream and _is_away(current, candidates, tried)
    keep_to = current if stands_in and current is not None else anchor.upstream
    return Chosen(winner.upstream, winner.cluster, _merit(winner, anchor, first), keep_to)


def choose(
    candidates: Sequence[Candidate], current: str | None, policy: SelectionPolicy, tried: Collection[str]
) -> Chosen | NoneLeft:
    """The same, with a verdict on each."""
    picked = pick(candidates, current, policy, tried)
    if isinstance(picked, NoneLeft):
        return picked
    near = _near(_ranked(candidates, tried), current, policy)
    winner = next(each for each in near if each.upstream == picked.upstream)
    verdicts = []
    for each in candidates:
        why = picked.why if each is winner else _obstacle(each, tried) or _shortcoming(each, winner, near)
        verdicts.append(Verdict(each.upstream, why))
    return msgspec.structs.replace(picked, verdicts=tuple(verdicts))


def shares(candidates: Sequence[Candidate], current: str | None, policy: SelectionPolicy) -> dict[str, float]:
    """Which share of many requests each would be asked as things stand: by size among those as near; sums to 1 or 0."""
    told = {each.upstream: 0.0 for each in candidates}
    ranked = _ranked(candidates, ())
    if ranked:
        near = _near(ranked, current, policy)
        whole = sum(each.size for each in near)
        told |= {each.upstream: each.size / whole for each in near}
    return told


def _ranked(candidates: Sequence[Candidate], tried: Collection[str]) -> list[Candidate]:
    """Those that may be asked, the best first."""
    ranked = [each for each in candidates if _obstacle(each, tried) is None]
    if len(ranked) > 1:
        ranked.sort(key=_rank)
    return ranked


def _is_away(current: str, candidates: Sequence[Candidate], tried: Collection[str]) -> bool:
    """Whether the current one only can't be asked just now."""
    away = (Why.TRIED, Why.FULL, Why.TOLD_TO_WAIT)
    return any(each.upstream == current and _obstacle(each, tried) in away for each in candidates)


def _near(ranked: Sequence[Candidate], current: str | None, policy: SelectionPolicy) -> list[Candidate]:
    """The anchor, and all that are as good as near."""
    first = ranked[0]
    kept = next((each for each in ranked if each.upstream == current), None)
    anchor = first if kept is None or not _holds(kept, first, policy) else kept
    others = [each for each in ranked if each is not anchor and _holds(each, anchor, policy)]
    return [anchor, *others]


def _load(candidate: Candidate) -> float:
    """How much it would have to do for its size."""
    return (candidate.under_way + 1) / candidate.size


def _obstacle(candidate: Candidate, tried: Collection[str]) -> Why | None:
    """Why it may not be asked at all."""
    standing = candidate.standing
    if candidate.barred or candidate.drained:
        return Why.BARRED if candidate.barred else Why.DRAINED
    if candidate.upstream in tried:
        return Why.TRIED
    if standing.state is State.EJECTED:
        return Why.EJECTED
    if standing.back_in_s > 0:
        return Why.TRIAL if standing.state is State.TRIAL else Why.TOLD_TO_WAIT
    return Why.FULL if candidate.room <= 0 else None


def _class(candidate: Candidate) -> tuple[bool, bool, bool]:
    return candidate.standing.state is not State.UP, candidate.slow, candidate.rtt_s is None


def _rank(candidate: Candidate) -> tuple[bool, bool, bool, float]:
    """Sorts best first; sorting is stable, so equals stay in the operator's order."""
    return (*_class(candidate), candidate.rtt_s or 0.0)


def _holds(kept: Candidate, nearest: Candidate, policy: SelectionPolicy) -> bool:
    """Whether this one is as good as near although another ranks before it."""
    if _class(kept) != _class(nearest):
        return False
    if kept.rtt_s is None or nearest.rtt_s is None:
        return kept is nearest  # unmeasured ones go strictly in the operator's order
    gain_s = kept.rtt_s - nearest.rtt_s
    return gain_s < policy.better_by_s or gain_s < policy.better_by * kept.rtt_s


def _merit(winner: Candidate, anchor: Candidate, first: Candidate) -> Why:
    """Why the one that is asked is asked."""
    if winner.standing.state is State.TRIAL:
        return Why.TRIAL
    if winner.slow:
        return Why.SLOW
    if winner.rtt_s is None:
        return Why.UNMEASURED
    if winner is not anchor:
        return Why.LESS_LOADED
    return Why.NEAREST if winner is first else Why.KEPT


def _shortcoming(candidate: Candidate, winner: Candidate, near: Sequence[Candidate]) -> Why:
    """Why a candidate that could have been asked was not."""
    if candidate.standing.state is State.TRIAL and winner.standing.state is State.UP:
        return Why.TRIAL
    if candidate.slow and not winner.slow:
        return Why.SLOW
    if candidate.rtt_s is None:
        return Why.UNMEASURED
    if candidate in near and _load(candidate) > _load(winner):
        return Why.MORE_LOADED
    if winner.rtt_s is not None and candidate.rtt_s < winner.rtt_s:
        return Why.NOT_NEARER_ENOUGH
    return Why.AS_NEAR if candidate in near else Why.FARTHER


def _none_left(candidates: Sequence[Candidate], tried: Collection[str]) -> NoneLeft:
    ruled_out = {each.upstream: why for each in candidates if (why := _obstacle(each, tried)) is not None}
    never = (Why.TRIED, Why.BARRED, Why.DRAINED)
    waits_s = [
        ROOM_AGAIN_S if ruled_out[each.upstream] is Why.FULL else each.standing.back_in_s
        for each in candidates
        if ruled_out[each.upstream] not in never
    ]
    return NoneLeft(
        retry_after_s=min(waits_s, default=TRY_AGAIN_S),
        busy=any(why in (Why.FULL, Why.TOLD_TO_WAIT) for why in ruled_out.values()),
        verdicts=tuple(Verdict(each.upstream, ruled_out[each.upstream]) for each in candidates),
        barred=tuple(sorted({each.barred for each in candidates if each.barred})),
    )
