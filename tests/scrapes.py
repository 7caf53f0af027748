"""The admin listener of an edge as Prometheus and operators read it; scrapes are read by Prometheus's own parsers."""

from collections.abc import Mapping
from typing import Any

import aiohttp
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Scrape:
    """One scrape: every sample by name and labels."""

    def __init__(self, body: str, media_type: str) -> None:
        self.media_type = media_type
        read = read_openmetrics if "openmetrics" in media_type else read_text
        self.families = list(read(body))
        self.samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families
            for sample in family.samples
        }

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.samples}

    def value(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have these labels."""
        wanted = set(labels.items())
        return sum(value for (each, has), value in self.samples.items() if each == name and wanted <= set(has))

    def labels(self, label: str) -> set[str]:
        return {value for _, has in self.samples for name, value in has if name == label}


async def scrape(admin_port: int, accept: str = "*/*") -> Scrape:
    async with (
        aiohttp.ClientSession(headers={"Accept": accept}) as client,
        client.get(f"http://127.0.0.1:{admin_port}/metrics") as answer,
    ):
        assert answer.status == 200
        return Scrape(await answer.text(), answer.headers["Content-Type"])


async def told(admin_port: int, path: str) -> Mapping[str, Any]:
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{admin_port}{path}") as answer,
    ):
        assert answer.status == 200, path
        found: Mapping[str, Any] = await answer.json()
        return found
