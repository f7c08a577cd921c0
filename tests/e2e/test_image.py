"""The image, built by the Dockerfile's own steps, and run by a real engine in the place of network-sniffer 1.4."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e import engine
from tests.e2e.namespaces import Namespaces, wait_until

pytestmark = [pytest.mark.root, pytest.mark.image, pytest.mark.timeout(900)]

COLLECTOR = Path(__file__).parent / "collector.py"
# What Docker gives to a container and podman does not; and limits that may be set here.
AS_DOCKER = ("--cap-add", "NET_RAW")
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
OF_1_4 = """\
SNIFFER_ENGINE=mirror
SNIFFER_MIRROR_VXLANPORT=4789
SNIFFER_MIRROR_VNIS=123
APP_PORTS=80
USAGE_LOGGERS_URL={url}
USAGE_LOGGERS_RULES=include debug
"""


@pytest.fixture(scope="module")
def image():
    with engine.Engine() as made:
        made.printed = made.build("--build-arg", "VERSION=1.2.3", "--build-arg", "REVISION=abc")
        yield made


@pytest.fixture
def net():
    with Namespaces() as made:
        made.add("h")
        yield made


class Container:
    """`docker run -d --name netsniffer --env-file FILE --network host IMAGE` in a namespace."""

    def __init__(self, image, net, tmp_path, variables, options=AS_DOCKER) -> None:
        self._image, self._within = image, net.ns("h")
        file = tmp_path / "netsniffer.env"
        file.write_text(variables)
        run = ("run", "-d", "--name", "netsniffer", "--env-file", str(file), "--network", "host")
        image.podman(*run, *LIMITS, *options, engine.IMAGE, within=self._within)

    def __enter__(self):
        wait_until(lambda: "rules:" in self.log)
        return self

    def __exit__(self, *error) -> None:
        self._image.podman("rm", "--force", "netsniffer", check=False)

    @property
    def log(self) -> str:
        self._image.podman("logs", "netsniffer", check=False)
        return self._image.log

    def health(self) -> int:
        self._image.podman("healthcheck", "run", "netsniffer", check=False, within=self._within)
        return self._image.status

    def exec(self, *words: str) -> str:
        return self._image.podman("exec", "netsniffer", *words, within=self._within)

    def stop(self) -> tuple[int, float]:
        """As `docker stop`: the exit status, and how long it took."""
        started_s = time.monotonic()
        self._image.podman("stop", "netsniffer")
        took_s = time.monotonic() - started_s
        return int(self._image.podman("inspect", "netsniffer", "--format", "{{.State.ExitCode}}")), took_s


def shop(net, calls):
    """The demo's traffic, mirrored to the container."""
    demo = [sys.executable, "-m", "vxsniff", "demo", "--to", "127.0.0.1:4789", "--calls", str(calls), "--rate", "100"]
    subprocess.run(net.within("h", *demo), check=True, timeout=60, cwd=engine.ROOT)


