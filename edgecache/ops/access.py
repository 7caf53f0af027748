"""Where admin calls are served, and the token that they must bring where others could make them.

Loads nothing heavy: settings are read by commands that start fast.
"""

from dataclasses import dataclass

from edgecache.option import option


@dataclass(frozen=True, slots=True)
class AdminAccess:
    """Where admin calls are served, and to whom."""

    host: str = option("127.0.0.1", "Address. Elsewhere than on loopback a token is needed.")
    port: int = option(9901, "Port; 0 lets the system choose.", minimum=0, maximum=65535)
    token: str | None = option(
        None, "What every call but those for health must bring, as `Authorization: Bearer TOKEN`.", secret=True
    )


def is_token(said: str) -> bool:
    """Whether a header can carry it as one word."""
    return bool(said) and said.isascii() and said.isprintable() and " " not in said
