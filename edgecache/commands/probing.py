"""`edgecache check --probe`: asks Redis and every cluster that the configuration names, and says what it found.

Keeps the rule that nothing is changed by being asked. It loads most of the daemon, so nothing else imports it.
"""

import asyncio
import shutil

from edgecache.clock import SystemClock
from edgecache.clusters.fleet import Fleet
from edgecache.commands.checking import Finding
from edgecache.node import DIALECTS
from edgecache.settings import Settings
from edgecache.store.private import PROGRAMS
from edgecache.store.redis import RedisTier


def probe(settings: Settings) -> list[Finding]:
    """Asks Redis and every cluster."""
    return asyncio.run(_probe(settings))


async def _probe(settings: Settings) -> list[Finding]:
    return [*await _redis(settings), *await _clusters(settings)]


async def _redis(settings: Settings) -> list[Finding]:
    access = settings.cache.redis
    if access.url == "off":
        return [Finding("ok", "redis", "off: recordings are kept in memory alone")]
    if access.url is None:
        return [_private()]
    tier = RedisTier(access, settings.cache.key, SystemClock())
    await tier.start()
    try:
        found = await tier.probe()
    finally:
        await tier.close()
    if found.fault is not None or found.pong_ms is None:
        return [Finding("error", "redis", found.fault or "no answer")]
    findings = [Finding("ok", "redis", f"PONG {found.pong_ms:.1f} ms  {found.version}  {found.policy}")]
    if found.policy == "noeviction":
        findings.append(
            Finding(
                "warning", "redis", 'maxmemory-policy is "noeviction": writes fail when it is full; use allkeys-lfu'
            )
        )
    return findings


def _private() -> Finding:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        how = f"none configured and neither {' nor '.join(PROGRAMS)} installed: recordings are kept in memory alone"
        return Finding("warning", "redis", how)
    return Finding("ok", "redis", f"none configured: a private {program} will be started")


async def _clusters(settings: Settings) -> list[Finding]:
    fleet = Fleet(settings.clusters, settings.fleet, DIALECTS, SystemClock())
    findings = []
    try:
        for each in await fleet.probe_all():
            if each.rtt_ms is None:
                findings.append(Finding("error", f"cluster {each.name}", f"{each.url}: {each.last_fault}"))
            else:
                findings.append(Finding("ok", f"cluster {each.name}", f"{each.url}  rtt {each.rtt_ms:.1f} ms"))
    finally:
        await fleet.close()
    return findings
