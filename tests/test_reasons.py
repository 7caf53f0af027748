"""What a cluster that refuses an utterance names as its reason, and what a client is told of it."""

import json
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.clusters.reasons import MAX_BYTES, Named, named
from tests.houses import Heard, house, running, settings
from tests.scripted_upstream import ScriptedUpstream
from tests.test_broken_clusters import ASKED, answer

SAID = "my account is 4711"
REASONS: list[tuple[str, Any, Named]] = [
    (
        "OpenAI's",
        {"error": {"code": "format_not_supported", "param": "format", "message": SAID}},
        Named("format_not_supported", "format"),
    ),
    (
        "FastAPI's",
        {"detail": [{"type": "literal_error", "loc": ["body", "format"], "msg": SAID, "input": SAID}]},
        Named("literal_error", "format"),
    ),
    ("FastAPI's, in words", {"detail": SAID}, Named()),
    ("of no field", {"error": {"code": "too_long", "param": None}}, Named("too_long")),
    ("of a place in a list", {"detail": [{"type": "too_long", "loc": ["body", 0]}]}, Named("too_long")),
    ("without a code", {"error": {"param": "voice_id"}}, Named("", "voice_id")),
    ("prose for a code", {"error": {"code": SAID, "param": SAID}}, Named()),
    ("one word for a code", {"error": {"code": "hello", "param": "Hello"}}, Named()),
    ("an endless code", {"error": {"code": "a_" * 40 + "b"}}, Named()),
    ("a list", [], Named()),
    ("an empty list", {"detail": []}, Named()),
]


@pytest.mark.parametrize(("told", "due"), [row[1:] for row in REASONS], ids=[row[0] for row in REASONS])
def test_rule_8_identifiers_are_taken_and_no_prose(told: Any, due: Named) -> None:
    assert named(json.dumps(told).encode()) == due


@given(st.binary(max_size=60) | st.sampled_from([b"[" * MAX_BYTES, b'{"error":' * 400]))
def test_any_bytes_end_in_a_reason_or_none(body: bytes) -> None:
    assert named(body) == Named()


@pytest.mark.net
async def test_a_client_learns_what_of_its_request_a_cluster_refused() -> None:
    async with house() as here:
        heard = await here.say("Sing", format="midi")
    assert heard.status == 422
    error = json.loads(heard.body)["error"]
    assert (error["code"], error["param"]) == ("refused_by_cluster", "format")
    assert error["message"].endswith("refused this utterance with 422: format_not_supported.")


@pytest.mark.net
@pytest.mark.parametrize(
    "body",
    [b"<html>", b"x" * (4 * MAX_BYTES), json.dumps({"error": {"code": SAID}}).encode()],
    ids=["HTML", "long", "prose"],
)
async def test_a_refusal_without_a_reason_is_one_all_the_same(body: bytes) -> None:
    async with (
        ScriptedUpstream([answer(body, status="422 Unprocessable Content", media_type="application/json")]) as peer,
        running(settings(peer.url)) as node,
        aiohttp.ClientSession() as client,
        client.post(f"http://127.0.0.1:{node.port}/v1/tts", json=ASKED) as got,
    ):
        heard = await Heard.of(got, ASKED)
    error = json.loads(heard.body)["error"]
    assert (heard.status, error["code"], error["param"]) == (422, "refused_by_cluster", None)
    assert error["message"].endswith("refused this utterance with 422.")
