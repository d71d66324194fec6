"""Alert rules and the dashboard, checked by promtool and against the metrics of a daemon that has worked."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.model.jobs import State
from tests.integration.daemon.conftest import house as house
from tests.support.house import House, until

MONITORING = Path(__file__).parents[2] / "packaging" / "monitoring"
NAME = re.compile(r"\bhyper2kvm_[a-z0-9_]+")
UNITS = {
    r"rate\(hyper2kvm_bytes_": "binBps",
    r"_bytes$": "bytes",
    r"_ratio$": "percentunit",
    r"^time\(\) - |_seconds_bucket": "s",
    r"^up\b": "none",
}
"""Grafana's unit for the result of a query."""


def promtool(*words: object, given: str | None = None) -> str:
    argv = ["promtool", *map(str, words)]
    done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def panels() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return listed


def queries(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


@pytest.fixture
def exposed(house: House) -> str:
    """`/metrics` of a daemon whose jobs have come to every kind of end."""
    house.configure(notify=[{"hook_dir": f"{house.root}/notify.d"}])
    house.start()
    house.drop("good.yaml", house.migration("good", "helper mount", "plan", "start convert", "progress 7 9", "convert"))
    house.drop("bad.yaml", house.migration("bad", "fail permanent"))
    house.drop("ugly.yaml", "banana: 1")
    house.rejection("ugly.yaml")
    until(lambda: all(not job.state.active for job in house.jobs()) and len(house.jobs()) == 3, "all have ended")
    house.drop("live.yaml", house.migration("live", "start convert", "progress 1 4", f"wait {house.root}/go"))
    house.reaches(4, State.RUNNING)
    assert house.ask("POST", "/v1/queue/pause")[0] == 200
    house.drop("queued.yaml", house.migration("queued", "plan"))
    house.reaches(5, State.QUEUED)
    code, text = house.browse("/metrics")
    assert code == 200
    return text


def test_metrics_are_what_prometheus_wants_them_to_be(exposed: str) -> None:
    assert promtool("check", "metrics", given=exposed) == ""


def test_alerts_and_dashboard_ask_for_metrics_that_exist(exposed: str) -> None:
    there = {sample.name for family in text_string_to_metric_families(exposed) for sample in family.samples}
    asked = {name for rule in alerts() for name in NAME.findall(rule["expr"])}
    asked |= {name for panel in panels() for query in queries(panel) for name in NAME.findall(query)}
    assert asked and asked - there == set()


def test_rules_are_valid() -> None:
    promtool("check", "rules", MONITORING / "alerts.yaml")


def test_each_alert_fires_and_keeps_still() -> None:
    promtool("test", "rules", MONITORING / "alerts_test.yaml")


def test_no_alert_is_left_out_of_the_test() -> None:
    """Each test names the alerts that fire; alerts that must not fire are a part of it."""
    fired = set()
    for case in yaml.safe_load((MONITORING / "alerts_test.yaml").read_text())["tests"]:
        for check in case["alert_rule_test"]:
            expected = check.get("exp_alerts", [])
            assert len(expected) < len(case["input_series"])
            fired |= {check["alertname"]} if expected else set()
    assert fired == {rule["alert"] for rule in alerts()}


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert all("\n" not in text for text in rule["annotations"].values())


def test_the_scrape_snippet_finds_the_daemon_and_the_rules(tmp_path: Path) -> None:
    text = (MONITORING / "prometheus.yaml").read_text()
    (scrape,) = yaml.safe_load(text)["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [DaemonConfig().metrics_listen]}]
    assert any(f'up{{job="{scrape["job_name"]}"}}' in rule["expr"] for rule in alerts())
    file = tmp_path / "prometheus.yml"
    file.write_text(text.replace("/usr/share/hyper2kvmd/monitoring", str(MONITORING)))
    promtool("check", "config", file)


def test_the_dashboards_queries_are_valid(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel{panel['id']}:query{number}", "expr": query}
        for panel in panels()
        for number, query in enumerate(queries(panel))
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


def test_the_dashboards_units_are_those_of_the_metrics() -> None:
    for panel in panels():
        for query in queries(panel):
            bare = re.sub(r"\{[^}]*\}", "", query)
            unit = next((unit for pattern, unit in UNITS.items() if re.search(pattern, bare)), "short")
            assert panel["fieldConfig"]["defaults"]["unit"] == unit, panel["title"]


def test_the_dashboard_asks_for_the_hosts_that_are_chosen() -> None:
    variables = json.loads((MONITORING / "dashboard.json").read_text())["templating"]["list"]
    assert [one["name"] for one in variables] == ["datasource", "job", "instance"]
    for panel in panels():
        for query in queries(panel):
            metrics = len(re.findall(r"\bhyper2kvm_|\bup\{", query))
            assert query.count('{job=~"$job",instance=~"$instance"') == metrics > 0, query


def test_the_dashboards_panels_have_a_place_each() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())
