"""`edgecache check --probe`: asks what the configuration names, and says what it found."""

import asyncio
from dataclasses import dataclass

from edgecache.clock import SystemClock
from edgecache.clusters.fleet import Fleet, FleetPolicies
from edgecache.node import DIALECTS
from edgecache.settings import Settings
from edgecache.store.redis import RedisTier


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was asked. level: ok, warning or error."""

    level: str
    what: str
    told: str


def probe(settings: Settings) -> list[Finding]:
    """Asks Redis and every cluster."""
    return asyncio.run(_probe(settings))


async def _probe(settings: Settings) -> list[Finding]:
    return [*await _redis(settings), *await _clusters(settings)]


async def _redis(settings: Settings) -> list[Finding]:
    access = settings.cache.redis
    if access.url is None or access.url == "off":
        how = "off" if access.url else "none configured; a private one is started where redis-server is installed"
        return [Finding("ok", "redis", how)]
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


async def _clusters(settings: Settings) -> list[Finding]:
    policies = FleetPolicies(settings.timeouts, settings.pool, settings.probing, settings.health, settings.selection)
    fleet = Fleet(settings.clusters, policies, DIALECTS, SystemClock())
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
