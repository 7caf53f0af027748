"""API keys: the file they are in, whom they admit, and whose recordings are whose (rule 8)."""

import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.delivery.auth import ANYONE, OPEN, Caller, Keyring, new_key, read_keys
from edgecache.errors import ClientError, SettingsError

HASH = hashlib.sha256(b"ann's key").hexdigest()
OTHER = hashlib.sha256(b"bob's key").hexdigest()


def written(directory: Path, *lines: str) -> Path:
    path = directory / "keys.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


GOOD = [
    ("its own", f"ann sha256:{HASH}", Caller("ann", "key-ann")),
    ("shared", f"ann sha256:{HASH} namespace=team", Caller("ann", "team")),
    ("spaces and tabs", f"  ann \t sha256:{HASH}\t  namespace=team ", Caller("ann", "team")),
    ("all that a name may be", f"A.b_c-9 sha256:{HASH}", Caller("A.b_c-9", "key-A.b_c-9")),
    ("the longest name", f"{'n' * 64} sha256:{HASH}", Caller("n" * 64, "key-" + "n" * 64)),
]


@pytest.mark.parametrize(("line", "caller"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
def test_a_line_admits_its_key(tmp_path: Path, line: str, caller: Caller) -> None:
    ring = read_keys(written(tmp_path, "# clients", "", line, "   # more to come"))
    assert ring.admit("ann's key") == caller
    assert repr(ring) == "<Keyring 1 keys>"


BAD = [
    ("a key in the clear", "ann ec_secret"),
    ("no hash", "ann"),
    ("no name", f"sha256:{HASH}"),
    ("another hash", f"ann md5:{HASH}"),
    ("too short a hash", f"ann sha256:{HASH[:-1]}"),
    ("too long a hash", f"ann sha256:{HASH}0"),
    ("upper case", f"ann sha256:{HASH.upper()}"),
    ("a name with a blank", f"ann lee sha256:{HASH}"),
    ("a name beyond ASCII", f"änn sha256:{HASH}"),
    ("too long a name", f"{'n' * 65} sha256:{HASH}"),
    ("no namespace", f"ann sha256:{HASH} namespace="),
    ("a namespace with a slash", f"ann sha256:{HASH} namespace=a/b"),
    ("two namespaces", f"ann sha256:{HASH} namespace=a namespace=b"),
    ("a comment behind", f"ann sha256:{HASH} # ann's"),
    ("a full-width digit", f"ann sha256:{HASH[:-1]}\uff11"),
]


@pytest.mark.parametrize("line", [row[1] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_line_is_named_by_its_number_and_never_quoted(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, "# clients", f"bob sha256:{OTHER}", line)
    with pytest.raises(SettingsError) as told:
        read_keys(path)
    assert str(told.value).startswith(f"{path}:3: not `NAME sha256:HEX")
    assert "ec_secret" not in str(told.value)


def test_all_bad_lines_are_told_at_once(tmp_path: Path) -> None:
    lines = [f"ann sha256:{HASH}", "oops", f"ann sha256:{OTHER}", "", f"eve sha256:{HASH}", "oops"]
    path = written(tmp_path, *lines)
    with pytest.raises(SettingsError) as told:
        read_keys(path)
    starts = [each.split(" ")[0] for each in str(told.value).splitlines()]
    assert starts == [f"{path}:{number}:" for number in (2, 3, 5, 6)]
    assert "the name ann is there twice" in str(told.value)
    assert "this key is ann's already" in str(told.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nobody yet\n"], ids=["empty", "blank", "comments"])
def test_a_file_that_admits_nobody_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys.txt"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="holds no keys"):
        read_keys(path)


def test_a_file_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "absent.txt", tmp_path, tmp_path / "latin.txt"):
        with pytest.raises(SettingsError, match="can't be read"):
            read_keys(path)


def test_what_editors_do_to_a_file_is_forgiven(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_bytes(b"\xef\xbb\xbf# clients\r\n" + f"ann sha256:{HASH}\r\n".encode())
    assert read_keys(path).admit("ann's key").name == "ann"


@pytest.mark.parametrize("namespace", [None, "team"])
def test_a_new_key_is_admitted_by_its_line_and_is_not_in_it(tmp_path: Path, namespace: str | None) -> None:
    made = [new_key(name, namespace) for name in ("ann", "bob")]
    ring = read_keys(written(tmp_path, *(line for _, line in made)))
    (anns, line), (bobs, _) = made
    assert ring.admit(anns) == Caller("ann", namespace or "key-ann")
    assert (ring.admit(anns).namespace == ring.admit(bobs).namespace) == (namespace is not None)
    assert anns not in line
    assert len(anns) > 43  # 256 bits, and what says whose they are


@pytest.fixture(scope="module")
def ring() -> Keyring:
    digest = bytes.fromhex(HASH)
    return Keyring({digest: (digest, Caller("ann", "key-ann"))})


@given(st.text() | st.text(st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)))
@settings(max_examples=100)
def test_whatever_is_presented_is_admitted_or_refused(ring: Keyring, presented: str) -> None:
    with pytest.raises(ClientError) as told:
        ring.admit(presented)
    assert (told.value.status, told.value.code) == (401, "invalid_api_key")


def test_no_key_is_told_apart_from_a_wrong_one(ring: Keyring) -> None:
    for presented, code in [(None, "missing_api_key"), ("", "invalid_api_key"), ("ann's kez", "invalid_api_key")]:
        with pytest.raises(ClientError) as told:
            ring.admit(presented)
        assert (told.value.status, told.value.code) == (401, code)
        assert not presented or presented not in told.value.message


def test_a_key_is_compared_as_a_hash_and_in_constant_time(ring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    equal = hmac.compare_digest

    def compare(known: bytes, presented: bytes) -> bool:
        compared.append((known, presented))
        return equal(known, presented)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    ring.admit("ann's key")
    with pytest.raises(ClientError):
        ring.admit("bob's key")
    assert compared == [(bytes.fromhex(HASH), bytes.fromhex(HASH)), (b"", bytes.fromhex(OTHER))]


@pytest.mark.parametrize("presented", [None, "", "anything"])
def test_an_edge_without_keys_admits_anyone(presented: str | None) -> None:
    assert OPEN.admit(presented) is ANYONE
    assert repr(OPEN) == "<Keyring open>"


def test_a_keyring_shows_no_hash(ring: Keyring) -> None:
    assert HASH not in repr(ring)
    assert bytes.fromhex(HASH).hex() not in repr(ring)
