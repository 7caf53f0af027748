"""Whether clients should come to this edge."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Readiness:
    """Whether clients should come here. The node says so; this only tells."""

    started: bool = False
    draining: bool = False
    #: In which mode it is; told, and nothing that keeps clients away.
    mode: str = "normal"
    #: Asked at each probe: what is in the way, by name; an empty text is fine.
    checks: Mapping[str, Callable[[], str]] = field(default_factory=dict)
