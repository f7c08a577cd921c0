"""What is deployed says what it should."""

import re
from pathlib import Path

import click.testing
import pytest
import typer.main
import yaml

from tests import hcl
from vxsniff.app.cli import app
from vxsniff.app.table import BY_VARIABLE
from vxsniff.app.worker import EXIT_USAGE
from vxsniff.capture.udp import RECEIVE_BUFFER_BYTES

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy/systemd/vxsniff.service"


def directives(path):
    """The settings of a unit by section (systemd.syntax): a name may come more than once."""
    found: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith(("#", ";")):
            name, equals, value = line.partition("=")
            assert equals, line
            section.setdefault(name, []).append(value)
    return found


@pytest.fixture
def service():
    unit = directives(UNIT)
    assert set(unit) == {"Unit", "Service", "Install"}
    return unit["Service"]


def test_the_service_has_no_privilege_and_can_gain_none(service):
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == [""]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["User"] != ["root"]
    for name in ("RestrictNamespaces", "RestrictSUIDSGID", "MemoryDenyWriteExecute", "LockPersonality", "PrivateUsers"):
        assert service[name] == ["yes"], name
    assert service["SystemCallFilter"] == ["@system-service", "~@privileged @resources"]
    assert set(service["RestrictAddressFamilies"][0].split()) == {"AF_INET", "AF_INET6", "AF_UNIX"}


def test_the_service_sees_and_writes_only_its_own(service):
    assert service["ProtectSystem"] == ["strict"]
    for name in ("ProtectHome", "PrivateTmp", "PrivateDevices", "ProtectKernelTunables", "ProtectControlGroups"):
        assert service[name] == ["yes"], name
    assert service["UMask"] == ["0077"]
    assert service["StateDirectoryMode"] == service["RuntimeDirectoryMode"] == ["0700"]
    # Where the defaults of the spool and of the control socket look.
    assert service["StateDirectory"] == service["RuntimeDirectory"] == ["vxsniff"]


def test_the_service_ends_and_starts_as_vxsniff_means_it(service):
    assert int(service["TimeoutStopSec"][0]) > 10
    assert service["RestartPreventExitStatus"] == [str(EXIT_USAGE)]
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert service["ExecReload"][0].split()[1] in commands
    assert {Path(service[name][0].split()[0]) for name in ("ExecStart", "ExecReload")} == {
        Path("/opt/vxsniff/bin/vxsniff")
    }


def test_no_directive_is_given_twice_but_the_filter():
    for section in directives(UNIT).values():
        assert [name for name, values in section.items() if len(values) > 1] in ([], ["SystemCallFilter"])


def test_the_receive_buffer_that_is_asked_for_is_allowed():
    text = (ROOT / "deploy/systemd/vxsniff-sysctl.conf").read_text()
    assert int(re.search(r"^net.core.rmem_max = (\d+)$", text, re.MULTILINE)[1]) == RECEIVE_BUFFER_BYTES
    assert re.search(r"^net.core.netdev_max_backlog = \d{4,}$", text, re.MULTILINE)


def test_the_variables_that_the_image_sets_exist_and_leave_metrics_on_loopback():
    text = (ROOT / "Dockerfile").read_text()
    for name in re.findall(r"\b((?:SNIFFER|USAGE_LOGGERS|NET)_\w+)=", text):
        assert name in BY_VARIABLE
    assert "SNIFFER_METRICS_ADDRESS" not in text  # with --network host another default would open it to the network


def test_nothing_but_what_the_image_needs_is_sent_to_the_engine():
    ignored, *kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("#", "")]
    assert ignored == "*"
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {name.lstrip("!") for name in kept if name.startswith("!")} == {w for line in copied for w in line.split()}


def test_the_compose_file_runs_vxsniff_beside_a_shop_that_is_mirrored_to_it():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    sniffer, shop = compose["services"]["vxsniff"], compose["services"]["shop"]
    assert set(sniffer["environment"]) <= set(BY_VARIABLE)
    assert sniffer["environment"]["USAGE_LOGGERS_URL"].startswith("${USAGE_LOGGERS_URL:-")  # from .env
    parsed = click.testing.CliRunner().invoke(typer.main.get_command(app), [*shop["command"], "--help"])
    assert parsed.exit_code == 0
    assert shop["command"] == ["demo", "--to", "vxsniff:4789"]
    assert all(port.startswith("127.0.0.1:") for port in sniffer["ports"])
    assert sniffer["cap_drop"] == shop["cap_drop"] == ["ALL"]
    assert int(sniffer["stop_grace_period"].removesuffix("s")) > 10
    assert {volume.partition(":")[0] for volume in sniffer["volumes"]} == set(compose["volumes"])


def test_the_bake_file_builds_the_dockerfile_for_both_platforms_with_arguments_that_it_has():
    target = hcl.by_name(hcl.read(ROOT / "docker-bake.hcl")["target"])["vxsniff"]
    assert target["platforms"] == ["linux/amd64", "linux/arm64"]
    assert set(target["args"]) == set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
