"""Heads that were read before: found again by equality, and never past the keyring."""

import hashlib
from types import MappingProxyType

from edgecache.delivery.auth import OPEN, Caller, Gate, Keyring
from edgecache.delivery.heads import HEADS_BYTES, Heads
from edgecache.delivery.plain import read

ANN = Caller("ann", "key-ann")
DIGEST = hashlib.sha256(b"anns").digest()
RING = Keyring(MappingProxyType({DIGEST: (DIGEST, ANN)}))
HEAD = b"POST /v1/tts HTTP/1.1\r\nHost: x\r\nX-API-Key: anns\r\nContent-Length: %d\r\n\r\n"


def asks(text: bytes) -> bytes:
    body = b'{"text":"%b"}' % text
    return HEAD % len(body) + body


def test_what_a_head_says_is_said_again_whatever_is_behind_it() -> None:
    heads = Heads(Gate(RING))
    first, second, third = (heads.read(asks(text)) for text in (b"one", b"two", b"six"))
    assert first is not None
    assert (first.found, first.caller) == (read(asks(b"one")), ANN)
    assert second == first
    assert third is second, "it came for the third time, and was remembered at the second"
    other = heads.read(asks(b"another"))
    assert other is not None
    assert other.found.length == first.found.length + 4


def test_rule_8_who_was_taken_out_of_the_keyring_is_not_admitted_by_a_head() -> None:
    gate = Gate(RING)
    heads = Heads(gate)
    for _ in range(3):
        assert heads.read(asks(b"one")) is not None
    gate.ring = Keyring(MappingProxyType({}))
    assert heads.read(asks(b"one")) is None
    gate.ring = OPEN
    known = heads.read(asks(b"one"))
    assert known is not None
    assert known.caller.name == "-"


def test_what_is_not_plain_is_not_known_nor_half_a_head() -> None:
    heads = Heads(Gate(OPEN))
    for _ in range(3):
        assert heads.read(asks(b"one").replace(b"Host: x\r\n", b"")) is None
        assert heads.read(HEAD[:-4]) is None
        assert heads.read(b"") is None


def test_rule_7_heads_are_bounded() -> None:
    heads = Heads(Gate(OPEN))
    for number in range(6000):
        sent = asks(b"one").replace(b"Host: x", b"Host: x%d" % number)
        for _ in range(2):
            assert heads.read(sent) is not None
    assert heads._memo.held_bytes <= HEADS_BYTES
