"""Metrics, alerts and dashboard name what there is: a live vxsniff is scraped by a real Prometheus."""

import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.e2e.namespaces import PATH
from tests.e2e.program import Running, free_tcp_port
from vxsniff.capture.pcap import STATS

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy/prometheus/vxsniff.rules.yml"
DASHBOARD = json.loads((ROOT / "deploy/grafana/vxsniff.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
NAME = re.compile(r"\bvxsniff_[a-z0-9_]+")
OF_LIBPCAP = {f"vxsniff_{name}_total" for name in STATS}

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]  # prometheus comes with the tools that CI installs


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """The port of /metrics of a vxsniff that has seen traffic."""
    folder = tmp_path_factory.mktemp("live")
    port = free_tcp_port()
    with Running("--metrics", f"127.0.0.1:{port}", "--url", "calls.ndjson", "--vnis", "123", cwd=folder) as running:
        demo = ("-m", "vxsniff", "demo", "--to", f"127.0.0.1:{running.port}", "--rate", "50")
        with subprocess.Popen([sys.executable, *demo], cwd=ROOT) as traffic:
            yield port
            traffic.terminate()


def exposed(port) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def names_of(text) -> set[str]:
    """Counters by the names of their samples, gauges by their own."""
    found = re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE)
    return {name for name, _ in found}


def test_the_documentation_has_every_metric_and_no_other(live):
    document = (ROOT / "docs/metrics.md").read_text()
    real = {name for name in names_of(exposed(live)) if not name.endswith(("_ended_total", "_open"))}
    rows = set(re.findall(r"^\| `(vxsniff_\w+)` \|", document, re.MULTILINE))
    sums = set(re.findall(r"^### `(vxsniff_\w+)`", document, re.MULTILINE))
    assert rows | sums == real | OF_LIBPCAP


def test_the_documentation_has_every_outcome_of_every_sum(live):
    document = (ROOT / "docs/metrics.md").read_text()
    text = exposed(live)
    for name, part in re.findall(r"^### `(vxsniff_\w+)_total`.*?\n(.*?)(?=\n##)", document, re.MULTILINE | re.DOTALL):
        told = set(re.findall(r"^\| `(\w+)`", part, re.MULTILINE))
        assert told == set(re.findall(rf'^{name}_(?:ended_total|open)\{{\w+="(\w+)"\}}', text, re.MULTILINE)), name


