"""`edgecache top` and `edgecache slo`, asked of a real edge: what people read, what scripts read, and exit codes."""

import asyncio
import io
import json
import sys
from asyncio.subprocess import PIPE
from dataclasses import replace

import pytest

from edgecache.commands import slo, top
from edgecache.commands.asking import Target
from edgecache.ops import watching
from edgecache.ops.objectives import Promises
from tests.houses import House, house

pytestmark = pytest.mark.usefixtures("always_anew")
#: No figure of ours: by then a process has hung, also on a machine under load.
HANG_S = 60.0


@pytest.fixture
def always_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "FRESH_S", 0.0)


def target(here: House) -> Target:
    return Target(f"http://127.0.0.1:{here.node.admin_port}")


async def ran(here: House, *arguments: str) -> tuple[int | None, str]:
    """The command as a process, with the edge on this loop."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgecache", *arguments, "--admin", f"http://127.0.0.1:{here.node.admin_port}"),
        stdout=PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(HANG_S):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def spoken(here: House) -> None:
    for _ in range(3):
        await here.say("Good morning")


async def test_top_shows_rates_hits_first_bytes_clusters_and_savings() -> None:
    async with house() as here:
        await spoken(here)
        said = await asyncio.to_thread(top.told, target(here))
        code, shown = await ran(here, "top", "--once")
        _, as_json = await ran(here, "top", "--json")
    stream = io.StringIO()
    top.show(said, stream, as_json=False)

    assert said["saved"]["syntheses"] == 2
    assert said["hit_ratio"] == {"memory": 0.6667, "redis": 0.0, "joined": 0.0, "hit": 0.6667}
    assert said["first_byte_ms"]["hit"]["events"] == 2
    assert sum(row["hit"] + row["miss"] for row in said["distribution"]) == 3
    assert code == 0
    for text in (shown, stream.getvalue()):
        assert "saved 2 syntheses, 24 characters" in text
        assert "66.7%" in text
        assert "c0" in text
    assert json.loads(as_json).keys() == said.keys()


async def test_slo_tells_how_promises_stand_and_exits_by_it() -> None:
    strict = Promises(least_events=2)
    never_s = 0.000_001
    broken = replace(strict, first_byte=replace(strict.first_byte, target_s=never_s, warning_s=never_s, critical_s=9.0))
    async with house(slo=strict) as here:
        await spoken(here)
        well = await ran(here, "slo", "--check")
    async with house(slo=broken) as here:
        await spoken(here)
        said = await asyncio.to_thread(slo.told, target(here))
        alarmed, merely_told, as_json = [await ran(here, "slo", *flags) for flags in (("--check",), (), ("--json",))]

    assert well[0] == 0
    assert "first_byte" in well[1]
    assert not slo.kept(said)
    assert (alarmed[0], merely_told[0], as_json[0]) == (1, 0, 0)
    assert "warning" in merely_told[1]
    assert {row["subject"] for row in json.loads(as_json[1])["objectives"]} >= {"hit", "miss", "cluster:c0", "client"}


async def test_before_anything_was_asked_for_it_says_so() -> None:
    stream = io.StringIO()
    slo.show({"objectives": []}, stream, as_json=False)

    assert stream.getvalue() == "nothing was asked for yet\n"
