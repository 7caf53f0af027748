"""The Speeko dialect: what is read, what is refused, and what a cluster is sent (rule 1)."""

import json
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.dialects.speeko import Speeko, body, read, read_query
from edgecache.errors import ClientError


def test_defaults_are_filled_in() -> None:
    spelled = b'{"text":"Hi","voice_id":"default","language":"en","speaking_rate":1.0,"format":null}'
    assert read(b'{"text":"Hi"}', 100).canonical == read(spelled, 100).canonical


REFUSED = [
    ("not JSON", b"hello", 400, "bad_json"),
    ("empty", b"", 400, "bad_json"),
    ("not an object", b"[1]", 400, "bad_json"),
    ("cut", b'{"text":"x"', 400, "bad_json"),
    ("two values", b'{"text":"x"}{"text":"y"}', 400, "bad_json"),
    ("no text", b'{"voice_id":"a"}', 400, "missing_text"),
    ("text is a number", b'{"text":1}', 400, "missing_text"),
    ("text is empty", b'{"text":" "}', 400, "empty_text"),
    ("NUL in text", b'{"text":"a\\u0000b"}', 400, "bad_text"),
    ("text too long", json.dumps({"text": "x" * 101}).encode(), 413, "text_too_long"),
    ("duplicate key", b'{"text":"a","text":"b"}', 400, "duplicate_field"),
    ("escaped duplicate key", b'{"text":"a","te\\u0078t":"b"}', 400, "duplicate_field"),
    ("nested duplicate key", b'{"text":"a","x":{"b":1,"b":2}}', 400, "duplicate_field"),
    ("NaN", b'{"text":"a","x":NaN}', 400, "bad_number"),
    ("Infinity", b'{"text":"a","x":-Infinity}', 400, "bad_number"),
    ("too large a number", b'{"text":"a","x":1e999}', 400, "bad_number"),
    ("too many digits", b'{"text":"a","x":' + b"9" * 5000 + b"}", 400, "bad_number"),
    ("half a surrogate pair", b'{"text":"\\ud800"}', 400, "bad_unicode"),
    ("half a surrogate pair in a name", b'{"text":"a","\\udc00":1}', 400, "bad_unicode"),
    ("not UTF-8", b'{"text":"\xff"}', 400, "bad_unicode"),
    ("overlong UTF-8", b'{"text":"\xc0\xaf"}', 400, "bad_unicode"),
    ("UTF-16", '{"text":"a"}'.encode("utf-16"), 400, "bad_unicode"),
    ("byte order mark", b'\xef\xbb\xbf{"text":"a"}', 400, "bad_json"),
    ("comment", b'{"text":"a"/**/}', 400, "bad_json"),
    ("deep", b'{"text":"a","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}", 400, "too_deep"),
    ("many fields", json.dumps({"text": "a", **{f"f{n}": 1 for n in range(100)}}).encode(), 400, "too_many_fields"),
    ("voice is a list", b'{"text":"a","voice_id":[]}', 400, "bad_type"),
    ("rate is text", b'{"text":"a","speaking_rate":"1"}', 400, "bad_rate"),
    ("rate is true", b'{"text":"a","speaking_rate":true}', 400, "bad_rate"),
    ("rate is zero", b'{"text":"a","speaking_rate":0}', 400, "bad_rate"),
    ("sample rate is not whole", b'{"text":"a","sample_rate":24000.5}', 400, "bad_sample_rate"),
    ("sample rate is huge", b'{"text":"a","sample_rate":1000000000}', 400, "bad_sample_rate"),
]


@pytest.mark.parametrize(("sent", "status", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_bad_requests_are_named(sent: bytes, status: int, code: str) -> None:
    with pytest.raises(ClientError) as refused:
        read(sent, 100)
    assert (refused.value.status, refused.value.code) == (status, code)


WORDS = [
    ("empty", b" ", 'The body is empty; send such as {"text": "Hello"}.'),
    ("byte order mark", b'\xef\xbb\xbf{"text":"a"}', "byte order mark"),
    ("not JSON", b'{"text":\n x}', '(line 2, column 2); send such as {"text": "Hello"}.'),
    ("no text", b"{}", "text is missing"),
    ("text is a number", b'{"text":1}', "text must be a string"),
]


@pytest.mark.parametrize(("sent", "words"), [row[1:] for row in WORDS], ids=[row[0] for row in WORDS])
def test_a_bad_request_is_told_what_to_send(sent: bytes, words: str) -> None:
    with pytest.raises(ClientError) as refused:
        read(sent, 100)
    assert words in refused.value.message


@given(st.binary(max_size=80))
@settings(max_examples=200)
def test_any_bytes_end_in_an_utterance_or_a_client_error(sent: bytes) -> None:
    with suppress(ClientError):
        assert read(sent, 100).text


#: Longer than any name or text drawn below, so that it is never one of them.
CLUSTER_KEY = "the key of this cluster"
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
values = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.text(max_size=10)


@given(st.dictionaries(names, values, max_size=4))
@settings(max_examples=100)
def test_rule_1_a_cluster_is_sent_what_the_key_was_made_of(others: Mapping[str, object]) -> None:
    try:
        wanted = read(json.dumps({"text": "x", **others, "text ": 1}).encode(), 100)
    except ClientError:
        return
    outgoing = Speeko().ask("http://cluster", CLUSTER_KEY, wanted)
    assert read(outgoing.body or b"", 100).canonical == wanted.canonical
    assert outgoing.url == "http://cluster/v1/tts"
    assert outgoing.headers["X-API-Key"] == CLUSTER_KEY
    assert CLUSTER_KEY.encode() not in body(wanted)


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "Hello, wörld?"},
        {"text": "x", "speaking_rate": 1.5, "sample_rate": 8000, "format": "pcm"},
        {"text": "x", "style": "calm & slow"},
    ],
    ids=["text", "numbers", "unknown"],
)
def test_a_query_means_the_same_as_json(fields: dict[str, object]) -> None:
    assert read_query(urlencode(fields), 100).canonical == read(json.dumps(fields).encode(), 100).canonical


QUERIES = [
    ("twice", "text=a&text=b", "duplicate_field"),
    ("not UTF-8", "text=%ff", "bad_unicode"),
    ("rate", "text=a&speaking_rate=fast", "bad_type"),
    ("infinite rate", "text=a&speaking_rate=1e999", "bad_type"),
    ("none", "", "missing_text"),
]


@pytest.mark.parametrize(("query", "code"), [row[1:] for row in QUERIES], ids=[row[0] for row in QUERIES])
def test_bad_queries_are_named(query: str, code: str) -> None:
    with pytest.raises(ClientError) as refused:
        read_query(query, 100)
    assert refused.value.code in (code, "bad_number")
