"""`python -m bench.workers`: hits per second of a daemon with one and with two workers, in turn; wrk is the load.

wrk takes a core of its own, so on a machine with two cores a second worker has nothing left to run on: the figures say what
workers cost there, not what they gain where there are cores.
"""

import asyncio
import json
import re
import tempfile
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import aiohttp

from tests.daemon import config, daemons
from tests.houses import cluster

ASKED: dict[str, Any] = {"text": "A hit", "demo": {"bytes": 32 << 10}}
CONNECTIONS, SECONDS, ROUNDS = 32, 5, 2


async def _hits_per_s(workers: int) -> float:
    settings = config("", workers=workers, log={"format": "json", "level": "info", "access": False})
    async with cluster() as origin, daemons() as start:
        daemon = await start.serve({**settings, "clusters": [{"name": "c0", "url": origin.url}]})
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as client:
            for _ in range(20 * workers):  # until each worker has it
                async with client.post(f"{daemon.url}/v1/tts", json=ASKED) as answer:
                    await answer.read()
        with tempfile.TemporaryDirectory() as directory:
            script = Path(directory) / "ask.lua"
            script.write_text(f'wrk.method = "POST"\nwrk.body = [[{json.dumps(ASKED)}]]\n')
            load = ("-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", str(script), f"{daemon.url}/v1/tts")
            wrk = await asyncio.create_subprocess_exec("wrk", *load, stdout=PIPE)
            told = (await wrk.communicate())[0].decode()
        await daemon.stopped()
    found = re.search(r"Requests/sec:\s+([0-9.]+)", told)
    if found is None or "Non-2xx" in told:
        raise RuntimeError(told)
    return float(found[1])


async def _measure() -> None:
    for workers in (1, 2) * ROUNDS:
        print(f"{workers} worker{'s' * (workers > 1)}: {await _hits_per_s(workers):,.0f} hits/s", flush=True)


if __name__ == "__main__":
    asyncio.run(_measure())
