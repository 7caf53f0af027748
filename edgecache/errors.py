"""Every error that has a name, by whose fault it is.

`ClientError` (4xx): the request is at fault. `UpstreamError`: a cluster is. `NodeError` (5xx): this edge is.
An error knows what it tells the client and nothing of how that is written on the wire.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class SpeechError(Exception):
    """What a client is told.

    status: HTTP status. code: stable, for programs. message: for people; says what to do about it.
    param: the request field at fault, if one is. retry_after_s: whole seconds, for `Retry-After`.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: int | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class ClientError(SpeechError):
    """The request is at fault: 4xx."""


class NodeError(SpeechError):
    """This edge can't do it now: 5xx."""


class UpstreamError(SpeechError):
    """No cluster gave the speech: 502, 503 or 504."""


class SettingsError(Exception):
    """The operator's configuration is at fault; the message is ready to print."""