def test_alerts_and_dashboard_name_only_metrics_and_outcomes_that_there_are(live):
    text = exposed(live)
    real = names_of(text) | OF_LIBPCAP
    outcomes = set(re.findall(r'(?:outcome|state)="(\w+)"', text))
    rules = [rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    for expression in [*rules, *EXPRESSIONS]:
        assert set(NAME.findall(expression.replace('job="vxsniff"', ""))) <= real, expression
        for words in re.findall(r'outcome=~?"([\w|]+)"', expression):
            assert set(words.split("|")) <= outcomes, expression


def test_a_prometheus_takes_the_alerts_and_answers_each_question_of_the_dashboard(live, tmp_path):
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [{"job_name": "vxsniff", "static_configs": [{"targets": [f"127.0.0.1:{live}"]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_tcp_port()
    server = subprocess.Popen(
        [
            *("prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"),
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        env={"PATH": PATH},
        stderr=subprocess.DEVNULL,
    )

    def ask(path, **query):
        url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def value(expression):
        found = ask("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    try:
        for _ in range(100):
            try:
                if (value("rate(vxsniff_calls_total[10s])") or 0) > 0:
                    break
            except OSError:
                pass
            time.sleep(0.2)
        for expression in EXPRESSIONS:
            filled = expression.replace("$__rate_interval", "10s").replace("$__range", "1m").replace("$instance", ".*")
            found = ask("query", query=filled)
            if "pcap" not in expression and "spool" not in expression:
                assert found["result"], expression  # a panel with something to show
        (group,) = ask("rules")["groups"]
        assert {rule["health"] for rule in group["rules"]} == {"ok"}
        assert {rule["state"] for rule in group["rules"]} <= {"inactive", "pending"}
    finally:
        server.terminate()
        server.wait(20)


def series(metric, start, step):
    return {"series": metric, "values": f"{start}+{step}x60"}


FIRES = {
    "VxsniffDown": [('up{job="vxsniff",instance="i"}', 0, 0)],
    "VxsniffNotCapturing": [('vxsniff_capturing{instance="i"}', 0, 0)],
    "VxsniffSilent": [('vxsniff_capturing{instance="i"}', 1, 0), ('vxsniff_frames_total{instance="i"}', 50, 0)],
    "VxsniffNoCalls": [
        ('vxsniff_frames_ended_total{instance="i",outcome="decoded"}', 0, 600),
        ('vxsniff_calls_total{instance="i"}', 7, 0),
    ],
    "VxsniffKernelLoss": [
        ('vxsniff_frames_total{instance="i"}', 0, 990),
        ('vxsniff_kernel_dropped_total{instance="i"}', 0, 10),
    ],
    "VxsniffMirrorLoss": [
        ('vxsniff_payload_bytes_total{instance="i"}', 0, 900),
        ('vxsniff_lost_bytes_total{instance="i"}', 0, 100),
    ],
    "VxsniffPacketsCut": [('vxsniff_cut_bytes_total{instance="i"}', 0, 10)],
    "VxsniffHalves": [
        ('vxsniff_requests_total{instance="i"}', 0, 100),
        ('vxsniff_requests_ended_total{instance="i",outcome="answered"}', 0, 90),
        ('vxsniff_requests_ended_total{instance="i",outcome="unanswered"}', 0, 10),
        ('vxsniff_responses_ended_total{instance="i",outcome="orphan"}', 0, 0),
    ],
    "VxsniffDeliveryLag": [
        ('vxsniff_deliveries_open{instance="i",state="spooled"}', 900, 0),
        ('vxsniff_calls_ended_total{instance="i",outcome="shipped"}', 0, 60),
    ],
    "VxsniffCallsRefused": [('vxsniff_deliveries_ended_total{instance="i",outcome="dead"}', 0, 1)],
    "VxsniffCallsDropped": [('vxsniff_deliveries_ended_total{instance="i",outcome="dropped"}', 0, 1)],
    "VxsniffSpoolGrows": [
        ('vxsniff_spool_bytes{instance="i"}', 600, 0),
        ('vxsniff_spool_limit_bytes{instance="i"}', 1000, 0),
    ],
    "VxsniffErrors": [
        ('vxsniff_errors_total{instance="i"}', 0, 1),
        ('vxsniff_spool_failures_total{instance="i"}', 0, 0),
    ],
}


def promtool(*words):
    return subprocess.run(["promtool", *words], env={"PATH": PATH}, capture_output=True, text=True)


def test_every_alert_fires_on_what_it_is_for_and_rests_otherwise(tmp_path):
    assert promtool("check", "rules", str(ALERTS)).returncode == 0
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert {rule["alert"] for rule in rules} == set(FIRES)
    quiet = [
        ('up{job="vxsniff",instance="i"}', 1, 0),
        ('vxsniff_capturing{instance="i"}', 1, 0),
        ('vxsniff_frames_total{instance="i"}', 0, 6000),
        ('vxsniff_frames_ended_total{instance="i",outcome="decoded"}', 0, 6000),
        ('vxsniff_kernel_dropped_total{instance="i"}', 0, 0),
        ('vxsniff_payload_bytes_total{instance="i"}', 0, 60000),
        ('vxsniff_lost_bytes_total{instance="i"}', 0, 0),
        ('vxsniff_cut_bytes_total{instance="i"}', 0, 0),
        ('vxsniff_requests_total{instance="i"}', 0, 600),
        ('vxsniff_requests_ended_total{instance="i",outcome="unanswered"}', 0, 1),
        ('vxsniff_responses_ended_total{instance="i",outcome="orphan"}', 0, 1),
        ('vxsniff_calls_total{instance="i"}', 0, 600),
        ('vxsniff_calls_ended_total{instance="i",outcome="shipped"}', 0, 600),
        ('vxsniff_deliveries_open{instance="i",state="waiting"}', 5, 0),
        ('vxsniff_deliveries_ended_total{instance="i",outcome="dead"}', 0, 0),
        ('vxsniff_spool_bytes{instance="i"}', 1, 0),
        ('vxsniff_spool_limit_bytes{instance="i"}', 1000, 0),
        ('vxsniff_errors_total{instance="i"}', 0, 0),
    ]
    tests = []
    for rule in rules:
        # Texts have numbers in them: what fires is looked at by its labels.
        labels = f'alertname="{rule["alert"]}",alertstate="firing",severity="{rule["labels"]["severity"]}"'
        for rows, firing in ((FIRES[rule["alert"]], 1), (quiet, 0)):
            question = {
                "expr": f"count(ALERTS{{{labels}}}) or vector(0)",
                "eval_time": "45m",
                "exp_samples": [{"labels": "{}", "value": firing}],
            }
            rows = [series(*row) for row in rows]
            tests.append({"interval": "1m", "input_series": rows, "promql_expr_test": [question]})
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
