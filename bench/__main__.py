"""`python -m bench [FOLDER]`: makes traffic once, times it, prints a table.

The figures are kept in bench/results, and drawn in docs/performance.png.

Runs over whichever build is imported; `--stages` is how it asks the other build for its figures.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import chart, devices, growth, live, offline, receive, traffic, workers
from vxsniff.app.build import build
from vxsniff.app.memory import tune_memory

RESULTS = Path(__file__).parent / "results"
CHART = Path(__file__).parents[1] / "docs" / "performance.png"
ROUNDS = 3
INCOMPLETE = 0.001
"""Who finds so much less than others is not to be compared with."""
PACKETS = 150_000
"""Of each shape, at most: enough for steady figures, and all of it fits into memory."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("folder", nargs="?", default="/tmp/vxsniff-bench", help="where the traffic is kept")
    parser.add_argument("--stages", action="store_true", help="only this build's figures, as JSON")
    parser.add_argument("--compiled", metavar="DIR", help="a tree with the compiled build, to compare with")
    chosen = parser.parse_args()
    folder = Path(chosen.folder)
    if chosen.stages:
        print(json.dumps(_figures(folder)))
        return
    traffic.make(folder)
    found: dict[str, Any] = {"machine": _machine(), "builds": {build(): _figures(folder)}}
    if chosen.compiled:
        command = [sys.executable, "-m", "bench", str(folder), "--stages"]
        env = {**os.environ, "PYTHONPATH": chosen.compiled}
        done = subprocess.run(command, cwd=chosen.compiled, env=env, capture_output=True, text=True, check=True)
        found["builds"]["compiled"] = json.loads(done.stdout)
    found["files"] = _beside_others(folder, chosen.compiled)
    found["devices"] = devices.run(folder, chosen.compiled)
    found["live"] = live.run(folder, chosen.compiled)
    if chosen.compiled:
        found["workers"] = workers.run(folder, Path(chosen.compiled))
    found["receive"] = receive.run()
    _show(found)
    for name, figures in found["builds"].items():
        growth.show(name, figures["growth"])
    live.show(found["live"])
    if "workers" in found:
        workers.show(found["workers"])
    receive.show(found["receive"])
    devices.show(found["devices"])
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y-%m-%d')}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    chart.draw(found, CHART)
    print(f"\nkept in {path}, drawn in {CHART}")


def _machine() -> dict[str, str]:
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }


def _figures(folder: Path) -> dict[str, Any]:
    tune_memory()  # as vxsniff does
    figures: dict[str, Any] = {}
    for shape in traffic.SHAPES:
        datagrams = offline.load(folder / f"{shape}.vxlan.pcap", PACKETS)
        of_rules = {}
        for rules in offline.RULES if shape == "api" else ("debug",):
            of_rules[rules] = {**offline.stages(datagrams, rules), "calls_per_s": offline.whole(datagrams, rules)}
        figures[shape] = of_rules
    return {"shapes": figures, "growth": growth.run()}


def _beside_others(folder: Path, compiled: str | None) -> dict[str, Any]:
    """The least of some rounds, in which all take turns; tshark, which takes minutes, has one."""
    path = folder / "api.vxlan.pcap"
    programs: dict[str, Callable[[], dict[str, float]]] = {}
    if compiled:
        for rules in offline.RULES:
            title = "vxsniff compiled" + ("" if rules == "debug" else f", {rules}")
            programs[title] = functools.partial(offline.ours, path, rules, Path(compiled))
    programs["suricata"] = functools.partial(offline.suricata, path)
    once = {
        "vxsniff interpreted": functools.partial(offline.ours, path),
        "tshark": functools.partial(offline.tshark, path),
    }
    found: dict[str, Any] = {}
    for number in range(ROUNDS):
        for name, run in {**programs, **(once if not number else {})}.items():
            figures = run()
            if figures and (name not in found or figures["seconds"] < found[name]["seconds"]):
                found[name] = figures
    return found


def _show(found: dict[str, Any]) -> None:
    builds = found["builds"]
    print(f"{found['machine']['system']}, Python {found['machine']['python']}, {found['machine']['cores']} cores\n")
    print("one core, from mirrored datagrams in memory to packed batches; microseconds a call by stage")
    stages = " ".join(f"{stage:>8}" for stage in offline.STAGES)
    print(f"{'build':<12} {'shape':<6} {'rules':<9} {'calls/s':>8} {'packets/s':>10}  {stages}")
    for name, of_build in builds.items():
        for shape, of_rules in of_build["shapes"].items():
            for rules, figures in of_rules.items():
                parts = " ".join(f"{figures[stage]:8.1f}" for stage in offline.STAGES)
                packets_per_s = figures["calls_per_s"] / figures["calls"] * figures["packets"]
                print(
                    f"{name:<12} {shape:<6} {rules:<9} {figures['calls_per_s']:8,.0f} {packets_per_s:10,.0f}  {parts}"
                )
    print("\nthe api capture file (VXLAN), each program on one core; processor time with start and reading")
    most = max(figures["calls"] for figures in found["files"].values())
    for name, figures in found["files"].items():
        rate = figures["calls"] / figures["seconds"]
        print(
            f"{name:<26} {figures['calls']:>8,.0f} calls {figures['seconds']:8.2f} s {rate:10,.0f} calls/s "
            f"{figures['peak_mib']:6.0f} MiB{'' if figures['calls'] > (1 - INCOMPLETE) * most else '  INCOMPLETE'}"
        )


if __name__ == "__main__":
    main()
