"""The tuned garbage collector still collects, in time; the allocator takes what it is told."""

import gc
import subprocess
import sys
import weakref

import pytest

from vxsniff.app.memory import YOUNG_OBJECTS, tune_memory


@pytest.fixture(autouse=True)
def as_it_was():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_lies_in_cycles_is_collected_after_so_many_new_objects():
    class Node:
        pass

    tune_memory()
    node = Node()
    node.itself = node
    gone = weakref.ref(node)
    del node
    kept = [[] for _ in range(YOUNG_OBJECTS // 2)]
    assert gone() is not None
    kept += [[] for _ in range(YOUNG_OBJECTS)]
    assert gone() is None
    assert gc.get_freeze_count() > 0


def test_freed_memory_of_a_batch_is_not_given_back_at_once():
    """In a process of its own: options of the allocator can't be taken back."""
    program = (
        "import resource\n"
        "from vxsniff.app.memory import tune_memory\n"
        "tune_memory()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "bytes(1 << 20).find(b'x')\n"
        "before = faults()\n"
        "for _ in range(100): bytearray(1 << 20).find(b'x')\n"
        "print(faults() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100 * 256 / 4, "each megabyte was new to the process"
