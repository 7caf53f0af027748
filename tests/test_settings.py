"""Configuration: what is understood, what is refused, and how every mistake is told at once."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from edgecache.clusters.cluster import Cluster
from edgecache.configuration.declaration import declare
from edgecache.configuration.report import SettingsProblems
from edgecache.delivery.auth import new_key
from edgecache.errors import SettingsError
from edgecache.loading import load, problems_of, reference, schema
from edgecache.option import option
from tests.configured import CLUSTER, REGION_ENVIRON, ROOT, read, refused, told


def test_the_least_configuration_is_one_cluster(tmp_path: Path) -> None:
    settings = read(tmp_path, CLUSTER).settings

    assert settings.clusters == (Cluster("syd", "http://127.0.0.1:9001"),)
    assert (settings.listen.port, settings.admin.port) == (8080, 9901)
    assert settings.auth is None
    assert settings.cache.freshness.lifetime_s == 8 * 24 * 3600


def test_a_section_in_part_keeps_its_other_defaults(tmp_path: Path) -> None:
    """`admin` has another default port than `listen`, though both are addresses."""
    settings = read(tmp_path, CLUSTER + "admin: {host: localhost}\ncache:\n  memory:\n").settings

    assert (settings.admin.host, settings.admin.port) == ("localhost", 9901)
    assert settings.cache.memory.max_size_bytes == 512 << 20


@pytest.mark.parametrize("name", ["edge.yaml", "region-redis.yaml"])
def test_the_examples_load(name: str, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(new_key("alice")[1] + "\n")

    settings = read(tmp_path, (ROOT / "config" / name).read_text(), REGION_ENVIRON).settings

    assert len(settings.clusters) == 2
    if settings.auth is not None:
        assert settings.auth.keys_file == str(tmp_path / "keys.txt")
        assert settings.cache.redis.url == "redis://10.0.0.5:6379/0"
        assert settings.clusters[0].api_key == "k"


def test_the_example_loads_where_it_lies() -> None:
    assert load(ROOT / "config" / "edge.yaml", {}).settings.node.name == "edge-syd-1"


@pytest.mark.parametrize(
    "word",
    ["no", "yes", "on", "off", "1:30", "012", "1_000", "2024-01-01", "0x1f", "~", "True", "NULL", "1e3", ".5", "+1"],
)
def test_text_is_the_text_it_looks_like(word: str, tmp_path: Path) -> None:
    """YAML 1.1 reads these as booleans, base 60, octal, dates and nulls."""
    assert read(tmp_path, CLUSTER + f"node: {{region: {word}}}").settings.node.region == word
    assert read(tmp_path, CLUSTER, {"EDGECACHE_NODE__REGION": word}).settings.node.region == word


def test_redis_off_needs_no_quotes(tmp_path: Path) -> None:
    assert read(tmp_path, CLUSTER + "cache: {redis: {url: off}}").settings.cache.redis.url == "off"


@pytest.mark.parametrize(
    ("line", "place", "message"),
    [
        pytest.param("drain: 20", (2, 8), "drain: has no unit: 20 of what? / write it as", id="duration without unit"),
        pytest.param("drain: -1", (2, 8), "drain: must not be less than 0", id="negative duration"),
        pytest.param("drain: 24 h", (2, 8), 'drain: "24 h" is not a duration / write it as in "24h"', id="blank"),
        pytest.param("drain: 1m1h", (2, 8), "is not a duration", id="units out of order"),
        pytest.param("drain: 999999d", (2, 8), "is longer than a hundred years", id="duration too long"),
        pytest.param("drain: yes", (2, 8), 'drain: "yes" is not a duration', id="a word as a duration"),
        pytest.param("drain: [1s]", (2, 8), "drain: must be a single value, not a list", id="list as a duration"),
        pytest.param("drain:", (2, 7), "drain: has no value / leave the key out for 20s", id="no value"),
        pytest.param("cache: {memory: {max_size: 512}}", (2, 28), "has no unit: 512 of what?", id="size without unit"),
        pytest.param("cache: {memory: {max_size: 512M}}", (2, 28), '"512M" is not a size', id="size in no unit"),
        pytest.param("cache: {redis: {budget: 1us}}", (2, 25), "must be at least 1ms, not 1us", id="minimum with unit"),
        pytest.param("listen: {port: 80800}", (2, 16), "must be between 0 and 65535, not 80800", id="bounds"),
        pytest.param('listen: {port: "80"}', (2, 16), 'not "80" / write it without quotes', id="number in quotes"),
        pytest.param("listen: {port: 0x50}", (2, 16), "write it in plain decimal digits", id="hexadecimal"),
        pytest.param("listen: 8080", (2, 9), "listen: must be keys and values, not a single value", id="no section"),
        pytest.param("log: {access: yes}", (2, 15), 'not "yes" / write true, without quotes', id="boolean of YAML 1.1"),
        pytest.param("log: {level: inf}", (2, 14), 'not "inf" / did you mean "info"?', id="unknown choice"),
        pytest.param("node: {region: 7}", (2, 16), 'must be text, and this is a number / write it as "7"', id="number"),
        pytest.param("node: {name: a b}", (2, 14), '"a b" can\'t be a name', id="name is no token"),
        pytest.param("ttl: 5m", (2, 1), 'ttl: unknown key / did you mean "cache.ttl"?', id="key of another section"),
        pytest.param("cache: {TTl: 5m}", (2, 9), 'cache.TTl: unknown key / did you mean "ttl"?', id="misspelt key"),
        pytest.param("drain: 1s\ndrain: 2s", (3, 1), "drain: is here twice / first in line 2", id="key twice"),
        pytest.param("workers: 0", (2, 10), "must be", id="no worker at all"),
        pytest.param("workers: four", (2, 10), 'must be a whole number or "auto", not "four"', id="no workers"),
        pytest.param("listen: {host: 0.0.0.0}", (2, 16), "add `auth: {keys_file: keys.txt}`", id="open to all"),
        pytest.param("admin: {host: 0.0.0.0}", (2, 15), "add `admin: {token_file: admin-t", id="admin open to all"),
        pytest.param("admin: {token: 'a b'}", (2, 16), "can't be a token: one word", id="no token"),
        pytest.param("admin: {port: 8080}", (2, 15), "listen and admin have the same address", id="one address"),
        pytest.param("auth: {keys_file: none.txt}", (2, 19), "does not exist", id="no keys file"),
        pytest.param("auth: {keys_file: .}", (2, 19), "is a directory", id="keys file is a directory"),
        pytest.param("pool: {allow_networks: [127.0.0.1/8]}", (2, 25), '"127.0.0.1/8" is no network', id="no network"),
        pytest.param("cache: {redis: {url: localhost}}", (2, 22), '"localhost" is no Redis URL', id="redis"),
        pytest.param(
            "timeouts: {first_byte: 5m}", (2, 24), "(5m) must not be more than timeouts.total (2m)", id="order"
        ),
        pytest.param(
            "slo: {jitter: {target: 1s}}",
            (2, 24),
            "slo.jitter.target (1s) must not be more than slo.jitter.warning (50ms)",
            id="thresholds",
        ),
        pytest.param(
            "timeouts: {total: 1s}", (2, 19), "(5s) must not be more than timeouts.total (1s)", id="other order"
        ),
        pytest.param("node: {region: '${env:NOPE}'}", (2, 16), "variable NOPE is not set", id="no such variable"),
        pytest.param("node: {region: '${env:EMPTY}'}", (2, 16), "is empty", id="empty variable"),
        pytest.param("node: {region: '${NAME}'}", (2, 16), "write ${env:NAME}", id="shell's form"),
        pytest.param('node: {region: "a\\u0007"}', (2, 16), "holds a control character", id="control character"),
        pytest.param('node: {region: "\\ud800"}', (2, 16), "half of a surrogate pair", id="half a character"),
        pytest.param("? [a]\n: 1", (2, 3), "a key must be a plain word", id="a list as a key"),
        pytest.param(
            'cache: {key: {voice_revisions: [{voice: a, revision: "2"}, {voice: a, revision: "3"}]}}',
            (2, 68),
            "'a' has a revision already",
            id="a voice twice",
        ),
        pytest.param(
            'cache: {key: {voice_revisions: [{voice: a, revision: ""}]}}', (2, 54), "is empty", id="no revision"
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(line: str, place: tuple[int, int], message: str, tmp_path: Path) -> None:
    [problem] = told(refused(tmp_path, CLUSTER + line, {"EMPTY": ""}))

    assert problem[:2] == place
    assert message in problem[2]


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        pytest.param("{name: a}", "clusters.0: has no url", id="no url"),
        pytest.param('{name: a, url: "http://a", urls: ["http://b"]}', "give `url` or `urls`, not both", id="both"),
        pytest.param('{url: "http://a"}', "clusters.0.name: is missing", id="no name"),
        pytest.param('{name: a/b, url: "http://a"}', "can't be a name", id="name"),
        pytest.param('{name: a, url: "ftp://a"}', "neither http:// nor https://", id="scheme"),
        pytest.param('{name: a, url: "a:80"}', "neither http:// nor https://", id="no scheme"),
        pytest.param('{name: a, url: "http://"}', "has no host", id="no host"),
        pytest.param('{name: a, url: "http://a:99999"}', "is no URL", id="port"),
        pytest.param('{name: a, url: "http://u:p@a"}', "has a user name or a password in it", id="password"),
        pytest.param('{name: a, url: "http://a/?b"}', "has a query or a fragment", id="query"),
        pytest.param('{name: a, url: "http://a#"}', "has a query or a fragment", id="fragment"),
        pytest.param('{name: a, urls: ["http://a", ftp]}', "clusters.0.urls.1: ", id="one of several"),
        pytest.param('{name: a, url: "http://a", dialect: speko}', 'did you mean "speeko"?', id="dialect"),
        pytest.param(
            '{name: a, url: "http://a", api_key: "\u00e9"}', "no HTTP header can carry", id="key beyond ASCII"
        ),
        pytest.param('{name: a, url: "http://a", api_key: ""}', "api_key: is empty", id="empty key"),
        pytest.param("syd", "clusters.0: must be keys and values", id="a word"),
    ],
)
def test_a_cluster_that_can_not_be_asked(cluster: str, message: str, tmp_path: Path) -> None:
    assert any(message in problem for *_, problem in told(refused(tmp_path, f"clusters: [{cluster}]")))


def test_clusters_have_names_of_their_own(tmp_path: Path) -> None:
    again = refused(tmp_path, 'clusters:\n- {name: a, url: "http://a"}\n- {name: a, url: "http://b"}\n')

    assert told(again)[0][:2] == (3, 10)
    assert "edge.yaml:2:10" in str(again)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(b"", "clusters: at least one is needed", id="empty"),
        pytest.param(b"# nothing\n", "clusters: at least one is needed", id="only a comment"),
        pytest.param(b"clusters:\n", "clusters: at least one is needed", id="no cluster"),
        pytest.param(b"clusters: []\n", "clusters: at least one is needed", id="an empty list"),
        pytest.param(b"hello", "must be keys and values", id="a word"),
        pytest.param(b"- a", "must be keys and values, not a list", id="a list"),
        pytest.param(b"a: b: c", "edge.yaml:1:5", id="bad YAML"),
        pytest.param(b"a: [1,\n  2", "this is not valid YAML", id="an open bracket"),
        pytest.param(b"a:\n\t- 1", "indent with spaces", id="tab"),
        pytest.param(b"clusters: [{name: ${env:A}}]", 'write "${env:NAME}" in quotes', id="reference without quotes"),
        pytest.param(b"ok: 1\nbad: \xff\xfe\n", "edge.yaml:2:6", id="not UTF-8"),
        pytest.param("node: {}".encode("utf-16"), "not UTF-8 from here on", id="UTF-16"),
        pytest.param(b"a: \x1b[31m", "control character (U+001B)", id="escape sequence"),
        pytest.param(b"a: 1\n---\nb: 2", "expected a single document", id="two documents"),
        pytest.param(b"a: !!python/object:os.system {}", "is not understood", id="tag"),
        pytest.param(b"a: !!int no", "this is no !!int", id="tag that does not hold"),
        pytest.param(b"a: *b", "undefined alias", id="alias of nothing"),
        pytest.param(b"a: &b [*b]", "an alias is within what it repeats", id="alias of itself"),
        pytest.param(b'a: "\\UFFFFFFFF"', "out of range", id="beyond Unicode"),
        pytest.param(b"a: " + b"[" * 5000, "too deep", id="deep"),
        pytest.param(b"[" + b"1," * 30_000 + b"]", "too many values", id="wide"),
        pytest.param(b"#" * (1 << 20) + b"\n", "larger than 1 MiB", id="huge"),
        pytest.param(
            b"a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + b"".join(b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 10)) for n in range(8)),
            "aliases repeat too much",
            id="alias bomb",
        ),
    ],
)
def test_a_file_that_can_not_be_read_says_why(raw: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "edge.yaml").write_bytes(raw)

    with pytest.raises(SettingsProblems) as caught:
        load(tmp_path / "edge.yaml", {})

    assert message in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert str(caught.value).endswith("edge.yaml; nothing was applied.")


@pytest.mark.parametrize(
    ("name", "message"), [("none.yaml", "does not exist"), (".", "is a directory"), ("a\0b", "is not a path")]
)
def test_no_such_file(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        load(tmp_path / name, {})


def test_every_mistake_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "cache:\n  ttl: 5 parsecs\n  tttl: 1h\nlisten: {port: http}\nclusters:\n  - {name: a}\n"
    error = refused(tmp_path, text, {"EDGECACHE_DRAIN": "20"})

    assert [problem.key for problem in error.problems] == [
        "cache.ttl",
        "cache.tttl",
        "listen.port",
        "clusters.0",
        "drain",
    ]
    assert str(error).endswith(f"5 errors in {tmp_path}/edge.yaml and the environment; nothing was applied.")


def test_the_report_shows_the_line_and_a_caret(tmp_path: Path) -> None:
    assert str(refused(tmp_path, CLUSTER + "cache:\n  tttl: 24h\n")) == (
        "error: cache.tttl: unknown key\n"
        f"  --> {tmp_path}/edge.yaml:3:3\n"
        "   |\n"
        " 3 |   tttl: 24h\n"
        '   |   ^ did you mean "ttl"?\n'
        "\n"
        f"1 error in {tmp_path}/edge.yaml; nothing was applied."
    )


@pytest.mark.parametrize("lead", ['node: {region: "東京", ', 'node: {"a\tb": x, ', f"node: {{region: {'x' * 300}, "])
def test_the_caret_is_below_its_word(lead: str, tmp_path: Path) -> None:
    """Also after wide characters and tabs, and in a line too long to show."""
    lines = str(refused(tmp_path, CLUSTER + lead + "nam: x}")).splitlines()
    last = next(number for number, line in enumerate(lines) if 'did you mean "name"?' in line)
    line, caret = (each.partition("| ")[2] for each in lines[last - 1 : last + 1])
    wide = sum(character in "東京" for character in line)

    assert len(line) <= 120
    assert caret.index("^") == line.index("nam: x") + wide
    assert caret.count("\t") == line.count("\t")


def test_for_programs(tmp_path: Path) -> None:
    error = refused(tmp_path, CLUSTER, {"EDGECACHE_DRAIN": "20"})

    assert json.loads(json.dumps(problems_of(error))) == [
        {
            "where": "EDGECACHE_DRAIN",
            "line": None,
            "column": None,
            "key": "drain",
            "message": "has no unit: 20 of what?",
            "hint": 'write it as "20s" or "20ms"',
        }
    ]
    assert problems_of(SettingsError("busy"))[0]["message"] == "busy"


def keys_of(tree: Any, above: str = "") -> set[str]:
    if isinstance(tree, list):
        return set().union(*(keys_of(each, above) for each in tree))
    if not isinstance(tree, dict):
        return {above}
    return {above}.union(*(keys_of(each, f"{above}.{key}") for key, each in tree.items()))


def schema_keys(described: Mapping[str, Any], above: str = "") -> set[str]:
    inner = described.get("items", described)
    return {above}.union(*(schema_keys(each, f"{above}.{key}") for key, each in inner.get("properties", {}).items()))


@pytest.mark.parametrize("name", ["edge.yaml", "region-redis.yaml"])
def test_the_schema_knows_the_examples(name: str) -> None:
    examples = yaml.safe_load((ROOT / "config" / name).read_text())

    assert keys_of(examples) <= schema_keys(schema())


def test_the_schema_says_what_editors_need() -> None:
    described = schema()
    cache = described["properties"]["cache"]["properties"]

    assert described["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert described["required"] == ["clusters"]
    assert described["properties"]["clusters"]["minItems"] == 1
    assert cache["ttl"]["default"] == "24h"
    assert "at least 1ms" in cache["redis"]["properties"]["budget"]["description"].lower()
    assert {"password", "password_file"} <= cache["redis"]["properties"].keys()
    for section in (described, described["properties"]["clusters"]["items"], described["properties"]["node"]):
        assert section["additionalProperties"] is False
    json.dumps(described)


def test_the_documentation_is_current() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text("utf-8")

    assert written.endswith(f"-->\n\n{reference()}"), "write its tables anew: the command stands above them"


def test_settings_are_read_without_what_serves() -> None:
    asks = "import sys, edgecache.loading; print(sorted({'aiohttp', 'redis', 'rich', 'typer'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", asks], check=True, capture_output=True, text=True)

    assert found.stdout.strip() == "[]"


def test_a_unit_stays_where_two_options_would_share_a_key() -> None:
    @dataclass(frozen=True)
    class Part:
        better: float = option(0.1, "Share.")
        better_s: float = option(0.1, "Time.")
        other_s: float = option(0.1, "Time.")

    assert [each.key for each in declare(Part).fields] == ["better", "better_s", "other"]


WORDS = [
    "cache",
    "ttl",
    "clusters",
    "url",
    "name",
    "24h",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "\n",
    "\n  ",
    '"',
    "&a ",
    "*a",
]


@given(text=st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS), max_size=25).map("".join)))
@example(text='{? "\ud800" : 1}')
@hypothesis_settings(max_examples=150, deadline=None)
def test_any_text_is_settings_or_a_report(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))

    assert outcome(path).endswith(("settings", "nothing was applied."))


def outcome(path: Path) -> str:
    try:
        return f"{len(load(path, {}).settings.clusters)} clusters in settings"
    except SettingsError as error:
        return str(error)
