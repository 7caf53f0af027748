"""Whether clients should come to this edge."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Readiness:
    """Whether clients should come here. The node says so; this only tells."""

    started: bool = False
    draining: bool = False
    #: An operator sends clients elsewhere. Whoever comes all the same is served as before.
    drained: bool = False
    #: In which mode it is; told, and nothing that keeps clients away.
    mode: str = "normal"
    #: Asked at each probe: what is in the way, by name; an empty text is fine.
    checks: Mapping[str, Callable[[], str]] = field(default_factory=dict)

    @property
    def leaving(self) -> str:
        """Why clients should go elsewhere, whatever else is well; empty if they need not."""
        if self.draining:
            return "this edge is stopping"
        return "drained by an operator, who may undo it" if self.drained else ""

    def told(self) -> dict[str, str]:
        """Every check, and what is in the way."""
        return {**{name: tell() for name, tell in self.checks.items()}, "draining": self.leaving}
