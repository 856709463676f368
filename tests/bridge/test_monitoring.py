"""The alert rules and the dashboard in `docs/monitoring` fit what `/metrics` says, and each alert says what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge.web.metrics import exposition
from tests.bridge.stage import MakeStage

DOCS = Path(__file__).parents[2] / "docs"
ALERTS = DOCS / "monitoring" / "alerts.yml"
DASHBOARD = DOCS / "monitoring" / "dashboard.json"

#: Metrics that by themselves tell of trouble; each must wake or tell somebody.
ALERT_WORTHY = {
    *("build_info", "poll_age_seconds", "oldest_waiting_seconds", "stored_deliveries", "quarantined_reports"),
    *("connector_paused", "processes", "creates_held_back_seconds", "refused_configurations", "undelivered_notices"),
    *("budget_requests_left", "source_requests_total", "connector_requests_total", "seen_to_ticket_seconds_bucket"),
}
#: Not drawn: one that is always 1, and parts of histograms.
NOT_SHOWN = re.compile(
    r"build_info|creates_held_back_seconds|undelivered_notices|refused_configurations|unlisted_reports"
    r"|.*_(sum|count|created)"
)


def alerts() -> dict[str, str]:
    """Each rule's text by its name."""
    parts = re.split(r"^ +- alert: (\w+)\n", ALERTS.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def field(rule: str, name: str) -> str:
    found = re.search(rf"^ +{name}: (.+?)(?=^ +[a-z_]+:[ \n]|\Z)", rule, re.MULTILINE | re.DOTALL)
    assert found, (name, rule)
    return found[1].strip()


def expressions() -> dict[str, list[str]]:
    """Every expression of rules and dashboard, by file."""
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return {
        "alerts": [field(rule, "expr") for rule in alerts().values()],
        "dashboard": [target["expr"] for panel in panels for target in panel["targets"]],
    }


@pytest.fixture
def labels(make: MakeStage) -> dict[str, dict[str, set[str]]]:
    """Everything in a real exposition: name, labels, their values."""
    stage = make("psa", "desk")
    stage.runtime.books.poll_started()
    stage.runtime.books.save_poll(last_complete_at=stage.store.now(), cycle_seconds=1.0)
    stage.report(1)
    stage.work()
    stage.runtime.requests.flush()
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(exposition(stage.runtime).decode()):
        for sample in family.samples:
            known = found.setdefault(sample.name.removeprefix("huntress_bridge_"), {})
            for label, value in sample.labels.items():
                known.setdefault(label, set()).add(value)
    return found


def used(text: str) -> set[str]:
    return {name.removeprefix("huntress_bridge_") for name in re.findall(r"huntress_bridge_\w+", text)}


def test_every_name_and_label_in_rules_and_dashboard_exists(labels: dict[str, dict[str, set[str]]]) -> None:
    for file, found in expressions().items():
        for expression in found:
            assert used(expression), (file, expression)
            assert used(expression) <= labels.keys(), (file, expression)
            for name, selector in re.findall(r"huntress_bridge_(\w+)\{([^}]*)\}", expression):
                for label, operator, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', selector):
                    values = labels[name][label]
                    if operator == "=" or (operator == "!=" and label == "kind"):
                        assert value in values, (file, expression, values)
                    elif label != "status":
                        assert any(re.fullmatch(value, each) for each in values), (file, expression, values)
            grouped = {label for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(", ")}
            assert grouped <= {label for name in used(expression) for label in labels[name]}, (file, expression)


def test_everything_worth_an_alert_has_one_and_everything_is_shown(labels: dict[str, dict[str, set[str]]]) -> None:
    found = {file: {name for each in texts for name in used(each)} for file, texts in expressions().items()}
    assert found["alerts"] >= ALERT_WORTHY
    assert {name for name in labels if not NOT_SHOWN.fullmatch(name)} <= found["dashboard"] | found["alerts"]


def test_every_alert_says_what_it_means_and_where_to_read_what_to_do() -> None:
    guide = (DOCS / "operating.md").read_text("utf-8")
    headings = re.findall(r"^### (\w+)\n\n\*(page|look)\.\* (\S.*)", guide, re.MULTILINE)
    assert {name: severity for name, severity, _ in headings} == {
        name: field(rule, "severity") for name, rule in alerts().items()
    }
    for name, rule in alerts().items():
        assert field(rule, "runbook") == f"docs/operating.md#{name.lower()}"
        assert len(field(rule, "summary")) > 20
        assert len(field(rule, "description")) > 40


def test_the_dashboard_is_laid_out() -> None:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken), "no two panels in one place"
    assert max(x for x, _ in taken) < 24


# -- by Prometheus' own tool -------------------------------------------------------------------------------------------

