"""The house: arrows go one way, and the inner rooms are pure."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vxsniff"
ROOMS = ("wire", "flow", "http", "call", "capture", "delivery", "doctor", "app", "demo")
MAY_IMPORT = {
    "wire": set(),
    "flow": {"wire"},
    "http": {"flow", "wire"},
    "call": {"http", "flow", "wire"},
    "capture": {"wire"},
    "delivery": set(),
    "doctor": {"http", "wire"},
    "app": {"wire", "flow", "http", "call", "capture", "delivery", "doctor", "demo"},
    "demo": set(),
}
PURE = ("wire", "flow", "http", "call", "doctor")
IMPURE_MODULES = {
    *(
        "asyncio",
        "concurrent",
        "datetime",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "queue",
        "random",
        "requests",
    ),
    *(
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "typer",
    ),
    *("prometheus_client", "dotenv", "rich", "warnings"),
}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide their room"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_file_is_in_a_known_room():
    assert {room_of(path) for path in FILES} == {"", *ROOMS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_one_way(path):
    room = room_of(path)
    used = {name.split(".")[1] for name in imports(path) if name.startswith("vxsniff.")} & set(ROOMS)
    if room:
        assert used - {room} <= MAY_IMPORT[room]
    else:
        assert used <= {"app"}


@pytest.mark.parametrize(
    "path", [p for p in FILES if room_of(p) in PURE], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_the_inner_rooms_have_no_io_clocks_threads_or_logs(path):
    assert not {name.split(".")[0] for name in imports(path)} & IMPURE_MODULES
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & IMPURE_CALLS


@pytest.mark.parametrize(
    "path", [p for p in FILES if room_of(p) in PURE], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_the_inner_rooms_say_what_their_values_are(path):
    assert "typing.Any" not in imports(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text()))
