"""What lies in Redis under our keys, damaged or planted: never served, counted, and filled anew."""

import struct
from collections.abc import Callable

import msgspec
import pytest

from edgecache.cache.key import Key
from edgecache.cache.recording import Recording, frame, unframe
from tests.houses import House, house, with_redis
from tests.redis_houses import hit, mismatches, missed, recorded, redis_alone, said, told, until_hit, where, written
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.net, pytest.mark.redis]

# A record that is damaged.

#: The frame's head: magic, version, and how long namespace, utterance, facts and audio are.
HEAD = struct.Struct(">4sBHIIQ")
#: Each part of a frame, and where it ends in a value whose head says these lengths.
PARTS: dict[str, Callable[[tuple[int, ...]], int]] = {
    "magic": lambda _: 4,
    "version": lambda _: 5,
    "length of the namespace": lambda _: 7,
    "length of the utterance": lambda _: 11,
    "length of the facts": lambda _: 15,
    "length of the audio": lambda _: 23,
    "namespace": lambda lengths: 23 + sum(lengths[:1]),
    "utterance": lambda lengths: 23 + sum(lengths[:2]),
    "facts": lambda lengths: 23 + sum(lengths[:3]),
    "audio": lambda lengths: 23 + sum(lengths[:4]),
    "checksum": lambda lengths: 39 + sum(lengths[:4]),
}


def span(value: bytes, part: str) -> tuple[int, int]:
    """Where this part of the frame begins and ends."""
    lengths: tuple[int, ...] = HEAD.unpack_from(value)[2:]
    names = list(PARTS)
    before = names.index(part) - 1
    return PARTS[names[before]](lengths) if before >= 0 else 0, PARTS[part](lengths)


@pytest.mark.parametrize("lowest", [False, True], ids=["its highest bit", "its lowest bit"])
@pytest.mark.parametrize("part", PARTS)
async def test_rule_6_a_flipped_bit_in_a_record_is_never_served(
    redis_server: RedisServer, part: str, lowest: bool
) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        lies_at = where(await recorded(home, "Flip one bit"))
        value = redis_server.call("GET", lies_at)
        first, after = span(value, part)
        at, bit = (after - 1, 0x01) if lowest else (first, 0x80)
        redis_server.call("SETRANGE", lies_at, at, bytes([value[at] ^ bit]))
        await refilled(home, "Flip one bit")


