"""The progress bar while capture files are read on a terminal: packets, calls, time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from vxsniff.capture.file import CaptureFiles

SHOW_AFTER_S: Final = 0.5
"""Short files need no bar."""
_UPDATE_EVERY_S: Final = 0.1


@contextlib.contextmanager
def progress_bar(files: CaptureFiles, calls: Callable[[], int], is_wanted: bool) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each step of reading."""
    if not (is_wanted and sys.stderr.isatty()):
        yield _nothing
        return
    # Only who sees a bar waits for its library.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    total = files.total_bytes if files.total_bytes > 0 else None
    columns = [
        TextColumn("reading"),
        BarColumn(),
        TextColumn("{task.fields[packets]:,} packets, {task.fields[calls]:,} calls"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    ]
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task("", total=total, packets=0, calls=0)
    started_s = updated_s = time.monotonic()

    def step() -> None:
        nonlocal updated_s
        now_s = time.monotonic()
        if now_s - updated_s < _UPDATE_EVERY_S or now_s - started_s < SHOW_AFTER_S:
            return
        updated_s = now_s
        progress.start()
        progress.update(task, completed=files.read_bytes, packets=files.frames_read, calls=calls())

    try:
        yield step
    finally:
        progress.stop()


def _nothing() -> None:
    """No bar is shown."""
