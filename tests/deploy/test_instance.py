"""The user data and what it leaves on an instance are run: they end with vxsniff capturing, and the drain with nothing left."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cfnlint.decode import decode

from deploy.aws import build
from tests.deploy.instance import ROOT, Instance
from tests.e2e.namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]

AWS = Path(build.__file__).parent
COLLECTOR = ROOT / "tests/e2e/collector.py"
STACK = "mirror"
SETTINGS, RULES = f"/vxsniff/{STACK}/settings", f"/vxsniff/{STACK}/rules"


def sub(text, values):
    return re.sub(r"\$\{([\w:]+)\}", lambda match: values[match[1]], text)


def made_by_the_stack(name, given):
    """The user data and the settings of a template, as the stack makes them."""
    template = json.loads(json.dumps(decode(str(AWS / f"{name}.yaml"))[0]))
    values = {key: str(body.get("Default", "")) for key, body in template["Parameters"].items()}
    values |= {"AWS::StackName": STACK, "MetricsHost": "127.0.0.1", "GenevePort": "off", **given}
    values |= {"Sources": values["MirrorSources"], "Ports": values["AppPorts"]}
    data = template["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
    header, script = data["UserData"]["Fn::Base64"]["Fn::Join"][1]
    settings = template["Resources"]["Settings"]["Properties"]["Value"]["Fn::Sub"][0]
    return sub(header["Fn::Sub"], values) + script, sub(settings, values)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """vxsniff and all that it needs: an instance's network has no registry."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "VXSNIFF_PURE": "1"})
    return folder


@pytest.fixture
def instance(tmp_path, wheels):
    with Instance(tmp_path, wheels) as made:
        yield made


def started(instance, name, url="http://127.0.0.1:7701/message", **given):
    """Runs an instance's user data to its end."""
    (package,) = instance.wheels.glob("vxsniff-*.whl")
    given = {"Package": str(package), "MirrorSources": "eni-0a1:101,eni-0a2:102", "MoreSettings": "# none", **given}
    user_data, settings = made_by_the_stack(name, given)
    instance.put_parameter(SETTINGS, settings)
    instance.put_parameter(RULES, "include debug")
    instance.put_parameter("/vxsniff/capture-url", url, "SecureString")
    instance.run("bash", stdin=user_data)