SHORTER: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("nothing", lambda value: b""),
    ("one byte", lambda value: value[:1]),
    ("half a head", lambda value: value[:12]),
    ("a head", lambda value: value[: HEAD.size]),
    ("a head and as much as a checksum", lambda value: value[: HEAD.size + 16]),
    ("no audio", lambda value: value[: span(value, "facts")[1]]),
    ("half the audio", lambda value: value[: sum(span(value, "audio")) // 2]),
    ("no checksum", lambda value: value[: span(value, "audio")[1]]),
    ("all but one byte", lambda value: value[:-1]),
    ("one byte more", lambda value: value + b"\0"),
    ("two records", lambda value: value * 2),
    ("zeros", lambda value: bytes(len(value))),
    ("text", lambda value: b'{"error":"not a recording"}' * 40),
]


@pytest.mark.parametrize("changed", [row[1] for row in SHORTER], ids=[row[0] for row in SHORTER])
async def test_rule_6_a_record_that_is_not_whole_is_never_served(
    redis_server: RedisServer, changed: Callable[[bytes], bytes]
) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        lies_at = where(await recorded(home, "Cut it short"))
        redis_server.call("SET", lies_at, changed(redis_server.call("GET", lies_at)))
        await refilled(home, "Cut it short")


@pytest.mark.parametrize(
    "planting",
    [("LPUSH", "a", "list"), ("HSET", "a", "hash"), ("SADD", "a set"), ("ZADD", "1", "a"), ("XADD", "*", "a", "b")],
    ids=["list", "hash", "set", "sorted set", "stream"],
)
async def test_rule_6_a_key_of_another_type_is_filled_anew(
    redis_server: RedisServer, planting: tuple[str, ...]
) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        lies_at = where(await recorded(home, "Of another type"))
        redis_server.call("DEL", lies_at)
        redis_server.call(planting[0], lies_at, *planting[1:])
        await refilled(home, "Of another type")


@pytest.mark.parametrize(
    "facts",
    [
        {"media_type": "audio/wav\r\nSet-Cookie: a=b"},
        {"media_type": "audio/wäv"},
        {"etag": '"\r\n'},
        {"etag": ""},
        {"made_at": float("nan")},
        {"made_at": float("inf")},
    ],
    ids=str,
)
async def test_rule_6_a_record_with_facts_that_no_answer_can_have_is_filled_anew(
    redis_server: RedisServer, facts: dict[str, object]
) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        key = await recorded(home, "Whole, and not ours")
        record = unframe(key, redis_server.call("GET", where(key)))
        planted = msgspec.structs.replace(record, facts=msgspec.structs.replace(record.facts, **facts))
        redis_server.call("SET", where(key), frame(planted))
        await refilled(home, "Whole, and not ours")


async def refilled(home: House, text: str) -> None:
    """By every way in: not served, made again rightly, and then a hit in Redis."""
    broken, made = told(home.node)["broken_records"], home.origin.counters.syntheses
    await missed(home, text)
    assert home.origin.counters.syntheses == made + 1
    assert told(home.node)["broken_records"] == broken + 1
    assert told(home.node)["state"] == "closed"
    await written(home.node)
    await hit(home, text)
    assert mismatches(home.node) == 0


async def test_rule_6_a_damaged_record_is_not_served_by_its_address_either(redis_server: RedisServer) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        for method, path, status in [
            ("GET", "/v1/audio/{key}", 404),
            ("HEAD", "/v1/audio/{key}", 404),
            ("HEAD", "/v1/tts?text=By+its+address", 200),
        ]:
            key = await recorded(home, "By its address")
            redis_server.call("SETRANGE", where(key), 1000, b"damaged")
            async with home.client.request(method, home.url + path.format(key=key)) as answer:
                assert answer.status == status
                assert "; hit;" not in answer.headers.get("Cache-Status", "")
            await written(home.node)
            assert redis_server.call("EXISTS", where(key)) == 0


async def test_rule_6_an_enormous_value_is_never_served(redis_server: RedisServer) -> None:
    async with house(cache=redis_alone(redis_server.url, budget_s=0.05)) as home:
        key = await recorded(home, "Enormous")
        redis_server.call("SETRANGE", where(key), 200 << 20, "x")
        await missed(home, "Enormous")
        await until_hit(home, "Enormous")
        assert redis_server.call("STRLEN", where(key)) < 1 << 20


# A record that is whole, and another utterance's.

ASKED, OTHER = "Transfer ten euros", "Transfer a million"


def renamed(record: Recording) -> Recording:
    return msgspec.structs.replace(record, namespace="key-somebody-else")


def later(record: Recording) -> Recording:
    return msgspec.structs.replace(record, facts=msgspec.structs.replace(record.facts, made_at=4e9))


FOREIGN: list[tuple[str, str, Callable[[Recording], Recording]]] = [
    ("another utterance", OTHER, lambda record: record),
    ("another utterance, made in the future", OTHER, later),
    ("another namespace", ASKED, renamed),
    ("another utterance in another namespace", OTHER, renamed),
]


@pytest.mark.parametrize("memory_bytes", [0, 64 << 20], ids=["no memory", "memory"])
@pytest.mark.parametrize(("text", "change"), [row[1:] for row in FOREIGN], ids=[row[0] for row in FOREIGN])
async def test_rule_1_a_foreign_record_is_never_served(
    redis_server: RedisServer, text: str, change: Callable[[Recording], Recording], memory_bytes: int
) -> None:
    cache = with_redis(redis_server.url, memory_bytes=memory_bytes, budget_s=15.0)
    async with house(cache=redis_alone(redis_server.url)) as maker:
        keys = {each: await recorded(maker, each) for each in (ASKED, OTHER)}
    key = keys[ASKED]
    foreign = change(unframe(keys[text], redis_server.call("GET", where(keys[text]))))
    redis_server.call("SET", where(key), frame(foreign))
    async with house(cache=cache) as home:
        await served_by_no_address(home, key, foreign.audio)
        assert mismatches(home.node) > 0
        counted = mismatches(home.node)
        await missed(home, ASKED)
        assert home.origin.counters.syntheses == 1
        assert mismatches(home.node) > counted
        await written(home.node)
        counted = mismatches(home.node)
        await hit(home, ASKED, "memory" if memory_bytes else "redis")
        assert (await said(home, OTHER)).cache.endswith("detail=redis")
        assert mismatches(home.node) == counted
        assert unframe(key, redis_server.call("GET", where(key))).namespace == "default"


async def served_by_no_address(home: House, key: Key, foreign: bytes) -> None:
    """Neither by key, nor to a HEAD, nor to a request that would not have it made."""
    for method, path, status in [
        ("GET", f"/v1/audio/{key}", 404),
        ("HEAD", f"/v1/audio/{key}", 404),
        ("HEAD", "/v1/tts?text=" + ASKED.replace(" ", "+"), 200),
    ]:
        for _ in range(2):
            async with home.client.request(method, home.url + path) as answer:
                assert answer.status == status
                assert "; hit;" not in answer.headers.get("Cache-Status", "")
                assert foreign[:100] not in await answer.read()
    absent = await home.say(ASKED, headers={"Cache-Control": "only-if-cached"})
    assert (absent.status, absent.code) == (504, "not_cached")
