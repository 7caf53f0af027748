"""Many at once, who leaves, clusters that fail, and clusters that are gone."""

import asyncio
import time

from bench.beside.acts import SECOND_BYTES, SPEECH_BYTES, Act
from bench.beside.asking import Heard, hear, request, until
from bench.beside.looks import Fact, Seen, Situation, answered, ask, asked_first, counted, syntheses, turn
from bench.beside.servers import Setup, Stand

WAITERS, FEW = 50, 10
#: Real time, but for the time that the cluster is made to wait in the middle.
LASTS_S = 1.0
TTL_S = 2


async def _together(stand: Stand) -> Seen:
    """The cluster goes on when all have heard it, or when it is clear that they do not."""
    turn(stand, Act(lasts_s=LASTS_S, holds=True))
    first_bytes: list[float] = []
    made = -syntheses(stand)
    start_s = time.monotonic()
    asking = [
        asyncio.create_task(
            hear(stand.port, request(stand.said), lambda: first_bytes.append(time.monotonic() - start_s))
        )
        for _ in range(WAITERS)
    ]
    await until(lambda: _all_heard(first_bytes, WAITERS), LASTS_S / 2 + stand.patience_s)
    early = len(first_bytes)
    for each in stand.clusters:
        each.go()
    heard = await asyncio.gather(*asking)
    share = max(first_bytes, default=0.0) / (time.monotonic() - start_s)
    made += syntheses(stand)
    words = f"last first byte after {share:.0%}; {counted(made)}"
    alike = len({each.body for each in heard}) == 1
    return Seen(words, {"heard_early": early, "share": round(share, 3), "syntheses": made, "alike": alike})


async def _all_heard(first_bytes: list[float], count: int) -> bool:
    return len(first_bytes) == count


async def _together_cut(stand: Stand) -> Seen:
    """Some ask at once, and the cluster breaks off half way, every time."""
    turn(stand, Act(sent=0.5, holds=True))
    first_bytes: list[float] = []
    made = -syntheses(stand)
    asking = [
        asyncio.create_task(hear(stand.port, request(stand.said), lambda: first_bytes.append(0.0))) for _ in range(FEW)
    ]
    await until(lambda: _all_heard(first_bytes, FEW), stand.patience_s)
    turn(stand, Act(sent=0.5))
    heard = await asyncio.gather(*asking)
    made += syntheses(stand)
    told = sum(each.told for each in heard)
    return Seen(f"{told} are told; {counted(made)}", {"told": told, "syntheses": made})


async def _leaves(stand: Stand) -> Seen:
    """Who asked first leaves in the middle; the speech goes on; another asks afterwards."""
    turn(stand, Act(holds=True))
    await hear(stand.port, request(stand.said), leave_at=SECOND_BYTES // 4)
    await asyncio.sleep(0.2)  # the server sees that it left
    for each in stand.clusters:
        each.go()
    await until(lambda: _ended(stand), stand.patience_s + 1)
    heard, made = await ask(stand, stand.said)
    words = f"next: {'new synthesis' if made else 'a hit'}"
    return Seen(words, {"hit": not made, "whole": len(heard.body) == SPEECH_BYTES})


async def _ended(stand: Stand) -> bool:
    return any(each.ended and each.said["text"] == stand.text for one in stand.clusters for each in one.asked())


async def _nearest(stand: Stand, act: Act) -> Seen:
    """The cluster that is asked first does this; the other one speaks."""
    first, _ = await asked_first(stand)
    first.act(act)
    heard, made = await ask(stand, stand.said)
    words = answered(heard)
    if act.thinks_s and heard.first_s is not None:
        words += f" after {heard.first_s:.1f} s"
    facts = {"status": heard.status, "whole": _whole(heard), "syntheses": made}
    return Seen(words, facts | _why(heard))


def _whole(heard: Heard) -> bool:
    return heard.status == 200 and heard.ended == "whole" and len(heard.body) == SPEECH_BYTES


async def _dead(stand: Stand) -> Seen:
    return await _nearest(stand, Act(dead=True))


async def _fails(stand: Stand) -> Seen:
    return await _nearest(stand, Act(status=500, media_type="text/plain", body="no", framing="length"))


async def _full(stand: Stand) -> Seen:
    act = Act(status=503, media_type="text/plain", body="no", framing="length", headers={"Retry-After": "30"})
    return await _nearest(stand, act)


async def _breaks_early(stand: Stand) -> Seen:
    """Its head, and no byte of a body."""
    return await _nearest(stand, Act(sent=0.0))


async def _slow(stand: Stand) -> Seen:
    return await _nearest(stand, Act(thinks_s=3.0))


async def _nobody(stand: Stand) -> Seen:
    """All are dead, and it was never said."""
    turn(stand, Act(dead=True))
    heard, _ = await ask(stand, stand.said)
    says_why = "json" in heard.headers.get("content-type", "")
    later = "retry-after" in heard.headers
    words = [str(heard.status), *(["says why"] if says_why else []), *(["and when to ask again"] if later else [])]
    return Seen(", ".join(words), {"status": heard.status, "says_why": says_why, "retry_after": later})


async def _past_its_time(stand: Stand, act: Act) -> Seen:
    """A recording is past its time, and all clusters do this."""
    first, _ = await ask(stand, stand.said)
    await asyncio.sleep(TTL_S + 0.5)
    turn(stand, act)
    heard, _ = await ask(stand, stand.said)
    facts = {"served": heard.body == first.body and _whole(heard), "first": first.status, "status": heard.status}
    return Seen("served" if facts["served"] else answered(heard), facts | _why(heard))


async def _past(stand: Stand) -> Seen:
    return await _past_its_time(stand, Act(dead=True))


async def _past_500(stand: Stand) -> Seen:
    return await _past_its_time(stand, Act(status=500, media_type="text/plain", body="no", framing="length"))


def _why(heard: Heard) -> dict[str, Fact]:
    """What a refusal says."""
    return {} if heard.status == 200 else {"why": heard.body[:500].decode(errors="replace")}


SHORT = Setup(ttl_s=TTL_S)
SITUATIONS = (
    Situation("together", f"{WAITERS} ask at once, the cluster speaks in real time", _together),
    Situation("together-cut", f"{FEW} ask at once, the cluster breaks off half way", _together_cut, fresh=True),
    Situation("leaves", "who asked first leaves half way", _leaves),
    Situation("dead", "the nearest cluster is dead", _dead, fresh=True),
    Situation("fails", "the nearest cluster answers 500", _fails, fresh=True),
    Situation("full", "the nearest cluster answers 503", _full, fresh=True),
    Situation("headless", "the nearest cluster breaks off before its first byte", _breaks_early, fresh=True),
    Situation("slow", "the nearest cluster thinks for 3 s", _slow, Setup(first_byte_s=1, hedge_ms=300), fresh=True),
    Situation("nobody", "every cluster is dead, and it was never said", _nobody, fresh=True),
    Situation("past", "past its time, every cluster is dead", _past, SHORT, fresh=True),
    Situation("past-500", "past its time, every cluster answers 500", _past_500, SHORT, fresh=True),
)