def test_the_image_is_the_compiled_build_of_an_ordinary_user_with_labels(image):
    assert "(compiled)" in image.printed
    [config] = json.loads(image.podman("image", "inspect", engine.IMAGE))
    assert config["User"] == "10001:10001"  # by number: Kubernetes can't look names up
    assert config["Config"]["Entrypoint"] == ["vxsniff"]
    assert config["Config"]["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "vxsniff", "health"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert (labels["title"], labels["version"], labels["revision"]) == ("vxsniff", "1.2.3", "abc")
    assert labels["licenses"] == "Apache-2.0"


def test_it_takes_the_place_of_1_4_with_its_command_and_its_mirror_variables(image, net, tmp_path):
    calls = tmp_path / "calls.ndjson"
    calls.touch()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    collector = net.start("h", sys.executable, str(COLLECTOR), "7701", str(calls), **pipes)
    assert collector.stdout.readline() == "ready\n"
    with Container(image, net, tmp_path, OF_1_4.format(url="http://127.0.0.1:7701/message")) as container:
        assert "capturing: VXLAN on UDP [::]:4789; VNIs 123; TCP ports 80" in container.log
        assert container.health() == 0
        shop(net, 20)
        wait_until(lambda: len(calls.read_bytes().splitlines()) == 20)
        assert "running for" in container.exec("vxsniff", "status")
        container.exec("vxsniff", "off")
        assert container.health() == 1  # a balancer sends its traffic elsewhere
        status, took_s = container.stop()
    assert status == 0
    assert took_s < 8
    assert json.loads(collector.communicate("")[0])["complaints"] == []
    assert len(calls.read_bytes().splitlines()) == 20


def test_without_a_mirror_it_captures_on_devices_as_1_4_did_though_it_is_not_root(image, net, tmp_path):
    variables = "APP_PORTS=8099\nUSAGE_LOGGERS_URL=-\nUSAGE_LOGGERS_RULES=include debug\n"
    server = net.start("h", sys.executable, "-m", "http.server", "8099", "-d", str(tmp_path), stderr=subprocess.DEVNULL)
    net.wait_for_port("h", 8099)
    with Container(image, net, tmp_path, variables) as container:
        assert "capturing: all devices (lo)" in container.log
        net.run(*net.within("h", "curl", "-s", "http://127.0.0.1:8099/no-such-file"))
        wait_until(lambda: "no-such-file" in container.log)
        assert container.exec("cat", "/proc/1/status").split("Uid:\t")[1].startswith("10001\t")
    server.terminate()


def test_it_runs_with_nothing_allowed_and_nothing_writable(image, net, tmp_path):
    hardened = ("--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges")
    variables = OF_1_4.format(url="http://127.0.0.1:9/message")
    with Container(image, net, tmp_path, variables, hardened) as container:
        assert container.health() == 0
        status = container.exec("cat", "/proc/1/status")
        assert {line for line in status.splitlines() if line.startswith("Cap")} == {
            f"Cap{which}:\t0000000000000000" for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")
        }
        shop(net, 5)
        wait_until(lambda: "not reach" in container.log or "refused" in container.log)
        assert "spool: /var/lib/vxsniff" in container.log  # the volume is what may be written
        assert "running for" in container.exec("vxsniff", "status")
        assert container.stop()[0] == 0
        assert "5 calls wait in the spool for the next start" in container.log


def test_without_the_capability_devices_are_refused_in_one_line(image, net, tmp_path):
    drop = ("--cap-drop", "all")
    image.podman(
        *("run", "--rm", "--network", "host", *LIMITS, *drop, engine.IMAGE, "--device", "lo", "--url", "-"),
        check=False,
        within=net.ns("h"),
    )
    assert image.status == 3
    assert "vxsniff: no permission to capture on devices" in image.log
    assert "Traceback" not in image.log


def test_it_runs_with_the_options_of_the_unit_that_aws_instances_have(image, net, tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/.env").write_text(
        "SNIFFER_MIRROR_VNIS=123\nUSAGE_LOGGERS_URL=-\nUSAGE_LOGGERS_RULES='include debug'\n"
    )
    unit = (engine.ROOT / "deploy/aws/scripts/vxsniff-container.service").read_text()
    [line] = re.findall(r"^ExecStart=/usr/bin/docker run (.+) \$\{IMAGE\}$", unit, re.MULTILINE)
    options = line.replace("/etc/vxsniff:/etc/vxsniff:ro", f"{tmp_path}/etc:/etc/vxsniff:ro").split()
    try:
        image.podman("run", "-d", *LIMITS, *options, engine.IMAGE, within=net.ns("h"))

        def log():
            image.podman("logs", "vxsniff")
            return image.log

        wait_until(lambda: "receive buffer" in log())
        assert "VNIs 123" in log()
        shop(net, 3)
        wait_until(lambda: log().count("request_url") == 3)
        [reload] = re.findall(r"^ExecReload=/usr/bin/docker (.+)$", unit, re.MULTILINE)
        (tmp_path / "etc/.env").write_text(
            "SNIFFER_MIRROR_VNIS=124\nUSAGE_LOGGERS_URL=-\nUSAGE_LOGGERS_RULES='include debug'\n"
        )
        image.podman(*reload.split(), within=net.ns("h"))
        assert "VNIs: 124" in image.podman("exec", "vxsniff", "vxsniff", "status", within=net.ns("h"))
    finally:
        image.podman("rm", "--force", "vxsniff", check=False)
