"""The environment over the file, secrets from either, and settings shown without them."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgecache.clusters.cluster import Cluster
from edgecache.configuration.report import SettingsProblems
from edgecache.errors import SettingsError
from edgecache.loading import load, problems_of, show
from tests.configured import CLUSTER, ROOT, held, read, refused


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    environ = {
        "EDGECACHE_CACHE__TTL": "2h",
        "EDGECACHE_LOG__ACCESS": "false",
        "EDGECACHE_LISTEN__PORT": "0",
        "EDGECACHE_CLUSTERS__0__URL": "http://10.0.0.1",
        "EDGECACHE_CLUSTERS__1__NAME": "12",
        "EDGECACHE_CLUSTERS__1__URLS__0": "http://a",
        "EDGECACHE_CLUSTERS__1__URLS__1": "http://b",
    }
    loaded = read(tmp_path, CLUSTER + "cache: {ttl: 1h, stale_if_error: 1h}\nlog:\n", environ)

    assert loaded.settings.cache.freshness.ttl_s == 7200
    assert loaded.settings.log.access is False
    assert loaded.settings.listen.port == 0
    assert loaded.settings.clusters[0].addresses == ("http://10.0.0.1",)
    assert loaded.settings.clusters[1] == Cluster("12", urls=("http://a", "http://b"))
    origins = {key: str(loaded.origins[key]) for key in ("cache.ttl", "cache.stale_if_error", "node.name")}
    assert origins == {
        "cache.ttl": "environment EDGECACHE_CACHE__TTL",
        "cache.stale_if_error": f"{tmp_path}/edge.yaml:2:34",
        "node.name": "default",
    }


def test_no_file_at_all() -> None:
    named = {f"EDGECACHE_CLUSTERS__{count}__NAME": f"c{count}" for count in range(11)}
    urls = {f"EDGECACHE_CLUSTERS__{count}__URL": "http://a" for count in range(11)}

    assert [each.name for each in load(None, named | urls).settings.clusters] == [f"c{count}" for count in range(11)]
    with pytest.raises(SettingsError, match="1 error in the environment"):
        load(None, {})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("EDGECACHE_CACHE__TTTL", "1h", "did you mean EDGECACHE_CACHE__TTL?"),
        ("EDGECACHE_LISTEN_PORT", "80", "did you mean EDGECACHE_LISTEN__PORT?"),
        ("EDGECACHE_CLUSTERS__0__ULR", "http://a", "did you mean EDGECACHE_CLUSTERS__0__URL?"),
        ("EDGECACHE_CLUSTERS__A__URL", "http://a", "is no setting"),
        ("EDGECACHE_CACHE", "1h", "is no setting"),
        ("EDGECACHE_", "1", "is no setting"),
        ("EDGECACHE_cache__ttl", "1h", "is no setting"),
        ("EDGECACHE_CLUSTERS__5__URL", "http://a", "the list has 1 so far"),
        ("EDGECACHE_LOG__ACCESS", "1", "write true"),
        ("EDGECACHE_CACHE__TTL", "", "is missing|has no value"),
        ("EDGECACHE_NODE__NAME", "a\udcff", "is not UTF-8"),
        ("EDGECACHE_NODE__NAME", "a\x1b", "control character"),
    ],
)
def test_a_variable_that_is_a_mistake_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsProblems, match=message) as caught:
        read(tmp_path, CLUSTER, {name: text})

    assert [(each.where, each.line) for each in caught.value.problems] == [(name, None)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("EDGECACHE_CONFIG", "x.yaml"),
        ("EDGECACHE_API_KEY", "k"),
        ("EDGECACHE_SERVICE_HOST", "10.0.0.1"),
        ("EDGECACHE_PORT", "tcp://10.0.0.1:8080"),
        ("EDGECACHE_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("EDGECACHE_ADMIN_SERVICE_PORT_HTTP", "9901"),
        ("EDGECACHE_MINE", "spoken for by the file"),
    ],
)
def test_variables_that_are_no_settings(name: str, text: str, tmp_path: Path) -> None:
    """Kubernetes sets such ones in every pod beside a Service called edgecache."""
    environ = {name: text, "EDGECACHE_MINE": "x"}

    assert read(tmp_path, CLUSTER + 'node: {region: "${env:EDGECACHE_MINE}"}', environ).settings


def test_references_stand_anywhere_in_text(tmp_path: Path) -> None:
    text = CLUSTER + 'node: {region: "a-${env:A}-$${env:A}"}\nlisten: {port: "${env:PORT}"}\ndrain: ${env:DRAIN}\n'
    settings = read(tmp_path, text, {"A": "1:2", "PORT": "81", "DRAIN": "3s"}).settings

    assert settings.node.region == "a-1:2-${env:A}"
    assert (settings.listen.port, settings.drain_s) == (81, 3.0)


def cluster_with(line: str) -> str:
    return f"clusters:\n  - name: syd\n    url: http://a\n    {line}\n"


@pytest.mark.parametrize(
    ("line", "environ"),
    [
        ("api_key: sk-1", {}),
        ("api_key: ${env:KEY}", {"KEY": "sk-1"}),
        ("api_key_file: key.txt", {}),
        ("api_key_file: ${env:CREDENTIALS_DIRECTORY}/key.txt", {"CREDENTIALS_DIRECTORY": "DIR"}),
        ("api_key_file: other.txt", {"EDGECACHE_CLUSTERS__0__API_KEY": "sk-1"}),
        ("api_key: other", {"EDGECACHE_CLUSTERS__0__API_KEY_FILE": "DIR/key.txt"}),
    ],
)
def test_ways_to_a_secret(line: str, environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("sk-1\n")
    loaded = read(
        tmp_path, cluster_with(line), {name: text.replace("DIR", str(tmp_path)) for name, text in environ.items()}
    )

    assert loaded.settings.clusters[0].api_key == "sk-1"
    assert held(loaded, "clusters.0.api_key") == "********"
    assert str(loaded.origins["clusters.0.api_key"]) != "default"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("api_key_file: none.txt", "does not exist"),
        ("api_key_file: empty.txt", "is empty"),
        ("api_key_file: two.txt", "more than one line"),
        ("api_key_file: large.txt", "too large"),
        ("api_key_file: .", "is a directory"),
        ("api_key_file: empty.txt\n    api_key: abc", "api_key is given too"),
        ("api_key: ${env:EMPTY}", "is empty"),
    ],
)
def test_a_secret_that_can_not_be_had(line: str, message: str, tmp_path: Path) -> None:
    for name, text in {"empty.txt": "\n", "two.txt": "a\nb\n", "large.txt": "x" * 70_000}.items():
        (tmp_path / name).write_text(text)

    assert message in str(refused(tmp_path, cluster_with(line), {"EMPTY": ""}))


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("api_key: 5e3c2e7", id="another mistake elsewhere"),
        pytest.param("api_key: [5e3c2e7]", id="wrong type"),
        pytest.param("api_key: 5321777\n    api_key: 5e3c2e7", id="twice"),
        pytest.param("{name: a, api_key: 5e3c2e7, url: ftp}", id="mistakes in the same line"),
        pytest.param("api_kye: 5e3c2e7", id="misspelt"),
        pytest.param("auth: {token: 5e3c2e7}", id="of another product"),
        pytest.param('api_key: "5e3c2e7', id="no closing quote"),
        pytest.param("api_key: 5e3c2e7: x", id="not YAML"),
        pytest.param("urls: ['http://u:5e3c2e7@b']", id="in a URL"),
        pytest.param("api_key: 'x5e3c2e7 ${env:NOPE}'", id="reference in it"),
        pytest.param("api_key: |\n      5e3c2e7\n", id="block"),
    ],
)
def test_reports_keep_secrets(line: str, tmp_path: Path) -> None:
    text = cluster_with(line) if not line.startswith("{") else f"clusters: [{line}]\n"
    error = refused(tmp_path, text + "cache: {redis: {url: 'x://:5e3c2e7@h', password: 5e3c2e7, budget: 1}}\n")

    assert "5e3c2e7" not in str(error)
    assert "5e3c2e7" not in json.dumps(problems_of(error))


def test_show_writes_what_the_file_would_say(tmp_path: Path) -> None:
    text = CLUSTER + "cache: {ttl: 1440m, redis: {url: 'redis://u:pw@h', password: abc, budget: 0.02s}}\n"
    loaded = read(tmp_path, text + "node: {region: 'no'}\n")
    rows = {key: (spelled, where) for key, spelled, where in show(loaded, origin=True)}

    assert rows["cache.ttl"] == ("24h", f"{tmp_path}/edge.yaml:2:14")
    assert rows["cache.redis.budget"][0] == "20ms"
    assert rows["cache.redis.password"][0] == "********"
    assert rows["cache.redis.url"][0] == '"redis://********@h"'
    assert rows["cache.memory.max_size"] == ("512MiB", "default")
    assert rows["clusters.0.api_key"] == ("null", "default")
    assert rows["auth"][0] == "null"
    assert {where for *_, where in show(loaded, origin=False)} == {""}


def test_what_is_shown_can_be_set_again(tmp_path: Path) -> None:
    """Each shown value, put in a file under its key, gives the same settings."""
    loaded = read(tmp_path, (ROOT / "config" / "edge.yaml").read_text())
    tree: dict[str, Any] = {}
    for key, spelled, _ in show(loaded, origin=False):
        *above, last = key.split(".")
        at = tree
        for part in above:
            at = at.setdefault(part, {})
        at[last] = spelled

    def written(at: Any) -> str:
        if isinstance(at, str):
            return at
        if "0" in at:
            return f"[{', '.join(written(each) for each in at.values())}]"
        return "{" + ", ".join(f"{key}: {written(each)}" for key, each in at.items()) + "}"

    assert read(tmp_path, written(tree).replace('secret: ""', "secret: ''")).settings == loaded.settings
