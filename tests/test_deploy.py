"""deploy/: every metric, label and recorded name that rules and dashboards go by is really there; the rules alert."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from edgecache.ops.families import FAMILIES, Kind
from edgecache.ops.promises import SPANS_S
from tests.houses import house, with_redis
from tests.scrapes import scrape

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "edgecache.rules.yml"
GRAFANA = DEPLOY / "grafana" / "edgecache.json"
_METRIC = re.compile(r"\b((?:edgecache|process)_[a-z0-9_]+)(\{[^}]*\})?")
_RECORDED = re.compile(r"\b(edgecache:[a-z0-9_:]+)")
#: What Prometheus itself adds.
_ADDED = {"instance", "job", "le"}
#: Told only when something was not stored, was purged, or waited; or when a cluster has been heard often enough.
RARE = {
    *("edgecache_fills_unstored", "edgecache_upstream_first_audio_seconds", "edgecache_cluster_queue_wait_seconds"),
    *("edgecache_purges", "edgecache_upstream_faults"),
}
#: For alerts, for `edgecache top`, or beside one that a panel shows.
ON_NO_PANEL = {
    f"edgecache_{name}"
    for name in (
        *("asyncio_tasks", "cache_entries", "cluster_connect_seconds", "cluster_queue_wait_seconds"),
        *("cluster_time_to_first_byte_seconds", "connection_startup_seconds", "fast_lane_answers", "fill_held_bytes"),
        *(
            "keys_last_reload_successful",
            "fills_in_flight",
            "fills_queued",
            "http_connections_limit",
            "http_request_duration_seconds",
        ),
        *("http_requests_broken", "http_response_bytes", "mode_causes", "redis_pending_bytes", "redis_up"),
        *("saved_characters", "saved_syntheses", "slo_events", "slo_good", "slo_target_ratio", "stream_gaps"),
        *("stream_silence_seconds", "upstream_faults", "upstream_first_audio_seconds", "upstream_requests"),
        *("upstream_requests_in_flight", "upstream_state"),
    )
}
#: Nothing listens there: Redis is a tier all the same.
NO_REDIS = "redis://127.0.0.1:1"


def rules() -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries() -> Iterator[str]:
    """Every expression of every panel, and of the lists to choose from."""
    board = json.loads(GRAFANA.read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def expressions() -> list[str]:
    return [*(rule["expr"] for rule in rules()), *queries()]


async def test_every_metric_that_is_gone_by_is_in_a_real_scrape() -> None:
    cache = with_redis(NO_REDIS)
    async with house(cache=replace(cache, ttl_s=60.0)) as here:
        await here.say("More to come", demo={"rtf": 2.0})
        await here.say("More to come", demo={"rtf": 2.0})
        seen = await scrape(here.node.admin_port)
    used = {name for each in expressions() for name, _ in _METRIC.findall(each)}

    assert len(used) > 20
    assert used - seen.names - {f"{name}_total" for name in RARE} == set()
    unseen = {each.name for each in FAMILIES.values()} - {family.name for family in seen.families}
    assert unseen <= RARE, "what is listed is told"


def test_a_metric_that_no_panel_shows_is_one_that_others_tell_as_well() -> None:
    shown = {re.sub(r"_(total|bucket|sum|count)$", "", name) for each in queries() for name, _ in _METRIC.findall(each)}
    assert {name for name in FAMILIES if name.startswith("edgecache_")} - shown == ON_NO_PANEL


def test_every_label_that_is_gone_by_is_one_of_its_metrics() -> None:
    for expression in expressions():
        for name, selector in _METRIC.findall(expression):
            plain = re.sub(r"_(bucket|sum|count)$", "", name)
            family = FAMILIES.get(plain) or FAMILIES.get(name) or FAMILIES[name.removesuffix("_total")]
            assert name.endswith("_total") is (family.kind is Kind.COUNTER), name
            labels = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", selector or ""))
            assert labels <= {*family.labels, *_ADDED}, expression


def test_every_recorded_name_that_is_gone_by_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}

    assert {name for each in expressions() for name in _RECORDED.findall(each)} <= recorded
    assert {f"edgecache:slo_burn_rate:{span}" for span in SPANS_S} <= recorded


def test_alerts_say_what_is_wrong_and_how_badly() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]

    assert len(alerts) > 5
    for alert in alerts:
        assert alert["labels"]["severity"] in ("page", "ticket")  # type: ignore[index]
        assert {"summary", "description"} <= set(alert["annotations"])


def test_the_dashboard_of_grafana_has_no_panel_over_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(GRAFANA.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


CASE = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'edgecache_slo_events_total{{instance="syd", slo="first_byte", subject="miss"}}', values: '0+100x300'}}
      - {{series: 'edgecache_slo_good_total{{instance="syd", slo="first_byte", subject="miss"}}', values: '0+10x300'}}
      - {{series: 'edgecache_slo_events_total{{instance="syd", slo="first_byte", subject="hit"}}', values: '0+100x300'}}
      - {{series: 'edgecache_slo_good_total{{instance="syd", slo="first_byte", subject="hit"}}', values: '0+96x300'}}
      - {{series: 'edgecache_slo_target_ratio{{instance="syd", slo="first_byte"}}', values: '0.95x300'}}
    promql_expr_test:
      - expr: round(edgecache:slo_burn_rate:1h{{subject="miss"}}, 0.001)
        eval_time: 4h
        exp_samples: [{{labels: '{{instance="syd", slo="first_byte", subject="miss"}}', value: 18}}]
      - expr: round(edgecache:slo_burn_rate:5m{{subject="hit"}}, 0.001)
        eval_time: 4h
        exp_samples: [{{labels: '{{instance="syd", slo="first_byte", subject="hit"}}', value: 0.8}}]
      - expr: ALERTS{{alertname="EdgecacheBudgetBurnsFast"}}
        eval_time: 4h
        exp_samples: [{{labels: 'ALERTS{{alertname="EdgecacheBudgetBurnsFast", alertstate="firing", instance="syd", severity="page", slo="first_byte", subject="miss"}}', value: 1}}]
"""  # noqa: E501 - promtool's own form


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_takes_the_rules_and_alerts_by_them(tmp_path: Path) -> None:
    case = tmp_path / "case.yml"
    case.write_text(CASE.format(rules=RULES))
    for command in (
        ("check", "rules", str(RULES)),
        ("check", "config", str(RULES.parent / "prometheus.yml")),
        ("test", "rules", str(case)),
    ):
        ran = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=50, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
