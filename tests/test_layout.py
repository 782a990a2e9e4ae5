"""The package's layout: imports run one way, files are short."""

import ast
import itertools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "musepose"
# A folder imports from its own level and the levels before it.
LEVELS = (
    ("utils",),
    ("media",),
    ("models",),
    ("pose",),
    ("memory", "download"),
    ("pipelines",),
    ("inference", "training", "evaluation"),
    ("cli", "app"),
)
LEVEL = {folder: level for level, folders in enumerate(LEVELS) for folder in folders}
PROGRAM = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "puppet").glob("*.py"), *ROOT.glob("*.py")])


def imported(path: Path) -> set[str]:
    """The folders of the package that a file imports from, local imports included."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in modules if name.startswith("musepose.")}


def test_every_folder_has_a_level():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(LEVEL)
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("folder", LEVEL)
def test_imports_run_one_way(folder):
    for path in (PACKAGE / folder).rglob("*.py"):
        for other in imported(path) - {folder}:
            assert LEVEL[other] <= LEVEL[folder], f"{path} imports from {other}"


def test_nothing_imports_a_root_script():
    scripts = {path.stem for path in ROOT.glob("*.py")}
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "puppet").glob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not scripts & set(names), f"{path} imports a script"


@pytest.mark.parametrize("path", PROGRAM, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_say_what_they_are_for(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    assert text.startswith(('"""', "#!")), "the first line says what the file is for"


def test_test_files_are_short():
    assert [p.name for p in (ROOT / "tests").glob("*.py") if p.read_text(encoding="utf-8").count("\n") > 400] == []


def test_the_readme_s_tree_is_the_package_s():
    """Every package under musepose/ has its line, and every folder that has a line is there."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("    musepose/")
    tree = itertools.takewhile(lambda line: line.startswith("    "), lines[start:])
    named, parents = set(), []
    for line in tree:
        depth = (len(line) - len(line.lstrip())) // 2 - 2
        parents[depth:] = [line.split()[0]]
        named.add(ROOT / "".join(parents))
    assert all(folder.is_dir() for folder in named)
    packages = {path.parent for path in PACKAGE.rglob("__init__.py")}
    assert {folder for folder in named if PACKAGE in (folder, *folder.parents)} == packages
