"""A container engine for the tests: buildah runs the Dockerfile's own steps, podman runs what comes out.

No registry can be reached, so what the Dockerfile calls its base is a Debian made by debootstrap, with Python as `python`.
buildah runs the steps under chroot; podman starts the image with an engine's capabilities, user, mounts and health check.
Both keep what they store in a folder of the test.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.e2e.namespaces import PATH

ROOT = Path(__file__).parents[2]
TOOLS = ("buildah", "podman", "runc", "debootstrap", "nsenter")
BASE = "localhost/python-base"
IMAGE = "localhost/vxsniff"
_PACKAGES = "python3-dev,python3-venv,ca-certificates"
_TRUST = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
"""Where packages come from here, that the base needs as well: not a part of any image that is shipped."""


def missing() -> str:
    """Why it can't be used here; empty when it can."""
    if os.geteuid() != 0:
        return "not root"
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    return f"no {', '.join(lacking)}" if lacking else ""


class Engine:
    """Holds one image, of this checkout's Dockerfile. Everything is gone when the block ends."""

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="vxsniff-image-"))
        self._store = ("--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run")
        try:
            self._make_base()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error) -> None:
        for command in (("podman", "rm", "--force", "--all"), ("buildah", "rm", "--all")):
            self._run(*command, check=False)
        subprocess.run(["umount", "--lazy", f"{self.folder}/root/overlay"], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *words: str, check: bool = True, timeout: int = 600, within: str = "") -> str:
        options = ("--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file")
        done = subprocess.run(
            [
                *(("nsenter", f"--net=/run/netns/{within}") if within else ()),
                *(program, *self._store, *(options if program == "podman" else ()), *words),
            ],
            env={**os.environ, "PATH": PATH, "BUILDAH_ISOLATION": "chroot"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check:
            assert done.returncode == 0, f"{program} {' '.join(words)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        self.log = done.stdout + done.stderr
        self.status = done.returncode
        return done.stdout.strip()

    def _make_base(self) -> None:
        container = self._run("buildah", "from", "scratch")
        root = Path(self._run("buildah", "mount", container))
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", root],
            env={**os.environ, "PATH": PATH},
            check=True,
            capture_output=True,
            timeout=600,
        )
        (root / "usr/bin/python").symlink_to("python3")
        for name in _TRUST:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(name, root / name.lstrip("/"))
        self._run("buildah", "umount", container)
        self._run("buildah", "commit", "--quiet", "--rm", container, BASE)

    def build(self, *options: str) -> str:
        """Builds IMAGE; what the build printed."""
        self._run(
            *("buildah", "bud", "--pull-never", "--layers=false", "--format", "docker", "--build-arg", f"BASE={BASE}"),
            *("--tag", IMAGE, *options, "--file", str(ROOT / "Dockerfile"), str(ROOT)),
        )
        return self.log

    def podman(self, *words: str, check: bool = True, within: str = "") -> str:
        return self._run("podman", *words, check=check, timeout=60, within=within)
