"""What counts as the same speech, what counts as speech at all, and what of it is kept."""

import json

from bench.beside.acts import SPEECH_BYTES, Act
from bench.beside.asking import Heard
from bench.beside.looks import Seen, Situation, ask, counted, turn
from bench.beside.servers import Stand


async def _spoken(stand: Stand, *ways: bytes | tuple[bytes, str]) -> Seen:
    """Ways of asking for speech, one after the other."""
    made = 0
    for way in ways:
        made += (await ask(stand, *(way if isinstance(way, tuple) else (way,))))[1]
    return Seen(counted(made), {"syntheses": made})


async def _order(stand: Stand) -> Seen:
    backwards = dict(reversed(stand.said.items()))
    return await _spoken(stand, json.dumps(stand.said).encode(), json.dumps(backwards, indent=1).encode())


async def _escapes(stand: Stand) -> Seen:
    said = {**stand.said, "text": f"Café. {stand.text}"}
    return await _spoken(stand, json.dumps(said).encode(), json.dumps(said, ensure_ascii=False).encode())


async def _defaults(stand: Stand) -> Seen:
    return await _spoken(
        stand, json.dumps(stand.said).encode(), json.dumps({**stand.said, "speaking_rate": 1.0}).encode()
    )


async def _traced(stand: Stand) -> Seen:
    body = json.dumps(stand.said).encode()
    traces = (f"traceparent: 00-{n:032x}-00f067aa0ba902b7-01\r\nX-Request-Id: {n}\r\n" for n in (1, 2))
    return await _spoken(stand, *((body, trace) for trace in traces))


async def _rate(stand: Stand) -> Seen:
    return await _spoken(stand, *(json.dumps({**stand.said, "speaking_rate": rate}).encode() for rate in (1.0, 1.5)))


async def _twice(stand: Stand) -> Seen:
    """The same name twice in JSON: which of them counts depends on who reads it."""
    heard, made = await ask(stand, b'{"text": "Yes.", ' + json.dumps(stand.said).encode().removeprefix(b"{"))
    words = "passed on" if made else f"{heard.status}, not passed on"
    return Seen(words, {"passed_on": bool(made), "status": heard.status})


async def _again(stand: Stand, wrong: Act) -> tuple[Heard, Heard, int]:
    """The first answer while the clusters answer so, the second when they speak again, and whether it was made anew."""
    turn(stand, wrong)
    first, _ = await ask(stand, stand.said)
    turn(stand, Act())
    second, made = await ask(stand, stand.said)
    return first, second, made


async def _broken(stand: Stand, framing: str) -> Seen:
    first, second, made = await _again(stand, Act(framing=framing, sent=0.5))
    whole = len(second.body) == SPEECH_BYTES
    then = "new synthesis" if made else "the whole" if whole else "the torso, as a hit"
    words = f"{'told' if first.told else 'not told'}; next: {then}"
    return Seen(words, {"told": first.told, "new_synthesis": bool(made), "whole": whole})


async def _length(stand: Stand) -> Seen:
    return await _broken(stand, "length")


async def _chunks(stand: Stand) -> Seen:
    return await _broken(stand, "chunked")


async def _close(stand: Stand) -> Seen:
    return await _broken(stand, "close")


async def _wrong(stand: Stand, act: Act) -> Seen:
    first, _, made = await _again(stand, act)
    served = first.status == 200 and first.ended != "broken off"
    words = f"{'200, as speech' if served else _refusal(first)}; {'not stored' if made else 'stored'}"
    return Seen(words, {"served": served, "stored": not made, "status": first.status})


def _refusal(heard: Heard) -> str:
    return str(heard.status) if heard.status != 200 else "broken off"


async def _json(stand: Stand) -> Seen:
    return await _wrong(stand, Act(body='{"error": "the model is being loaded"}', framing="length"))


async def _html(stand: Stand) -> Seen:
    page = "<html><body>Back soon</body></html>"
    return await _wrong(stand, Act(body=page, media_type="text/html", framing="length"))


async def _nothing(stand: Stand) -> Seen:
    return await _wrong(stand, Act(body="", framing="length"))


async def _short(stand: Stand) -> Seen:
    return await _wrong(stand, Act(announced=2, framing="length"))


async def _cookie(stand: Stand) -> Seen:
    turn(stand, Act(headers={"Set-Cookie": "session=of-the-first"}))
    first, _ = await ask(stand, stand.said)
    second, made = await ask(stand, stand.said)
    heard = [name for name, each in (("first", first), ("next", second)) if "set-cookie" in each.headers]
    told = f"passed on to the {' and the '.join(heard)}" if heard else "passed on to nobody"
    words = f"{told}; {'not stored' if made else 'stored'}"
    return Seen(words, {"passed_on_to_next": "next" in heard, "stored": not made})


async def _no_store(stand: Stand) -> Seen:
    turn(stand, Act(headers={"Cache-Control": "no-store"}))
    await ask(stand, stand.said)
    _, made = await ask(stand, stand.said)
    return Seen("not stored" if made else "stored", {"stored": not made})


async def _voice(stand: Stand) -> Seen:
    """Two voices; one is purged."""
    if stand.who.purge_voice is None:
        return Seen("no way to", {"way": False})
    voices = ("ava", "ben")
    for voice in voices:
        turn(stand, Act(headers={"Surrogate-Key": f"voice-{voice}"} if stand.who.tags else {}))
        await ask(stand, {**stand.said, "voice_id": voice})
    stand.who.purge_voice(stand.server, "ava")
    gone = [voice for voice in voices if (await ask(stand, {**stand.said, "voice_id": voice}))[1]]
    how = "by the cluster's tag" if stand.who.tags else "by its name"
    told = {("ava",): f"it alone is gone, {how}", (): "nothing is gone"}.get(tuple(gone), "both are gone")
    return Seen(told, {"way": True, "gone": ",".join(gone)})


SITUATIONS = (
    Situation("order", "the same JSON in another order, with other white space", _order),
    Situation("escapes", "the same text, once with \\u00e9 and once with é", _escapes),
    Situation("defaults", "a default said, and left out", _defaults),
    Situation("traced", "another traceparent and X-Request-Id", _traced),
    Situation("rate", "another speaking_rate", _rate),
    Situation("twice", "a name twice in the JSON", _twice),
    Situation("cut-length", "breaks off before its Content-Length", _length, fresh=True),
    Situation("cut-chunked", "breaks off before its last chunk", _chunks, fresh=True),
    Situation("cut-close", "HTTP/1.0 without a length breaks off", _close, fresh=True),
    Situation("json", "200 and audio/wav, but it is JSON", _json),
    Situation("html", "200, but it is a page of HTML", _html),
    Situation("nothing", "200 and audio/wav, but no bytes", _nothing),
    Situation("short", "half of the audio that its WAV head tells, whole by HTTP", _short),
    Situation("cookie", "the cluster sets a cookie", _cookie),
    Situation("no-store", "the cluster says Cache-Control: no-store", _no_store),
    Situation("purge", "purge of one voice of two", _voice),
)
