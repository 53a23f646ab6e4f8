"""One name has one meaning in the package, and a function's name is not `..._of`."""

import ast
from collections import defaultdict
from pathlib import Path

import crgan_cli

ROOT = Path(crgan_cli.__file__).parent
PROTOCOL = {"configure", "run"}
"""What every module of `commands` defines."""


def definitions() -> dict[str, list[str]]:
    """Public name of a function or class at the top of a module -> the modules that define it."""
    found = defaultdict(list)
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(file.relative_to(ROOT).as_posix())
    return found


def test_no_two_modules_define_one_name() -> None:
    twice = {name: files for name, files in definitions().items() if len(files) > 1}
    assert twice.keys() - PROTOCOL == set()
    assert twice.keys() & PROTOCOL == PROTOCOL
    assert all(file.startswith("commands/") for name in PROTOCOL for file in twice[name])


def test_a_function_is_not_named_of_something() -> None:
    assert [name for name in definitions() if name.endswith("_of")] == []
