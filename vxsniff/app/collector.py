"""The garbage collector, tuned for many connections.

Nearly all that capturing makes is freed by reference counts. Only objects in cycles need the collector; it runs by how
many objects were made, and each of its long runs walks over all that lives: with 100,000 open connections that was a
third of a call's cost. What the program itself consists of is never looked at again (freeze).
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG_OBJECTS: Final = 20_000
"""New objects between two runs (Python's default: 700). As garbage in cycles they are a few MiB at most."""


def tune_collector() -> None:
    """Once, before capturing begins."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