#: For each alert, what makes it fire: each series is worth its number all the time, or grows by it.
FIRES: dict[str, dict[str, str]] = {
    "HuntressBridgeAbsent": {},
    "HuntressBridgePollOverdue": {"poll_age_seconds": "601x40", "poll_overdue_after_seconds": "600x40"},
    "HuntressBridgeTicketsWaiting": {'oldest_waiting_seconds{connector="psa"}': "901x40"},
    "HuntressBridgeRejected": {'stored_deliveries{state="rejected"}': "1x40"},
    "HuntressBridgeHeld": {'stored_deliveries{state="held"}': "1x40"},
    "HuntressBridgeQuarantined": {"quarantined_reports": "1x40"},
    "HuntressBridgeConnectorPaused": {'connector_paused{connector="psa",kind="unfindable"}': "1x40"},
    "HuntressBridgeProcessMissing": {'processes{role="worker",state="working"}': "0x40"},
    "HuntressBridgeRedisLost": {"creates_held_back_seconds": "5x40"},
    "HuntressBridgeConnectorThrottled": {'connector_paused{connector="psa",kind="rate"}': "1x40"},
    "HuntressBridgeSlowTickets": {
        'seen_to_ticket_seconds_bucket{connector="psa",le="120.0"}': "0x40",
        'seen_to_ticket_seconds_bucket{connector="psa",le="300.0"}': "+1x40",
        'seen_to_ticket_seconds_bucket{connector="psa",le="+Inf"}': "+1x40",
    },
    "HuntressBridgeSourceErrors": {
        'source_requests_total{status="200"}': "+1x40",
        'source_requests_total{status="503"}': "+2x40",
    },
    "HuntressBridgeConnectorErrors": {
        'connector_requests_total{connector="psa",status="200"}': "+1x40",
        'connector_requests_total{connector="psa",status="none"}': "+2x40",
    },
    "HuntressBridgeBudgetUsedUp": {"budget_requests_left": "0x40"},
    "HuntressBridgeProcessFailing": {'processes{role="worker",state="failing"}': "1x40"},
    "HuntressBridgeConfigurationRefused": {"refused_configurations": "1x40"},
    "HuntressBridgeNoticesUndelivered": {"undelivered_notices": "1x40"},
}
#: All is well, at the same metrics.
WELL = {
    "build_info": "1x40",
    "poll_age_seconds": "20x40",
    "poll_overdue_after_seconds": "600x40",
    'oldest_waiting_seconds{connector="psa"}': "0x40",
    'stored_deliveries{state="rejected"}': "0x40",
    'stored_deliveries{state="held"}': "0x40",
    "quarantined_reports": "0x40",
    'connector_paused{connector="psa",kind="rate"}': "0x40",
    'connector_paused{connector="psa",kind="unfindable"}': "0x40",
    'processes{role="worker",state="working"}': "2x40",
    'processes{role="worker",state="failing"}': "0x40",
    'processes{role="poller",state="working"}': "1x40",
    "creates_held_back_seconds": "0x40",
    'seen_to_ticket_seconds_bucket{connector="psa",le="120.0"}': "+20x40",
    'seen_to_ticket_seconds_bucket{connector="psa",le="300.0"}': "+20x40",
    'seen_to_ticket_seconds_bucket{connector="psa",le="+Inf"}': "+20x40",
    'source_requests_total{status="200"}': "+4x40",
    'source_requests_total{status="503"}': "+1x40",
    'connector_requests_total{connector="psa",status="200"}': "+4x40",
    "budget_requests_left": "10x40",
    "refused_configurations": "0x40",
    "undelivered_notices": "0x40",
}


def _series(values: dict[str, str]) -> list[dict[str, str]]:
    """`5x40`: forty times 5; `+5x40`: five more each minute."""
    return [
        {"series": f"huntress_bridge_{name}", "values": f"0{value}" if value.startswith("+") else value}
        for name, value in values.items()
    ]


def _case(values: dict[str, str], firing: str) -> dict[str, Any]:
    query = "count by (alertname) (ALERTS{alertstate='firing'})"
    fired = [{"labels": f'{{alertname="{firing}"}}', "value": 1}] if firing else []
    return {
        "interval": "1m",
        "input_series": _series(values),
        "promql_expr_test": [{"expr": query, "eval_time": "39m", "exp_samples": fired}],
    }


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed here")
    return found


def test_promtool_takes_the_rules(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", ALERTS], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_metrics(promtool: str, make: MakeStage) -> None:
    text = exposition(make("psa").runtime)
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_alert_fires_when_it_should_and_none_when_all_is_well(promtool: str, tmp_path: Path) -> None:
    assert FIRES.keys() == alerts().keys()
    absent = {name: value for name, value in WELL.items() if name != "build_info"}
    cases = [_case(WELL, "")] + [_case((WELL | values) if values else absent, name) for name, values in FIRES.items()]
    tests = tmp_path / "tests.yml"
    tests.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": cases}), "utf-8")
    done = subprocess.run([promtool, "test", "rules", tests], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
