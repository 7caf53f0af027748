"""Tags that a cluster puts on a rendering, so that it can be purged by them. Pure.

`Surrogate-Key: a b` (Fastly, Varnish's xkey) and `Cache-Tag: a, b` (Cloudflare, Akamai) say the same; both are read. Keeps
rule 7: there are at most so many, and no longer ones. Tags are words of printable ASCII.
"""

from collections.abc import Mapping

SURROGATE_KEY, CACHE_TAG = "surrogate-key", "cache-tag"
#: More than these, or longer ones, can't be kept; then the rendering is not stored, as no purge would find it.
MAX_TAGS = 128
MAX_TAG = 256


class TooMany(Exception):
    """More tags than are kept, or one that is too long."""


def tags(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The tags of an answer with these headers, in order, each once. TooMany: they can't be kept."""
    if SURROGATE_KEY not in headers and CACHE_TAG not in headers:
        return ()
    found = [
        *headers.get(SURROGATE_KEY, "").replace(",", " ").split(),
        *(each.strip() for each in headers.get(CACHE_TAG, "").split(",")),
    ]
    kept = tuple(dict.fromkeys(each for each in found if each and each.isascii() and each.isprintable()))
    if len(kept) > MAX_TAGS or any(len(each) > MAX_TAG for each in kept):
        raise TooMany
    return kept
