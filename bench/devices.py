"""Capturing on a device at rising rates: vxsniff beside `tcpdump -w /dev/null` and tshark, on the same frames.

The `api` capture is sent again over a veth pair, so many frames a second, by a process of its own on the other core.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.e2e.namespaces import Namespaces
from vxsniff.capture.file import read_frames

RATES = (10_000, 20_000, 40_000, 80_000, 160_000)
SECONDS = 3.0
_VXSNIFF = [
    *("env", "SNIFFER_CONTROL_SOCKET=off", sys.executable, "-m", "vxsniff", "--device", "s0", "--app-ports", "80"),
    *("--rules", "include debug", "--url", "/dev/null", "--metrics", "off"),
]
_LEDGER = re.compile(r"^ +(frames|kernel_dropped|shipped) +([\d,]+) ", re.MULTILINE)


def run(folder: Path, compiled: str | None) -> list[dict[str, Any]]:
    """A row for each program and rate: what was sent a second, and how many of these the kernel dropped."""
    here = Path(__file__).parents[1]
    programs: dict[str, tuple[list[str], str, Path]] = {
        "tcpdump": (["tcpdump", "-i", "s0", "-w", "/dev/null", "-n", "tcp port 80"], "listening on", here),
        "tshark": (["tshark", "-i", "s0", "-Y", "http.response", "-f", "tcp port 80"], "Capturing on", here),
        "vxsniff interpreted": (_VXSNIFF, "rules: ", here),
    }
    if compiled:
        programs["vxsniff compiled"] = (_VXSNIFF, "rules: ", Path(compiled))
    rows = []
    with Namespaces() as net:
        net.add("cli", "srv")
        net.veth("cli", "c0", "srv", "s0")
        for name, (command, ready, tree) in programs.items():
            if shutil.which(command[0]) is None:
                continue
            for rate in RATES:
                row = {"program": name, "asked_per_s": rate, **_once(net, folder, command, ready, tree, rate)}
                rows.append(row)
                if row["dropped"] > row["sent"] / 2:
                    break  # it will not get better
    return rows


def _once(net: Namespaces, folder: Path, command: list[str], ready: str, tree: Path, rate: int) -> dict[str, Any]:
    said = folder / "said.txt"
    with open(said, "w") as log:
        # `python -m` looks into its folder first: there lies the build that is meant.
        program = net.start("srv", *command, stdout=subprocess.DEVNULL, stderr=log, cwd=tree)
        for _ in range(200):
            if ready in said.read_text():
                break
            time.sleep(0.05)
        time.sleep(0.5)
        sender = (sys.executable, "-m", "bench.devices", str(folder / "api.pcap"), str(rate), str(SECONDS))
        done = subprocess.run(net.within("cli", *sender), capture_output=True, text=True, check=True)
        sent, took_s = map(float, done.stdout.split())
        time.sleep(1.0)
        program.send_signal(signal.SIGINT)
        program.wait(60)
    text = said.read_text()
    found = {name: int(value.replace(",", "")) for name, value in _LEDGER.findall(text)}
    for name, pattern in (("frames", r"(\d+) packets? captured"), ("kernel_dropped", r"(\d+) packets? dropped")):
        match = re.search(pattern, text)
        if match and name not in found:
            found[name] = int(match[1])
    return {
        "sent": sent,
        "sent_per_s": sent / took_s,
        "dropped": found.get("kernel_dropped", 0),
        "calls": found.get("shipped", 0),
    }


def show(rows: list[dict[str, Any]]) -> None:
    print("\nframes of the api shape on a veth pair, at rising rates")
    print(f"{'program':<20} {'frames/s':>9} {'dropped':>8} {'calls/s':>8}")
    for row in rows:
        calls = f"{row['calls'] / row['sent'] * row['sent_per_s']:8,.0f}" if row["calls"] else "       -"
        print(f"{row['program']:<20} {row['sent_per_s']:9,.0f} {row['dropped'] / row['sent']:8.1%} {calls}")


def main() -> None:
    """The sender: frames of a capture file onto c0, at a steady rate."""
    path, rate, seconds = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    with open(path, "rb") as file:
        frames = [frame.data for frame in read_frames(file)][: int(rate * seconds)]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind(("c0", 0))
        started_s = time.monotonic()
        sent = 0
        for frame in frames:
            out.send(frame)
            sent += 1
            if sent % 32 == 0:
                time.sleep(max(0.0, started_s + sent / rate - time.monotonic()))
        print(sent, time.monotonic() - started_s)


if __name__ == "__main__":
    main()
