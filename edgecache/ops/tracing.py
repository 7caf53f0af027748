"""What an operator says of tracing. Loads nothing heavy: settings are read by commands that start fast."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from edgecache.option import option

REMEDY = "pip install 'edgecache[otel]', or set tracing.exporter: off"
_NEEDED = {"console": "opentelemetry.sdk.trace", "otlp": "opentelemetry.exporter.otlp.proto.http"}


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


def missing(settings: Tracing) -> str:
    """Why there would be no spans though they are asked for; empty: nothing is missing."""
    try:
        there = settings.exporter == "off" or find_spec(_NEEDED[settings.exporter]) is not None
    except ImportError:
        there = False
    return "" if there else f"is {settings.exporter}, and OpenTelemetry is not installed"
