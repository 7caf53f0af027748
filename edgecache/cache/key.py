"""The name of an utterance in one namespace.

Keeps rule 1: the name is a keyed BLAKE2b (RFC 7693) over length-prefixed parts. Anyone can forge xxHash collisions in
milliseconds, so it never names anything. The hash only finds; the comparison in `cache.lookup` decides.
"""

import hashlib
import struct
from dataclasses import dataclass, field
from typing import NewType

from edgecache.option import option, required
from edgecache.speech.utterance import word

#: 64 hex digits.
Key = NewType("Key", str)

KEY_HEX_DIGITS = 64
#: Changes when the meaning of a key changes, so that versions living beside each other miss each other's recordings.
KEY_SCHEMA = b"edgecache key 1"
_LENGTH = struct.Struct(">I")
#: Stands behind a canonical utterance, which says itself where it ends.
_REVISION = b"voice revision"


@dataclass(frozen=True, slots=True)
class VoiceRevision:
    """What a voice is by now, under a name that stays."""

    voice: str = required("The voice, as `voice_id` has it.")
    revision: str = required("Any other text than before: all that this voice has said is asked for anew.")


@dataclass(frozen=True, slots=True)
class Naming:
    """How recordings are named."""

    prefix: str = option("tts:", "What every Redis key of ours begins with.")
    secret: str = option(
        "", "Keys the hash, so that who lists Redis keys can't test for a text. The same on all nodes.", secret=True
    )
    voice_revisions: tuple[VoiceRevision, ...] = option(
        (), 'Voices that were made anew, such as `- {voice: ava, revision: "2"}`. The same on all nodes.'
    )
    _hashing_key: bytes = field(init=False, repr=False, default=b"")
    _revisions: dict[str, str] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_revisions", {each.voice: each.revision for each in self.voice_revisions})
        digest = hashlib.blake2b(self.secret.encode(), digest_size=64, person=b"edgecache-secret").digest()
        object.__setattr__(self, "_hashing_key", digest if self.secret else b"")

    def key(self, namespace: str, canonical: bytes) -> Key:
        """The key of this canonical utterance in this namespace."""
        spelled = namespace.encode()
        hashed = hashlib.blake2b(KEY_SCHEMA, digest_size=32, key=self._hashing_key)
        hashed.update(_LENGTH.pack(len(spelled)) + spelled + canonical)
        revision = self.revision(canonical)
        if revision:
            hashed.update(_REVISION + revision.encode())
        return Key(hashed.hexdigest())

    def revised(self, canonical: bytes) -> bool:
        """Whether recordings of this utterance may have had another key before."""
        return bool(self.revision(canonical))

    def revision(self, canonical: bytes) -> str:
        """Of the voice of this utterance, which is in the key besides; empty: nothing is."""
        return self._revisions.get(word(canonical, "voice_id"), "") if self._revisions else ""

    @property
    def fingerprint(self) -> str:
        """Two nodes that have the same one name a recording alike."""
        hashed = hashlib.blake2b(KEY_SCHEMA, digest_size=8, key=self._hashing_key, person=b"edgecache-naming")
        hashed.update(repr(sorted(self._revisions.items())).encode())
        return hashed.hexdigest()

    def redis_key(self, key: Key) -> str:
        """Where a recording lies in Redis."""
        return self.prefix + key


def is_key(text: str) -> bool:
    """Whether this text could be a key at all."""
    return len(text) == KEY_HEX_DIGITS and all(digit in "0123456789abcdef" for digit in text)
