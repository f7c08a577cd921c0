import os

import hypothesis
import pytest

from tests.e2e import engine, lab

# The same examples every time: a test that fails once fails always.
hypothesis.settings.register_profile("vxsniff", deadline=None, derandomize=True)
hypothesis.settings.load_profile("vxsniff")


NEEDS = {"root": lab.missing, "image": engine.missing}
"""What tests with a marker need: a function that says what is missing of it."""


def pytest_collection_modifyitems(config, items):
    """Tests that need namespaces, tools or a container engine are skipped where those are missing, but never in CI.
    Those marked `interpreted` are left out where the build is compiled.
    """
    if os.environ.get("VXSNIFF_BUILD") == "compiled":
        left_out = [item for item in items if item.get_closest_marker("interpreted")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    for marker, missing in NEEDS.items():
        reason = missing()
        for item in items if reason else ():
            if not item.get_closest_marker(marker):
                continue
            if os.environ.get("VXSNIFF_E2E") == "require":
                item.add_marker(pytest.mark.xfail(reason=reason, run=False, strict=True))
            else:
                item.add_marker(pytest.mark.skip(reason=f"end-to-end tests can't run here: {reason}"))


def pytest_sessionfinish(session, exitstatus):
    if os.environ.get("VXSNIFF_E2E") == "require" and any(missing() for missing in NEEDS.values()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
