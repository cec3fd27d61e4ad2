"""Prometheus and Grafana: rules and panels ask for metrics that there are, and each alert has been seen to fire."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.exposition import generate_latest

from fedstream.board.metrics import FAMILIES, make_registry
from fedstream.board.state import Board
from fedstream.board.targets import targets
from fedstream.settings import Settings
from tests.board.recorded import play

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
RULES = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((FOLDER / "grafana" / "dashboards" / "fedstream.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
PROMTOOL = shutil.which("promtool", path=f"{ROOT}/.venv/share/prometheus:{os.environ['PATH']}")
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="promtool is missing; make monitoring STACK=local fetches it")


def promtool(*words: str | Path, text: str = "") -> str:
    """Run promtool and return what it printed."""
    done = subprocess.run([str(PROMTOOL), *map(str, words)], input=text, capture_output=True, text=True, cwd=FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_the_rules_are_valid_and_each_alert_fires_when_it_is_to():
    assert f"{len(RULES)} rules found" in promtool("check", "rules", "rules.yml")
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml")


@needs_promtool
def test_the_configuration_is_valid_once_its_names_are_filled_in(tmp_path):
    names = {"DATA_DIR": str(tmp_path), "BOARD_PORT": "8090", "PROMETHEUS_PORT": "9090", "PROMETHEUS": "/bin/true"}
    names["LISTEN_ADDRESS"] = "127.0.0.1"
    subprocess.run([FOLDER / "start-prometheus.sh"], env=os.environ | names, check=True)
    written = tmp_path / "prometheus" / "prometheus.yml"
    assert "SUCCESS" in promtool("check", "config", written)
    assert "$1" in written.read_text()
    assert "${" not in written.read_text()


@needs_promtool
def test_the_boards_metrics_are_named_and_told_as_prometheus_wants():
    snapshot = next(play(Board(Settings())))
    shown = generate_latest(make_registry(lambda: snapshot)).decode()
    assert "fedstream_rounds_total" in shown
    assert promtool("check", "metrics", text=shown) == ""


def test_each_alert_has_a_test_in_which_it_fires_and_a_remedy():
    tests = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    fired = {each["alertname"] for test in tests for each in test["alert_rule_test"] if each["exp_alerts"]}
    assert fired == {rule["alert"] for rule in RULES}
    assert all(rule["annotations"]["remedy"] for rule in RULES)
    targets = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    remedies = " ".join(rule["annotations"]["remedy"] for rule in RULES)
    assert set(re.findall(r"make ([a-z-]+)", remedies)) <= targets
    assert all((ROOT / page).is_file() for page in re.findall(r"docs/\S+\.md", remedies))


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in RULES), *QUERIES])
def test_a_query_asks_for_metrics_that_the_board_declares(query):
    asked = set(re.findall(r"\bfedstream_\w+", query)) - {"fedstream_driver"}
    assert asked <= {family.name for family in FAMILIES}
    assert asked or "metrics_" in query or query.startswith("up{")


def test_the_dashboard_is_that_of_the_list_and_no_panel_covers_another():
    spec = importlib.util.spec_from_file_location("dashboards", FOLDER / "dashboards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.text() == module.FILE.read_text(), "python deploy/monitoring/dashboards.py writes it anew"
    covered = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(covered) == len(set(covered))
    assert all(panel["description"] for panel in PANELS)


def test_prometheus_is_told_of_master_workers_and_the_drivers_that_run():
    env = {"SPARK_MASTER_UI_PORT": "8080", "SPARK_WORKER_1_UI_PORT": "8081", "SPARK_WORKER_2_UI_PORT": "8082"}
    env |= {"FOG_UI_PORT_BASE": "4050", "CLOUD_UI_PORT": "4044"}
    jobs = ["fog-2", "cloud", "bridge"]  # the bridge has no page

    def asked(found: list[dict]) -> list[str]:
        return [each["targets"][0] + each["labels"]["__metrics_path__"] for each in found]

    assert asked(targets(jobs, env)) == [
        "localhost:8080/metrics/master/prometheus",
        "localhost:8081/metrics/prometheus",
        "localhost:8082/metrics/prometheus",
        "localhost:4052/metrics/prometheus",
        "localhost:4052/metrics/executors/prometheus",
        "localhost:4044/metrics/prometheus",
        "localhost:4044/metrics/executors/prometheus",
    ]
    with_kafka = env | {"KAFKA_METRICS_PORT": "9404"}
    assert set(asked(targets(jobs, with_kafka))) - set(asked(targets(jobs, env))) == {"localhost:9404/metrics"}
    assert asked(targets(["fog-2"], env | {"STACK": "docker"}))[2:4] == [
        "spark-worker-2:8082/metrics/prometheus",
        "fog-2:4052/metrics/prometheus",
    ]
