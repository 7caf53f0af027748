"""What bench.autobahn says of a case that Autobahn reports."""

from typing import Any

import pytest

from bench.autobahn import read, verdict

ECHO, NOTHING = {"OK": [["message", "hello", False]]}, {"OK": [["timeout", "A"]]}
EITHER = {"OK": [["message", "hello", False]], "NON-STRICT": []}


def case(behavior: str, close: str = "OK", code: int = 1000, expected: Any = NOTHING) -> dict[str, Any]:
    return {"behavior": behavior, "behaviorClose": close, "remoteCloseCode": code, "expected": expected}


VERDICTS = {
    "as it should be": (case("OK"), "passed"),
    "not strictly": (case("NON-STRICT"), "passed"),
    "for information": (case("INFORMATIONAL", "INFORMATIONAL"), "passed"),
    "closed as it should be, and said nothing back": (case("FAILED", expected=ECHO), "no echo"),
    "the same, where it need not have said anything": (case("FAILED", code=1002, expected=EITHER), "no echo"),
    "refused for its size": (case("FAILED", "FAILED", 1009, ECHO), "too big"),
    "wrong, and no echo was asked": (case("FAILED"), "failed"),
    "no echo, and closed wrongly": (case("FAILED", "FAILED", expected=ECHO), "failed"),
    "closed with a code that it may not have": (case("FAILED", "WRONG CODE"), "failed"),
}


@pytest.mark.parametrize(("reported", "told"), VERDICTS.values(), ids=VERDICTS)
def test_a_case_that_only_an_echo_can_pass_is_told_apart(reported: dict[str, Any], told: str) -> None:
    assert verdict(reported) == told


def test_reports_are_read_in_the_order_of_their_numbers(tmp_path: Any) -> None:
    names = ("1.10", "1.2", "10.1")
    index = ", ".join(f'"{name}": {{"reportfile": "{name}.json"}}' for name in names)
    (tmp_path / "index.json").write_text(f'{{"edgecache": {{{index}}}}}')
    for name in names:
        (tmp_path / f"{name}.json").write_text('{"behavior": "OK", "behaviorClose": "OK", "remoteCloseCode": 1000}')
    assert list(read(tmp_path)) == ["1.2", "1.10", "10.1"]
