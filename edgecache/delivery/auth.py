"""Who may ask, and whose recordings are theirs."""

from dataclasses import dataclass

from edgecache.option import option


@dataclass(frozen=True, slots=True)
class Auth:
    """API keys of clients."""

    keys_file: str | None = option(None, "A file of hashed keys; make lines for it with `edgecache keys new NAME`.")
