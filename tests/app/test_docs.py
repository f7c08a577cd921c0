"""What is written about settings, rules and exits is what the program does."""

import re
from pathlib import Path

from vxsniff.app import cli
from vxsniff.app.settings import SETTINGS, resolve
from vxsniff.call.rules import VERBS_WITH_PATTERN

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()


def test_the_readme_has_a_row_for_every_setting():
    rows = {
        match[1]: (match[2], match[3])
        for match in re.finditer(r"^\| `([A-Z_]+)`[^|]*\| `(--[^`]+)` \| ([^|]*) \|", README, re.MULTILINE)
    }
    assert set(rows) == {setting.variable for setting in SETTINGS}
    for setting in SETTINGS:
        flag, default = rows[setting.variable]
        assert flag == setting.flag
        assert default.strip("` ") == (setting.default or "")


def test_the_example_file_has_every_setting_with_its_default():
    lines = dict(re.findall(r"^#\s?([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))
    assert set(lines) == {setting.variable for setting in SETTINGS}
    for setting in SETTINGS:
        assert lines[setting.variable].strip("'") == setting.default


def test_the_example_file_sets_nothing_by_itself():
    assert all(line.startswith("#") or not line.strip() for line in EXAMPLE.splitlines())
    resolve({}, {}, {})


def test_the_readme_names_every_kind_of_rule():
    for verb in (
        *VERBS_WITH_PATTERN,
        "remove",
        "replace",
        "stop",
        "sample",
        "allow_http_url",
        "copy_session_field",
        "skip_compression",
    ):
        assert f"`{verb}" in README or f" {verb}" in README, verb


def test_the_readme_and_the_help_name_the_exit_statuses():
    for status in ("0", "1", "2", "3", "4", "70"):
        assert re.search(rf"^\| {status} \|", README, re.MULTILINE), status
        assert re.search(rf"\b{status} [a-z]", cli.HELP), status
