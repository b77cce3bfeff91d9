"""The order of the rooms: what import-linter's contract (pyproject.toml) cannot see, and circles of any kind."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmarks", "methods", "datasets")
CALLED_BY_LIBRARIES = {"affinity", "get_amp_supported_dtype", "seekable"}
"""Methods that override those of submitit, torch and io."""


def modules() -> dict[str, Path]:
    """Return the files of the suite by the names of their modules."""
    files = [*ROOT.glob("*.py"), *(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))]
    parts = {file: file.relative_to(ROOT).with_suffix("").parts for file in files}
    return {".".join(name[:-1] if name[-1] == "__init__" else name): file for file, name in parts.items()}


def imports() -> dict[str, set[str]]:
    """Return what each module imports of the suite, at its top, in functions and for types."""
    files = modules()
    found: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names} & files.keys()
            elif isinstance(node, ast.ImportFrom) and node.module in files:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found[name] |= (names & files.keys()) or {node.module}
        found[name].discard(name)
    return found


def test_three_modules_at_the_root_and_none_beside_the_rooms():
    assert sorted(file.stem for file in ROOT.glob("*.py")) == ["bench", "errors", "registry"]
    assert [file.name for file in (ROOT / "benchmarks").glob("*.py")] == ["__init__.py"]


def test_registry_and_errors_lie_below_everything_and_the_command_line_above():
    arrows = imports()
    assert arrows["errors"] == set()
    assert arrows["registry"] == {"errors"}
    assert all(name.startswith("benchmarks.commands.") for name in arrows["bench"])
    assert not [name for name, there in arrows.items() if "bench" in there]


def test_no_module_is_in_a_circle_of_imports_types_included():
    order = list(TopologicalSorter(imports()).static_order())  # CycleError names the circle
    assert order.index("errors") < order.index("registry") < order.index("bench")


def names_made(file: Path) -> Iterator[str]:
    """Yield the functions, classes and constants of a module and the public methods of its classes.

    What a decorator takes up, such as a command or a registered reader, need not be named again.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.decorator_list:
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from (own.name for own in node.body if isinstance(own, ast.FunctionDef) and own.name[0] != "_")


def test_everything_that_is_made_is_used_by_more_than_tests():
    """A name that the suite and its documents have in no other place serves nobody."""
    pages = [ROOT / "pyproject.toml", ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    words: Counter[str] = Counter()
    for file in (*modules().values(), *pages):
        words.update(re.findall(r"\w+", file.read_text(encoding="utf-8")))
    unused = {name for file in modules().values() for name in names_made(file) if words[name] == 1}
    assert unused == CALLED_BY_LIBRARIES
