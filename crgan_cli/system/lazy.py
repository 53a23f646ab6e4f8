"""Let packages export names of their modules without importing them (PEP 562).

A package lists them once, as imports in an `if TYPE_CHECKING:` block. Type checkers read that
block, `config.signatures` follows it, and `lazy_imports` imports from it on first use.
"""

import ast
import importlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


def lazy_imports(package: str) -> Callable[[str], object]:
    """Return a `__getattr__` for a package."""

    def load(name: str) -> object:
        if name not in read_exports(package):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = import_offer(package, name)
        setattr(sys.modules[package], name, value)
        return value

    return load


def import_offer(package: str, name: str) -> Any:
    """Return what a package offers under a name."""
    module, there = read_exports(package)[name]
    return getattr(importlib.import_module(module), there)


class Offer(NamedTuple):
    """What a package offers under a name."""

    module: str
    name: str  # there


@cache
def read_exports(package: str) -> dict[str, Offer]:
    """Return name -> where it is defined, from the package's TYPE_CHECKING block."""
    file = sys.modules[package].__file__
    assert file is not None
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: Offer(node.module, alias.name)
        for node in statements(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def statements(tree: ast.Module) -> list[ast.stmt]:
    """List the statements of a module, with those of its TYPE_CHECKING block."""
    return [
        statement
        for node in tree.body
        for statement in (
            node.body
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            else [node]
        )
    ]
