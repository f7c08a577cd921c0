"""The figures of a run as a picture: one capture file through several programs, and loss at rising rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_COLOURS = {"vxsniff": "#1f6f8b", "other": "#b0b7bd"}


def draw(found: dict[str, Any], path: Path) -> None:
    """Writes a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    rows = sorted(found["files"].items(), key=lambda row: row[1]["calls"] / row[1]["seconds"])
    names = [name for name, _ in rows]
    rates = [figures["calls"] / figures["seconds"] for _, figures in rows]
    colours = [_COLOURS["vxsniff" if name.startswith("vxsniff") else "other"] for name in names]
    bars = left.barh(names, rates, color=colours)
    left.bar_label(bars, labels=[f"{rate:,.0f}" for rate in rates], padding=4)
    left.set_xlim(0, max(rates) * 1.2)
    left.locator_params(axis="x", nbins=5)
    left.xaxis.set_major_formatter("{x:,.0f}")
    left.set_title("API calls a second of one core, from a capture file", loc="left", fontsize=10)
    left.set_xlabel("calls/s (Suricata: headers only; tshark: four fields)", fontsize=9)
    for (name, figures), style in zip(found["live"]["builds"].items(), ("o--", "o-"), strict=False):
        steps = figures["steps"]
        right.plot(
            [step["sent_per_s"] / 1000 for step in steps],
            [100 * step["loss"] for step in steps],
            style,
            color=_COLOURS["vxsniff"],
            label=f"{name}: {figures['best']['calls_per_s']:,.0f} calls/s without loss",
        )
    right.set_title("mirrored packets over UDP, one worker", loc="left", fontsize=10)
    right.set_xlabel("thousand packets a second", fontsize=9)
    right.set_ylabel("% dropped by the kernel", fontsize=9)
    right.set_ylim(top=right.get_ylim()[1] * 1.3)  # room for the legend
    right.legend(frameon=False, fontsize=9, loc="upper left")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
