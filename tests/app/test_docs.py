"""What is written about settings, rules and exits is what the program does."""

import re
from pathlib import Path

from tests.builders import Play
from vxsniff.app import cli, ledger
from vxsniff.app.settings import resolve
from vxsniff.app.table import SETTINGS
from vxsniff.call import patterns, policy, record
from vxsniff.call.rules import VERBS_WITH_PATTERN
from vxsniff.flow import reassembly
from vxsniff.http import chunked, connection, head, stream
from vxsniff.wire import decode, defrag

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


def test_the_readmes_bounds_are_those_of_the_code():
    found = dict(re.findall(r"`([A-Z0-9_]+)` (\d+)", README.partition("## Bounds")[2].partition("\n## ")[0]))
    constants = {
        name: getattr(module, name)
        for module in (reassembly, stream, head, chunked, connection, record, defrag, decode, patterns, policy)
        for name in found
        if hasattr(module, name)
    }
    assert {name: str(value) for name, value in constants.items()} == found
    assert len(found) >= 13


def test_the_outcomes_that_the_readme_names_are_in_the_ledger():
    taken = ledger.take(Play().pipeline, None)
    known = {fact.name for fact in taken.facts} | {part.name for e in taken.equations for part in e.parts}
    bounds = README.partition("## Bounds")[2].partition("\n## ")[0]
    assert set(re.findall(r"\(`([a-z_0-9]+)`\)", bounds)) <= known
