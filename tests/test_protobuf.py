"""Protobuf requests, the generated code, and the same bytes read by protobufjs in Node."""

import hashlib
import json
import runpy
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.dialects import protobuf, speeko
from edgecache.dialects.speech_pb2 import TtsStreamRequest
from edgecache.errors import ClientError, UpstreamError
from edgecache.speech.utterance import Value
from tests.test_framers import framed

ROOT = Path(__file__).parents[1]
PROTO = ROOT / "edgecache/dialects/speech.proto"
MANY = 5000

Fields = dict[str, Value]


def message(**fields: Any) -> bytes:
    """These fields as a client would send them."""
    named = {each.name for each in TtsStreamRequest.DESCRIPTOR.fields}
    made = TtsStreamRequest()
    others = Struct()
    for name, value in fields.items():
        if name in named:
            setattr(made, name, value)
        else:
            others[name] = value
    if others.fields:
        made.others.CopyFrom(others)
    return made.SerializeToString()


ALIKE: list[Fields] = [
    {"text": "hi"},
    {"text": "Größe 10² 𝄞"},
    {"text": "hi", "voice_id": "ann", "language": "de", "speaking_rate": 0.9, "format": "pcm", "sample_rate": 8000},
    {"text": "hi", "speaking_rate": 2},
    {"text": "hi", "style": "calm", "demo": {"bytes": 4096, "take": True}, "list": [1, 0.5, None, ["x"]], "none": None},
]


@pytest.mark.parametrize("fields", ALIKE, ids=str)
def test_rule_1_the_same_fields_are_the_same_utterance(fields: Fields) -> None:
    in_json = speeko.read(json.dumps(fields).encode(), MANY)
    assert protobuf.read(message(**fields), MANY).canonical == in_json.canonical


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "text": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20).map(
                "a".__add__
            )
        },
        optional={
            "voice_id": st.text("abc", min_size=1),
            "speaking_rate": st.floats(0.05, 20),
            "x": st.recursive(
                st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text("ab"),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
                max_leaves=5,
            ),
        },
    )
)
def test_rule_1_any_fields_are_the_same_utterance(fields: Fields) -> None:
    in_json = speeko.read(json.dumps(fields).encode(), MANY)
    assert protobuf.read(message(**fields), MANY).canonical == in_json.canonical


REFUSED: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "missing_text"),
    ("no text", message(voice_id="ann"), "missing_text"),
    ("JSON", b'{"text":"hi"}', "bad_protobuf"),
    ("cut", message(text="hello")[:-1], "bad_protobuf"),
    ("a number that is not known", message(text="hi") + b"\xa0\x06\x01", "unknown_field"),
    ("text twice", message(text="hi") + b":\x10\n\x0e\n\x04text\x12\x06\x1a\x04evil", "duplicate_field"),
    ("for a WebSocket alone", message(text="hi", no_store=True), "bad_field"),
    ("not UTF-8", b"\n\x01\xff", "bad_protobuf"),
    ("a rate that is none", message(text="hi", speaking_rate=99.0), "bad_rate"),
    ("not a number", message(text="hi", x=float("nan")), "bad_number"),
    ("too long", message(text="x" * (MANY + 1)), "text_too_long"),
]


@pytest.mark.parametrize(("body", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(ClientError) as caught:
        protobuf.read(body, MANY)
    assert caught.value.code == code


@settings(deadline=None)
@given(st.binary(max_size=60) | st.binary(max_size=20).map(lambda end: message(text="hi") + end))
def test_rule_1_any_bytes_end_in_an_utterance_or_a_client_error(body: bytes) -> None:
    with suppress(ClientError):
        assert protobuf.read(body, MANY).text


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/x-protobuf", True),
        ("Application/X-Protobuf; messageType=x", True),
        ("application/vnd.google.protobuf", True),
        ("application/json", False),
        ("", False),
    ],
)
def test_content_types(content_type: str, expected: bool) -> None:
    assert protobuf.is_protobuf(content_type) is expected


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    """`python docs/protobuf.py` makes it anew. Another protoc may write another version into it."""
    runpy.run_path(str(ROOT / "docs/protobuf.py"))["generate"](tmp_path)
    for made in tmp_path.rglob("speech_pb2.py*"):
        committed = PROTO.with_name(made.name).read_text()
        if made.suffix == ".pyi":
            assert committed == made.read_text()
        else:
            assert _schema(committed) == _schema(made.read_text())


def _schema(source: str) -> str:
    return next(line for line in source.splitlines() if line.startswith("DESCRIPTOR = "))


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """protobufjs, installed once beside the virtual environment."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed: protobufjs can't be asked")
    where = ROOT / ".venv" / "node"
    if not (where / "node_modules" / "protobufjs").exists():
        where.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(where), "protobufjs@8"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        if ran.returncode:
            pytest.skip("npm could not install protobufjs (no network?)")
    return where / "node_modules"


def in_node(node_modules: Path, body: bytes) -> tuple[dict[str, object], bytes]:
    """What protobufjs makes of an answer, and a request as it writes it."""
    command = ["node", str(ROOT / "tests/protobuf_reader.js"), str(PROTO)]
    environment = {"NODE_PATH": str(node_modules), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    node = shutil.which("node")
    assert node is not None
    ran = subprocess.run(
        [node, *command[1:]], input=body, capture_output=True, env=environment, timeout=30, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    told, request = ran.stdout.decode().split()
    return json.loads(told), bytes.fromhex(request)


@pytest.mark.net
@pytest.mark.timeout(90)
def test_protobufjs_reads_and_writes_the_same(node_modules: Path) -> None:
    audio = [bytes(range(256)), b"x" * 70_000]
    told, request = in_node(node_modules, framed("messages", audio))
    assert told["sha256"] == hashlib.sha256(b"".join(audio)).hexdigest()
    assert (told["chunks"], told["final"], told["error"]) == (3, True, None)
    metadata = told["metadata"]
    assert isinstance(metadata, dict)
    assert (metadata["sampleRate"], metadata["channels"], metadata["format"]) == (24000, 1, "wav")
    same = {"text": "Größe", "voice_id": "ann", "speaking_rate": 0.9, "sample_rate": 8000, "style": "calm"}
    assert protobuf.read(request, MANY).canonical == speeko.read(json.dumps(same).encode(), MANY).canonical
    broken, _ = in_node(node_modules, framed("messages", audio, UpstreamError(502, "broken_off", "It broke.")))
    assert (broken["final"], broken["error"]) == (False, "broken_off")
