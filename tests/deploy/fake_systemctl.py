"""`systemctl` where no systemd runs: starts, asks, reloads and stops the services of /etc/systemd/system.

It knows User, WorkingDirectory, RuntimeDirectory, StateDirectory, ExecStart, ExecReload and EnvironmentFile, and restarts
nothing. A timer is only written down, in /run/fake: the test does what it would.
"""

import contextlib
import os
import pwd
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

RUN = Path("/run/fake")


def read(unit: str) -> dict[str, str]:
    text = Path("/etc/systemd/system", unit).read_text()
    return dict(re.findall(r"^([A-Za-z]+)=(.*)$", text, re.MULTILINE))


def prepared(service: dict[str, str], command: str) -> dict:
    """How subprocess shall run a line of a service."""
    environ = dict(os.environ)
    if "EnvironmentFile" in service:
        for line in Path(service["EnvironmentFile"]).read_text().splitlines():
            name, _, value = line.partition("=")
            environ[name] = value.strip("'")
    words = [re.sub(r"\$\{(\w+)\}", lambda match: environ[match[1]], word) for word in shlex.split(command)]
    options: dict = {"args": words, "env": environ, "cwd": service.get("WorkingDirectory", "/")}
    user = service.get("User")
    for kind, base in (("RuntimeDirectory", "/run"), ("StateDirectory", "/var/lib")):
        if kind in service:
            folder = Path(base, service[kind])
            folder.mkdir(mode=0o700, exist_ok=True)
            if user:
                os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
            environ[{"RuntimeDirectory": "RUNTIME_DIRECTORY", "StateDirectory": "STATE_DIRECTORY"}[kind]] = str(folder)
    if user:
        options |= {"user": user, "group": service.get("Group", user), "extra_groups": []}
    return options


def start(unit: str) -> None:
    if unit.endswith(".timer") or not Path("/etc/systemd/system", unit).exists():  # a package's own
        (RUN / unit).touch()
        return
    service = read(unit)
    with (RUN / f"{unit}.log").open("ab") as log:
        process = subprocess.Popen(
            **prepared(service, service["ExecStart"]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (RUN / f"{unit}.pid").write_text(str(process.pid))


def pid_of(unit: str) -> int:
    """0 when it does not run."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        pid = int((RUN / f"{unit}.pid").read_text())
        os.kill(pid, 0)
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            return pid
    return 0


def main() -> int:
    RUN.mkdir(exist_ok=True)
    word, *rest = sys.argv[1:]
    units = [name if "." in name else f"{name}.service" for name in rest if not name.startswith("-")]
    with (RUN / "said").open("a") as said:
        said.write(" ".join(sys.argv[1:]) + "\n")
    if word == "daemon-reload":
        return 0
    for unit in units:
        if word == "enable":
            start(unit)
        elif word == "is-active":
            return 0 if pid_of(unit) else 3
        elif word == "reload":
            service = read(unit)
            return subprocess.run(**prepared(service, service["ExecReload"]), stdout=subprocess.DEVNULL).returncode
        elif word == "stop":
            pid = pid_of(unit)
            if pid:
                os.kill(pid, signal.SIGTERM)
            for _ in range(200):
                if not pid_of(unit):
                    break
                time.sleep(0.1)
        else:
            raise SystemExit(f"systemctl {word}: not known here")
    return 0


if __name__ == "__main__":
    sys.exit(main())
