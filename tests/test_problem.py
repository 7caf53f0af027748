"""Errors as clients read them: problem+json (RFC 9457) and OpenAI's `error` in one body."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.delivery.problem import headers, problem
from edgecache.errors import ClientError, NodeError, SpeechError, UpstreamError

ROWS: list[tuple[SpeechError, str, str]] = [
    (
        ClientError(400, "missing_text", "Say what is to be spoken.", param="text"),
        "Bad Request",
        "invalid_request_error",
    ),
    (ClientError(401, "invalid_api_key", "This API key is not known here."), "Unauthorized", "authentication_error"),
    (ClientError(403, "forbidden", "Not yours."), "Forbidden", "permission_error"),
    (ClientError(404, "not_recorded", "There is none."), "Not Found", "invalid_request_error"),
    (ClientError(429, "slow_down", "Too many.", retry_after_s=3), "Too Many Requests", "rate_limit_error"),
    (NodeError(503, "busy", "Too much under way.", retry_after_s=1), "Service Unavailable", "server_error"),
    (NodeError(508, "loop", "It came from here."), "Loop Detected", "server_error"),
    (UpstreamError(504, "cluster_too_slow", "No audio in time."), "Gateway Timeout", "server_error"),
]


@pytest.mark.parametrize(("error", "title", "kind"), ROWS, ids=[row[0].code for row in ROWS])
def test_one_body_for_both_kinds_of_reader(error: SpeechError, title: str, kind: str) -> None:
    assert json.loads(problem(error, "r-1")) == {
        "type": "about:blank",
        "title": title,
        "status": error.status,
        "detail": error.message,
        "instance": "urn:edgecache:request:r-1",
        "error": {"message": error.message, "type": kind, "param": error.param, "code": error.code},
    }
    assert str(error) == f"{error.code}: {error.message}"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 414, 415, 416, 422, 429, 431, *range(500, 509)])
def test_every_status_has_a_title(status: int) -> None:
    assert json.loads(problem(SpeechError(status, "code", "words"), ""))["title"]


HEADERS: list[tuple[str, SpeechError, dict[str, str]]] = [
    ("plain", ClientError(400, "c", "m"), {}),
    ("come again", NodeError(503, "c", "m", retry_after_s=7), {"Retry-After": "7"}),
    ("come again at once", NodeError(503, "c", "m", retry_after_s=0), {"Retry-After": "1"}),
    ("who are you", ClientError(401, "c", "m"), {"WWW-Authenticate": 'Bearer realm="edgecache"'}),
]


@pytest.mark.parametrize(("error", "more"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
def test_what_goes_with_an_error(error: SpeechError, more: dict[str, str]) -> None:
    assert headers(error) == {"Content-Type": "application/problem+json", "Cache-Control": "no-store", **more}


any_text = st.text(st.characters(codec=None), max_size=600)


@given(any_text, any_text | st.none())
def test_names_from_outside_never_break_an_error(message: str, param: str | None) -> None:
    told = json.loads(problem(ClientError(400, "bad_unicode", message, param), "r"))
    assert len(told["detail"]) <= 500
    assert told["error"]["message"] == told["detail"]
    if message.isascii():
        assert told["detail"] == message[:500]
    assert (told["error"]["param"] is None) == (param is None)
