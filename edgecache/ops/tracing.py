"""What an operator says of tracing. Loads nothing heavy: settings are read by commands that start fast."""

from dataclasses import dataclass
from typing import Literal

from edgecache.option import option


@dataclass(frozen=True, slots=True)
class Tracing:
    """Spans for OpenTelemetry. The extra `otel` has to be installed."""

    exporter: Literal["off", "otlp", "console"] = option(
        "off", "otlp: to a collector, over HTTP; console: on standard output, to look at."
    )
    endpoint: str | None = option(
        None, "The collector, as http://host:4318. Absent: what the `OTEL_EXPORTER_OTLP_*` variables say."
    )
    sample_ratio: float = option(
        0.01,
        "The share of exchanges that are told, where the client's `traceparent` says nothing.",
        minimum=0,
        maximum=1,
    )
