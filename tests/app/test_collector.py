"""The tuned garbage collector still collects, in time."""

import gc
import weakref

import pytest

from vxsniff.app.collector import YOUNG_OBJECTS, tune_collector


@pytest.fixture(autouse=True)
def as_it_was():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_lies_in_cycles_is_collected_after_so_many_new_objects():
    class Node:
        pass

    tune_collector()
    node = Node()
    node.itself = node
    gone = weakref.ref(node)
    del node
    kept = [[] for _ in range(YOUNG_OBJECTS // 2)]
    assert gone() is not None
    kept += [[] for _ in range(YOUNG_OBJECTS)]
    assert gone() is None
    assert gc.get_freeze_count() > 0
