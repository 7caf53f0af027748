"""Errors as clients read them: RFC 9457 problem+json that also carries OpenAI's `error` member, which SDKs read. Pure."""

from http import HTTPStatus

import msgspec

from edgecache.errors import NodeError, SpeechError

MEDIA_TYPE = "application/problem+json"

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def failure() -> NodeError:
    """Something went wrong that nobody foresaw."""
    return NodeError(500, "internal_error", "This edge failed; the log has the reason.")


def problem(error: SpeechError, request_id: str) -> bytes:
    """The body for this error."""
    member = told(error)
    return msgspec.json.encode(
        {
            "type": "about:blank",
            "title": HTTPStatus(error.status).phrase,
            "status": error.status,
            "detail": member["message"],
            "instance": f"urn:edgecache:request:{request_id}",
            "error": member,
        }
    )


def told(error: SpeechError) -> dict[str, str | None]:
    """OpenAI's `error` member, which every delivery in JSON has."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    param = None if error.param is None else _sendable(error.param)
    return {"message": _sendable(error.message), "type": kind, "param": param, "code": error.code}


def headers(error: SpeechError) -> dict[str, str]:
    """What goes with it."""
    sent = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store"}
    if error.retry_after_s is not None:
        sent["Retry-After"] = str(max(1, error.retry_after_s))
    if error.status == 401:
        sent["WWW-Authenticate"] = 'Bearer realm="edgecache"'
    return sent


def _sendable(text: str) -> str:
    """Names of fields come from outside and may hold what UTF-8 can't."""
    return text.encode("utf-8", "replace").decode()[:500]