def collector(instance, path):
    process = instance.net.start(
        *("i", sys.executable, str(COLLECTOR), "7701", str(path)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def traffic(instance, vni, calls):
    demo = (
        "-m",
        "vxsniff",
        "demo",
        "--to",
        "127.0.0.1:4789",
        "--vni",
        str(vni),
        "--calls",
        str(calls),
        "--rate",
        "100",
    )
    instance.net.run(*instance.net.within("i", sys.executable, *demo))


def lines(path):
    return path.read_bytes().splitlines() if path.exists() else []


def test_the_user_data_ends_with_vxsniff_capturing_and_the_settings_follow_the_stack(instance, tmp_path):
    calls = tmp_path / "calls.ndjson"
    collector(instance, calls)
    (package,) = instance.wheels.glob("vxsniff-*.whl")
    instance.aws("s3", "mb", "s3://packages")
    instance.aws("s3", "cp", str(package), f"s3://packages/{package.name}")
    started(instance, "single", Package=f"s3://packages/{package.name}")
    (signal,) = instance.calls()
    assert (signal["Action"], signal["StackName"], signal["LogicalResourceId"], signal["Status"]) == (
        *("SignalResource", STACK, "Instance"),
        "SUCCESS",
    )
    pid = (instance.root / "run/fake/vxsniff.service.pid").read_text()
    assert re.search(r"^Uid:\s+10001\s", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert instance.run("stat", "-c", "%a %U %G", "/etc/vxsniff/.env").stdout.split() == ["640", "root", "vxsniff"]
    for vni in (101, 102, 103):
        traffic(instance, vni, 5)
    wait_until(lambda: len(lines(calls)) == 10)
    assert instance.metrics()["vxsniff_kernel_filtered_total"] > 0

    # Another source is mirrored, and the rules are stricter: within a minute, without a restart.
    settings = (instance.root / "etc/vxsniff/.env").read_text()
    assert "SNIFFER_MIRROR_VNIS=,101,102\n" in settings
    instance.put_parameter(SETTINGS, "SNIFFER_ENGINE=vxlan\nSNIFFER_MIRROR_VNIS=,eni-0a1:101,eni-0a3:103\nAPP_PORTS=80")
    instance.put_parameter(RULES, "include strict")
    instance.run("/usr/local/libexec/vxsniff/settings")
    status = instance.run("/opt/vxsniff/bin/vxsniff", "status").stdout
    assert "VNIs: 101, 103" in status
    assert f"process {pid}" in status
    assert "rules: file:///etc/vxsniff/rules.txt" in status
    traffic(instance, 103, 5)
    wait_until(lambda: len(lines(calls)) == 15)
    assert not any(b"request_body" in line for line in lines(calls)[10:])

    # What does not change is not read anew, and what can't be had leaves all as it is.
    said = instance.root / "run/fake/said"
    before = said.read_text()
    instance.run("/usr/local/libexec/vxsniff/settings")
    assert "reload" not in said.read_text().removeprefix(before)
    assert instance.run(
        "/usr/local/libexec/vxsniff/settings", check=False, AWS_ENDPOINT_URL="http://127.0.0.1:9"
    ).returncode
    assert "VNIs: 101, 103" in instance.run("/opt/vxsniff/bin/vxsniff", "status").stdout

    # A secret in place of the parameter.
    arn = instance.aws(
        *("secretsmanager", "create-secret", "--name", "capture", "--secret-string", "http://127.0.0.1:7799/message"),
        *("--query", "ARN", "--output", "text"),
    )
    conf = instance.root / "etc/vxsniff/deploy.conf"
    conf.write_text(conf.read_text().replace("CAPTURE_URL_SECRET=''", f"CAPTURE_URL_SECRET='{arn}'"))
    instance.run("/usr/local/libexec/vxsniff/settings")
    assert "delivering: http://127.0.0.1:7799/message" in instance.run("/opt/vxsniff/bin/vxsniff", "status").stdout


def test_an_instance_that_goes_delivers_first_what_waits(instance, tmp_path):
    started(instance, "scale-out")
    said = (instance.root / "run/fake/said").read_text()
    assert "enable --now vxsniff-drain.service vxsniff-publish.timer" in said
    traffic(instance, 101, 40)
    waiting = [f'vxsniff_deliveries_open{{state="{state}"}}' for state in ("spooled", "waiting")]
    wait_until(lambda: sum(instance.metrics()[name] for name in waiting) == 40)

    instance.run("/usr/local/libexec/vxsniff/publish")
    named = instance.aws(
        "cloudwatch", "list-metrics", "--namespace", "vxsniff", "--query", "Metrics[].MetricName", "--output", "text"
    )
    assert set(named.split()) == {"ReceiveLossPercent", "CallsWaiting"}
    values = instance.aws(
        *("cloudwatch", "get-metric-statistics", "--namespace", "vxsniff", "--metric-name", "CallsWaiting"),
        *("--dimensions", f"Name=AutoScalingGroupName,Value={STACK}-vxsniff", "--statistics", "Maximum"),
        *("--start-time", "2020-01-01T00:00:00Z", "--end-time", "2040-01-01T00:00:00Z", "--period", "60"),
        *("--query", "Datapoints[].Maximum", "--output", "text"),
    )
    assert values == "40.0"

    # The group wants it gone, while the collector is away: it waits, and says that it is still there.
    instance.target_state("Terminated")
    wait_until(lambda: any(c["Action"] == "RecordLifecycleActionHeartbeat" for c in instance.calls()))
    assert instance.run("/opt/vxsniff/bin/vxsniff", "health", check=False).returncode == 1
    time.sleep(1)
    assert not any(call["Action"] == "CompleteLifecycleAction" for call in instance.calls())
    calls = tmp_path / "calls.ndjson"
    collector(instance, calls)
    for _ in range(60):
        if instance.calls()[-1]["Action"] == "CompleteLifecycleAction":
            break
        time.sleep(1)
    last = instance.calls()[-1]
    assert (last["Action"], last["LifecycleHookName"], last["AutoScalingGroupName"], last["LifecycleActionResult"]) == (
        *("CompleteLifecycleAction", "vxsniff-drain", f"{STACK}-vxsniff"),
        "CONTINUE",
    )
    assert len(lines(calls)) == 40
    spool = instance.run("/opt/vxsniff/bin/vxsniff", "spool", "list", "--spool-dir", "/var/lib/vxsniff")
    assert spool.stdout.startswith("0 calls wait, 0 are dead letters")
    log = (instance.root / "run/fake/vxsniff.service.log").read_text()
    assert re.search(r"accepted +40 ", log)


def test_with_a_container_the_unit_runs_the_image_and_the_drain_reaches_into_it(instance, tmp_path):
    """Docker is made up: what its `run` and `exec` run is this checkout. The image's own test runs the unit's options."""
    vxsniff = f'cd /etc/vxsniff; export PYTHONPATH={ROOT} RUNTIME_DIRECTORY=/run/vxsniff; exec {sys.executable} -m vxsniff "$@"'
    docker = f"""#!/bin/sh
echo "$@" >>/opt/fakes/docker.said
case $1 in
run) shift $#; {vxsniff} ;;
exec) shift 3; {vxsniff} ;;
login) cat >/opt/fakes/password ;;
esac
"""
    instance.fake("docker", docker)
    (instance.root / "usr/bin/docker").symlink_to("/opt/fakes/docker")
    image = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/vxsniff:1"
    started(instance, "scale-out", Runtime="container", Image=image)
    said = (instance.root / "opt/fakes/docker.said").read_text().splitlines()
    assert said[:2] == [f"login --username AWS --password-stdin {image.partition('/')[0]}", f"pull -q {image}"]
    assert said[2].startswith("run --rm --name vxsniff --network host --read-only --cap-drop ALL")
    assert said[2].endswith(f" {image}")
    assert (instance.root / "opt/fakes/password").read_text().strip()
    assert not (instance.root / "opt/vxsniff").exists()
    traffic(instance, 101, 5)
    wait_until(lambda: instance.metrics()["vxsniff_calls_total"] == 5)
    instance.put_parameter(SETTINGS, "SNIFFER_ENGINE=vxlan\nSNIFFER_MIRROR_VNIS=eni-0a1:105")
    instance.run("/usr/local/libexec/vxsniff/settings")
    assert "exec vxsniff vxsniff reload" in (instance.root / "opt/fakes/docker.said").read_text()
    assert "VNIs: 105" in instance.run("docker", "exec", "vxsniff", "vxsniff", "status").stdout


def test_a_start_that_fails_is_told_to_the_stack(instance):
    with pytest.raises(AssertionError):
        started(instance, "single", Package="/no/such/package")
    assert instance.calls()[-1]["Status"] == "FAILURE"


def test_the_loss_is_that_since_the_last_time(instance, tmp_path):
    """The script alone, over counts that are served to it."""
    instance.run("mkdir", "-p", "/etc/vxsniff")
    (instance.root / "etc/vxsniff/deploy.conf").write_text(
        "AWS_DEFAULT_REGION=eu-central-1\nGROUP_NAME=g\nMETRICS_NAMESPACE=vxsniff\n"
    )
    served = tmp_path / "served"
    served.mkdir()
    instance.net.start(
        *("i", sys.executable, "-m", "http.server", "9478", "-d", str(served), "-b", "127.0.0.1"),
        stderr=subprocess.DEVNULL,
    )
    instance.net.wait_for_port("i", 9478)
    script = (AWS / "scripts/publish.sh").read_text()
    found = []
    for frames, dropped in ((900, 100), (1700, 300), (50, 50)):  # at last it was started anew
        (served / "metrics").write_text(
            f"vxsniff_frames_total {frames}.0\nvxsniff_kernel_dropped_total {dropped}.0\n"
            'vxsniff_deliveries_open{state="waiting"} 3.0\nvxsniff_deliveries_open{state="spooled"} 4.0\n'
        )
        traced = instance.run("bash", "-x", stdin=script, RUNTIME_DIRECTORY="/run/vxsniff-publish").stderr
        found += re.findall(r"put-metric-data .*--metric-name (\w+) .*--value ([\d.]+)", traced)
    assert found == [
        *(("ReceiveLossPercent", "10.0000"), ("CallsWaiting", "7")),
        *(("ReceiveLossPercent", "20.0000"), ("CallsWaiting", "7")),
        *(("ReceiveLossPercent", "50.0000"), ("CallsWaiting", "7")),
    ]
