"""The name of an utterance in one namespace.

Keeps rule 1: the name is a keyed BLAKE2b (RFC 7693) over length-prefixed parts. Anyone can forge xxHash collisions in
milliseconds, so it never names anything. The hash only finds; the comparison in `cache.lookup` decides.
"""

import hashlib
import struct
from dataclasses import dataclass, field
from typing import NewType

from edgecache.option import option

#: 64 hex digits.
Key = NewType("Key", str)

KEY_HEX_DIGITS = 64
#: Changes when the meaning of a key changes, so that versions living beside each other miss each other's recordings.
KEY_SCHEMA = b"edgecache key 1"
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Naming:
    """How recordings are named."""

    prefix: str = option("tts:", "What every Redis key of ours begins with.")
    secret: str = option(
        "", "Keys the hash, so that who lists Redis keys can't test for a text. The same on all nodes.", secret=True
    )
    _hashing_key: bytes = field(init=False, repr=False, default=b"")

    def __post_init__(self) -> None:
        digest = hashlib.blake2b(self.secret.encode(), digest_size=64, person=b"edgecache-secret").digest()
        object.__setattr__(self, "_hashing_key", digest if self.secret else b"")

    def key(self, namespace: str, canonical: bytes) -> Key:
        """The key of this canonical utterance in this namespace."""
        spelled = namespace.encode()
        hashed = hashlib.blake2b(KEY_SCHEMA, digest_size=32, key=self._hashing_key)
        hashed.update(_LENGTH.pack(len(spelled)) + spelled + canonical)
        return Key(hashed.hexdigest())

    def redis_key(self, key: Key) -> str:
        """Where a recording lies in Redis."""
        return self.prefix + key


def is_key(text: str) -> bool:
    """Whether this text could be a key at all."""
    return len(text) == KEY_HEX_DIGITS and all(digit in "0123456789abcdef" for digit in text)
