"""The limits of the house style that no linter checks."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("node", "mesh", "hub", "drivers", "cache")
LINES_MAX, FUNCTION_LINES_MAX = 500, 70
NAMES_BANNED = {"utils", "helpers", "manager", "common", "misc"}


def tracked(*suffixes: str) -> list[Path]:
    out = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout  # fmt: skip
    paths = [ROOT / name for name in out.decode().split("\0") if name]
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


PYTHON = [path for path in tracked(".py") if "vendor" not in path.parts]
PRODUCT = [
    path for path in PYTHON if path.relative_to(ROOT).parts[0] in (*ROOMS, "rackmesh.py")
]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_file_is_longer_than_500_lines() -> None:
    long = {named(p): n for p in PYTHON if (n := len(p.read_text().splitlines())) > LINES_MAX}
    assert not long


def test_no_function_is_longer_than_70_lines() -> None:
    long = []
    for path in PYTHON:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > FUNCTION_LINES_MAX:
                    long.append(f"{named(path)}:{node.lineno} {node.name} {count}")
    assert not long


def test_every_product_module_says_what_it_is_for() -> None:
    assert not [named(p) for p in PRODUCT if not ast.get_docstring(ast.parse(p.read_text()))]


def test_package_files_hold_no_code() -> None:
    full = []
    for path in PRODUCT:
        if path.name == "__init__.py" and len(ast.parse(path.read_text()).body) > 1:
            full.append(named(path))
    assert not full


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [named(p) for p in PRODUCT if p.stem in NAMES_BANNED]


def test_no_other_distribution_owns_a_name_of_ours() -> None:
    taken = []
    for distribution in importlib.metadata.distributions():
        if distribution.name == "rackmesh":
            continue
        tops = {str(file).split("/")[0] for file in distribution.files or ()}
        taken += [f"{distribution.name}: {top}" for top in tops & {*ROOMS, "rackmesh.py"}]
    assert not taken


@pytest.mark.parametrize("words", [["version"], ["--help"], ["server", "--help"]])
def test_trivial_commands_load_no_daemon_code(words: list[str]) -> None:
    program = (
        "import sys, rackmesh\n"
        f"sys.argv = ['rackmesh', *{words!r}]\n"
        "try:\n    rackmesh.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'trio', 'quart', 'httpx2', 'rich', 'node', 'hub', 'drivers', 'cache',\n"
        "         'nacl', 'cryptography', 'sqlite3'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert out.splitlines()[-1] == "LOADED []"


def test_nothing_names_an_address_or_a_place_that_is_not_ours() -> None:
    """No package index, no path of a build machine, in any tracked text file."""
    places = ["/" + "work/main", "/" + "work/shared", "/" + "farm/"]
    hosts = ["pypi" + ".org", "files.python" + "hosted", "registry.npm" + "js"]
    words = [*places, *hosts, "deb.debian" + ".org"]
    found = []
    suffixes = (".py", ".sh", ".md", ".toml", ".lock", ".txt", ".html", ".js", ".css", "")
    for path in tracked(*suffixes):
        text = path.read_text(errors="ignore")
        found += [f"{named(path)}: {word}" for word in words if word in text]
    assert not found


def test_the_repository_holds_no_loaders() -> None:
    assert not tracked(".efi", ".kpxe", ".pxe", ".rom", ".fd")


def test_every_room_has_its_shape() -> None:
    for room in ROOMS:
        for name in ("__init__.py", "errors.py", "DESIGN.md"):
            assert (ROOT / room / name).is_file(), f"{room}/{name} is missing"
        apis = [ROOT / room / "api.py", ROOT / room / "api" / "__init__.py"]
        assert any(path.is_file() for path in apis), f"{room} does not say what others may use"
        assert (ROOT / room / "proto").is_dir()
