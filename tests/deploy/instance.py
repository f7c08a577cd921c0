"""An EC2 instance, as far as its user data can tell: a copy of this system's files, a network of its own, AWS around it.

Real: bash, curl, the AWS command line (PyPI), IMDSv2's protocol, Parameter Store, Secrets Manager and CloudWatch as moto
serves them, pip, the unit's user and files, vxsniff. Made up: dnf, systemctl (no systemd runs here), and answers to calls
that moto does not have. Changes of files go to an overlay.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.e2e.namespaces import PATH, Namespaces

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
METADATA = "169.254.169.254"
FAKES = "/opt/fakes"
_MOUNTS = ("proc", "sys", "dev")


class Instance:
    """`run` runs a script as root of the instance."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        """`wheels` is a folder that pip installs from."""
        self.folder = folder
        self.wheels = wheels
        self.net = Namespaces()
        self.root = folder / "root"

    def __enter__(self):
        try:
            self._make_network()
            self._make_files()
            self._start_aws()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error) -> None:
        for process in self._processes():
            os.kill(process, 9)
        self.net.__exit__()
        for name in (*_MOUNTS, ""):
            subprocess.run(["umount", "--lazy", "--recursive", self.root / name], check=False, capture_output=True)

    def _processes(self) -> list[int]:
        """Of the instance's network: only those that this test started are in it."""
        try:
            return [int(pid) for pid in self.net.run("ip", "netns", "pids", self.net.ns("i")).split()]
        except AssertionError:
            return []

    def _make_network(self) -> None:
        self.net.add("i")
        self.net.ip("i", "addr", "add", f"{METADATA}/32", "dev", "lo")

    def _make_files(self) -> None:
        for name in ("root", "upper", "work", "aws"):
            (self.folder / name).mkdir()
        options = f"lowerdir=/,upperdir={self.folder}/upper,workdir={self.folder}/work"
        self.net.run("mount", "-t", "overlay", "overlay", "-o", options, str(self.root))
        for name in _MOUNTS:
            self.net.run("mount", "--rbind", f"/{name}", str(self.root / name))
            self.net.run("mount", "--make-rslave", str(self.root / name))
        shutil.rmtree(self.root / "run", ignore_errors=True)
        (self.root / "run").mkdir()
        # This machine's Python may lie in root's home.
        for path in (Path(sys.base_prefix), *Path(sys.base_prefix).parents):
            inside = self.root / str(path).lstrip("/")
            inside.chmod(inside.stat().st_mode | 0o055)
        fakes = self.root / FAKES.lstrip("/")
        fakes.mkdir(parents=True)
        python = os.path.realpath(sys.executable)
        self.fake("dnf", f'#!/bin/sh\necho "$@" >>{FAKES}/dnf.said\nln -sfn {python} {FAKES}/python3.11\n')
        self.fake("systemctl", f'#!/bin/sh\nexec {python} {FAKES}/systemctl.py "$@"\n')
        shutil.copy(HERE / "fake_systemctl.py", fakes / "systemctl.py")
        aws = Path(sysconfig.get_path("scripts"), "aws")
        self.fake("aws", f'#!/bin/sh\nexec {sys.executable} {aws} "$@"\n')
        # As version 2 of the command line, which an instance has: a URL is a value like any other.
        (fakes / "config").write_text("[default]\ncli_follow_urlparam = false\n")
        (self.folder / "aws/lifecycle").write_text("InService")

    def fake(self, name: str, text: str) -> None:
        """A command that is made up."""
        path = self.root / FAKES.lstrip("/") / name
        path.write_text(text)
        path.chmod(0o755)

    def _start_aws(self) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.net.start("i", sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "5000", **quiet)
        fake = self.net.start(
            "i", sys.executable, str(HERE / "fake_aws.py"), str(self.folder / "aws"), stdout=subprocess.PIPE, text=True
        )
        assert fake.stdout.readline() == "ready\n"
        self.net.wait_for_port("i", 5000)

    # ---- what a test does

    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{FAKES}:{PATH}",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "AWS_ENDPOINT_URL": "http://127.0.0.1:5000",
            "AWS_ENDPOINT_URL_AUTO_SCALING": "http://127.0.0.1:5001",
            "AWS_ENDPOINT_URL_CLOUDFORMATION": "http://127.0.0.1:5001",
            "AWS_CONFIG_FILE": f"{FAKES}/config",
            "AWS_MAX_ATTEMPTS": "2",
        }

    def command(self, *words: str) -> tuple[str, ...]:
        return ("nsenter", f"--net=/run/netns/{self.net.ns('i')}", "chroot", str(self.root), *words)

    def run(self, *words: str, stdin: str = "", check: bool = True, **more: str) -> subprocess.CompletedProcess:
        done = subprocess.run(
            self.command(*words),
            env={**self.environment(), **more},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check:
            assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done

    def start(self, *words: str, **more: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*words),
            env={**self.environment(), **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def aws(self, *words: str) -> str:
        return self.run("aws", *words, AWS_DEFAULT_REGION="eu-central-1").stdout.strip()

    def put_parameter(self, name: str, value: str, kind: str = "String") -> None:
        self.aws("ssm", "put-parameter", "--overwrite", "--type", kind, "--name", name, "--value", value)

    def calls(self) -> list[dict[str, str]]:
        """What was asked of AWS that moto does not know."""
        file = self.folder / "aws/calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def target_state(self, state: str) -> None:
        (self.folder / "aws/lifecycle").write_text(state)

    def metrics(self) -> dict[str, float]:
        text = self.run("curl", "-sS", "http://127.0.0.1:9478/metrics").stdout
        rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in rows}
