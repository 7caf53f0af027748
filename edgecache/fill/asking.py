"""One fill's way to a rendering: whom to ask, whom to ask next, and whom to ask beside.

Keeps rule 5: another cluster is asked only before the first audio, within a deadline and within budgets, so that clusters
in trouble are not asked the more for it. It decides nothing itself: `admission`, `budget` and `hedging` do.
"""

from collections.abc import Mapping

from edgecache.clusters.fault import UpstreamFault
from edgecache.clusters.selection import Chosen, NoneLeft
from edgecache.errors import NodeError
from edgecache.fill.admission import Admission
from edgecache.fill.attempt import Attempt, Order, Terms
from edgecache.fill.budget import Budget
from edgecache.fill.flight import Flight, State
from edgecache.fill.hedging import Race
from edgecache.fill.limits import FillLimits
from edgecache.fill.priority import Priority
from edgecache.fill.refusal import broken, refusal


class Asking:
    """How this node asks clusters for its fills."""

    def __init__(self, limits: FillLimits, terms: Terms, admission: Admission) -> None:
        self._limits = limits
        self._terms = terms
        self._admission = admission
        #: From the first asking to the first audio.
        self.within_s = 2 * terms.first_audio_s if limits.deadline_s is None else limits.deadline_s
        self.retries = Budget(limits.retry_share)
        self.hedges = Budget(limits.hedge_share)
        self.retried = self.hedged = self.hedge_wins = 0

    def status(self) -> Mapping[str, object]:
        """What was asked again, and beside; for `/status` and `/clusters`."""
        return {
            "retries": self.retries.spent,
            "hedges": self.hedges.spent,
            "hedge_wins": self.hedge_wins,
            "budget_refusals": {"retries": self.retries.refused, "hedges": self.hedges.refused},
        }

    def prompt(self, flight: Flight, order: Order) -> Attempt | None:
        """The first attempt of a fill, begun before its task is; None: that has to wait for something."""
        choice = self._admission.spare((), order.whose)
        if choice is None:
            return None
        attempt = Attempt(flight, order, choice, self._terms)
        attempt.begin()
        return attempt

    async def fill(self, flight: Flight, order: Order, prompt: Attempt | None = None) -> None:
        """Ends with the flight over: sealed, ended or failed. prompt: its first attempt, if that was begun."""
        now = self._terms.clock.monotonic()
        self.retries.earn(now)
        self.hedges.earn(now)
        tried: list[str] = []
        fault: UpstreamFault | None = None
        deadline_s: float | None = None
        for _ in range(self._limits.attempts):
            if fault is not None and not self.retries.spend(self._terms.clock.monotonic()):
                break
            attempt, prompt = prompt, None
            if attempt is None:
                choice = await self._admission.choose(flight, order, tried)
                if isinstance(choice, NoneLeft):
                    if fault is not None:
                        self.retries.give_back()
                    return flight.fail(refusal(fault, choice))
                attempt = Attempt(flight, order, choice, self._terms)
            now = self._terms.clock.monotonic()
            deadline_s = now + self.within_s if deadline_s is None else deadline_s
            self.retried += fault is not None
            tried.append(attempt.chosen.upstream)
            try:
                return await self._ask(attempt, tried, deadline_s)
            except UpstreamFault as met:
                fault = met
                if flight.state is not State.ASKING:
                    return flight.fail(broken(met))
                if not met.elsewhere or self._terms.clock.monotonic() >= deadline_s:
                    break
            except NodeError as error:  # no room here, wherever it comes from
                return flight.fail(error)
        return flight.fail(refusal(fault, None))

    async def _ask(self, first: Attempt, tried: list[str], deadline_s: float) -> None:
        """One attempt, and maybe another beside it. tried: whom else is asked is added."""
        late_s = self._late_s(first)
        if late_s is None:
            return await first.run(deadline_s - self._terms.clock.monotonic())
        race = Race(self._terms.clock, deadline_s)
        beside: list[Attempt] = []

        def second() -> Attempt | None:
            choice = self._spare(first, tried)
            if choice is None:
                return None
            tried.append(choice.upstream)
            self.hedged += 1
            beside.append(first.beside(choice).enter(race))
            return beside[0]

        first.enter(race)
        try:
            return await race.run(first, late_s, second)
        finally:
            if any(each.audible for each in beside):
                self.hedge_wins += 1
                # How late the first would have been nobody knows; not sooner than this.
                self._terms.clusters.heard(first.chosen, first.elapsed_s, None)

    def _spare(self, first: Attempt, tried: list[str]) -> Chosen | None:
        """Whom to ask beside it, if there is room that nobody waits for and the budget allows it."""
        if not self.hedges.spend(self._terms.clock.monotonic()):
            return None
        choice = self._admission.spare(tried, first.order.whose)
        if choice is None:
            self.hedges.give_back()
        return choice

    def _late_s(self, first: Attempt) -> float | None:
        """After how long a second cluster is asked; None: never. Only for what someone waits to hear."""
        hedge_s = self._limits.hedge_s
        if hedge_s == "off" or first.flight.priority > Priority.LOOK_AHEAD:
            return None
        return self._terms.clusters.late_s(first.chosen.upstream) if hedge_s == "p95" else hedge_s
