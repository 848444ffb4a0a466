"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
TOP_LEVEL = {
    *("CHANGELOG.md", "LICENSE", "Makefile", "README.md", "config.example.toml", "pyproject.toml"),
    *("mallard", "tests", "requirements.txt", "requirements-dev.txt", ".ci", ".gitignore"),
}

# Who may import whom: a room may import itself, the top level, and these.
ROOMS: dict[str, set[str]] = {
    "buffer": set(),
    "store": set(),
    "accounts": set(),
    "ingest": {"buffer"},
    "query": {"buffer", "store"},
    "jobs": {"buffer", "store", "query"},
    "outbound": {"buffer", "store", "query"},
    "transfer": {"buffer", "store", "query", "ingest"},
}
EVERY_ROOM = {*ROOMS, "server"}
ROOMS |= {
    "server": set(ROOMS),
    "web": EVERY_ROOM,
    "mcp": EVERY_ROOM | {"web"},
    "cli": EVERY_ROOM | {"web", "mcp"},
    "__main__": {"cli"},
    # `mallard.open`, for notebooks; it imports them when it is called.
    "__init__": {"query"},
}


def tracked() -> list[Path]:
    """Every file that git knows or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def sources() -> list[Path]:
    return [path for path in tracked() if path.suffix in {".py", ".js", ".ts", ".tsx"}]


def modules() -> list[Path]:
    return [path for path in sources() if path.suffix == ".py"]


def room(path: Path) -> str:
    """The folder below mallard/ that a module lies in, or its own name at the top level."""
    return path.relative_to(ROOT / "mallard").parts[0].removesuffix(".py")


def imported(tree: ast.Module) -> Iterator[str]:
    """The first name below `mallard` of each import, wherever in the module it stands."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("mallard."):
                yield name.split(".")[1]


def forbidden(path: Path) -> set[str]:
    """What a module of mallard/ imports and may not."""
    here = room(path)
    rooms = set(ROOMS)
    return {
        name
        for name in imported(ast.parse(path.read_text()))
        if name in rooms and name != here and name not in ROOMS.get(here, set())
    }


def test_every_module_is_short_enough_to_be_read() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources()
        if (lines := len(path.read_text().splitlines())) >= MODULE_LINES_MAX
    }
    assert long == {}


def test_every_function_is_short_enough_to_be_read() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_rooms_import_only_the_rooms_they_may() -> None:
    wrong = {
        str(path.relative_to(ROOT)): names
        for path in modules()
        if path.is_relative_to(ROOT / "mallard") and (names := forbidden(path))
    }
    assert wrong == {}


def test_the_import_rule_sees_an_import_inside_a_function() -> None:
    tree = ast.parse("def f():\n    from mallard import web\n    import mallard.cli.main\n")
    assert set(imported(tree)) == {"web", "cli"}


def test_the_repository_has_a_short_top_level() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} - TOP_LEVEL == set()


def test_tests_mirror_the_modules_they_prove() -> None:
    """tests/ROOM/test_X.py has a mallard/ROOM/X.py, or names a subject of several of them."""
    rooms = {path.name for path in (ROOT / "mallard").iterdir() if path.is_dir()}
    subjects = {"end_to_end", "browser", "contracts", "formats"}
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in modules() if is_test(path)}
    assert {name for name in folders if not name.endswith(".py")} - rooms - subjects == set()


def is_test(path: Path) -> bool:
    return path.is_relative_to(ROOT / "tests")


# Written so that this file does not hold what it looks for.
@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("unfinished work", r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|NotImplemented" + r"Error)\b"),
        ("a registry's host", r"py" + r"pi\.org|python" + r"hosted|npm" + r"js\.(org|com)"),
        ("a machine's path", r"(?<![\w.])/(wor" + r"k|opt/wheel" + r"s)\b"),
        ("a build machine's tool", r"far" + r"m-\w+|\.lib" + r"rary\b|--find-lin" + r"ks"),
    ],
)
def test_no_file_holds(what: str, pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in tracked()
        for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == [], what


def test_no_test_sleeps() -> None:
    sleeping = re.compile(r"\b(time|asyncio)\.sleep\((?!0\))")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in modules()
        if is_test(path)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if sleeping.search(line)
    ]
    assert found == []


def test_the_locks_hold_every_dependency_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name, wanted in (
        ("requirements.txt", project["dependencies"] + extras["build"]),
        ("requirements-dev.txt", project["dependencies"] + extras["build"] + extras["dev"]),
    ):
        lock = (ROOT / name).read_text()
        locked = dict(
            re.findall(r"^([a-z0-9-]+)==(\S+) \\\n    --hash=sha256:", lock, re.MULTILINE)
        )
        names = {re.split(r"[<>=;\[ ]", text)[0] for text in wanted}
        assert names - set(locked) == set(), name
        assert len(locked) == len(re.findall(r"^\S+==", lock, re.MULTILINE)), name


def test_both_locks_hold_the_same_versions() -> None:
    runtime, development = (
        dict(re.findall(r"^(\S+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.txt", "requirements-dev.txt")
    )
    assert runtime.items() <= development.items()


def test_what_is_stored_goes_to_no_temporary_file_outside_the_data_folder() -> None:
    # An erasure looks through the data folder. These two hold none of it: a benchmark's own data
    # folder, and a copy of the GeoIP database.
    allowed = {"mallard/cli/bench.py", "mallard/ingest/geo.py"}
    users = {
        str(path.relative_to(ROOT))
        for path in sources()
        if path.relative_to(ROOT).parts[0] == "mallard" and "import tempfile" in path.read_text()
    }
    assert users == allowed
