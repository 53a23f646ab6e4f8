"""Read the constructor parameters of a class from its source file, without importing it.

A parameter is a key if YAML can give a value of its annotation: int, float, bool, str, Literal,
list, tuple, None, and the names in `crgan_cli.config.bounds`. The code injects any other.
"""

import ast
import importlib.util
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, Union, get_origin

from crgan_cli.config import bounds
from crgan_cli.errors import UserError
from crgan_cli.system.lazy import statements

ROOT = "crgan_cli.config.settings.Run"  # whose parameters are the settings outside the groups

ALLOWED = (
    "A _target_ is the full path of a class of crgan_cli, of torch.optim, or of a package "
    "that you name in the environment variable CRGAN_PLUGINS (comma separated)."
)

_NAMES: dict[str, object] = {
    **{name: kind for name, kind in vars(bounds).items() if get_origin(kind) is Annotated},
    **{kind.__name__: kind for kind in (int, float, bool, str, list, tuple)},
    "Literal": Literal,
}


NO_DEFAULT = object()


@dataclass(frozen=True)
class Parameter:
    """A parameter: its type, and whether it may be left out. `kind` None: the code injects it."""

    name: str
    kind: object | None
    optional: bool
    default: object = NO_DEFAULT  # if it can be left out and its default is a plain value


def plugins() -> tuple[str, ...]:
    """Return the packages that the user trusts, from CRGAN_PLUGINS (comma separated)."""
    return tuple(p.strip() for p in os.environ.get("CRGAN_PLUGINS", "").split(",") if p.strip())


def trusted(module: str) -> bool:
    """Whether a class defined in `module` may be built from a configuration."""
    return any(
        module == package or module.startswith(package + ".")
        for package in ("crgan_cli", "torch.optim", *plugins())
    )


@cache
def parameters(dotted: str) -> dict[str, Parameter]:
    """Return the constructor parameters of the class at `dotted`; UserError if it is no class."""
    module, _, name = dotted.rpartition(".")
    found = _find(module, name) if module and trusted(module) else None
    if found is None or not isinstance(found[1], ast.ClassDef):
        raise UserError(f"There is no class '{dotted}' that crgan may build. {ALLOWED}")
    return _constructor(found[0], found[1])


@cache
def _source(module: str) -> ast.Module | None:
    file = _file(module)
    return ast.parse(file.read_text(encoding="utf-8")) if file else None


def _file(module: str) -> Path | None:
    """The file of a dotted module, found without importing anything."""
    package, *rest = module.split(".")
    spec = importlib.util.find_spec(package)
    if spec and spec.origin and not rest:
        return Path(spec.origin)
    for root in (spec.submodule_search_locations or []) if spec else []:
        path = Path(root, *rest)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def _find(module: str, name: str) -> tuple[str, ast.ClassDef | ast.expr] | None:
    """Where `name` is defined, as a class or a constant, following `from ... import name`."""
    tree = _source(module)
    for node in statements(tree) if tree else []:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            return module, node.value
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                origin = _absolute(module, node)
                if (alias.asname or alias.name) == name and trusted(origin):
                    return _find(origin, alias.name)
    return None


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parent, file = module.split("."), _file(module)
    is_package = file is not None and file.name == "__init__.py"
    base = parent[: len(parent) - node.level + is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def _constructor(module: str, node: ast.ClassDef) -> dict[str, Parameter]:
    """The parameters of `__init__`; without one, the base class's and those of a dataclass."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _parameters(module, item.args)
    inherited: dict[str, Parameter] = {}
    for base in node.bases:
        name = base.value if isinstance(base, ast.Subscript) else base
        found = _find(module, name.id) if isinstance(name, ast.Name) else None
        if found and isinstance(found[1], ast.ClassDef):
            inherited = _constructor(found[0], found[1])
            break
    return inherited | (_fields(module, node) if _is_dataclass(node) else {})


def _is_dataclass(node: ast.ClassDef) -> bool:
    names = (d.func if isinstance(d, ast.Call) else d for d in node.decorator_list)
    return any(isinstance(name, ast.Name) and name.id == "dataclass" for name in names)


def _fields(module: str, node: ast.ClassDef) -> dict[str, Parameter]:
    """The annotated names that a dataclass takes: no ClassVar, no field(init=False)."""
    fields: dict[str, Parameter] = {}
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        text = ast.unparse(item)
        if "ClassVar[" not in text and "init=False" not in text:
            arg = ast.arg(item.target.id, item.annotation)
            fields[arg.arg] = _parameter(module, arg, item.value)
    return fields


def _parameters(module: str, arguments: ast.arguments) -> dict[str, Parameter]:
    positional = [*arguments.posonlyargs, *arguments.args]
    without = [None] * (len(positional) - len(arguments.defaults))
    pairs = list(zip(positional, [*without, *arguments.defaults], strict=True))[1:]  # not self
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return {arg.arg: _parameter(module, arg, default) for arg, default in pairs}


def _parameter(module: str, arg: ast.arg, default: ast.expr | None) -> Parameter:
    kind = _annotation(module, arg.annotation) if arg.annotation else None
    value = NO_DEFAULT
    if default is not None:
        with suppress(ValueError):  # not a plain value
            value = ast.literal_eval(default)
    return Parameter(arg.arg, None if kind is NoneType else kind, default is not None, value)


def _annotation(module: str, node: ast.expr) -> object | None:
    """The type of an annotation; None if YAML cannot give such a value."""
    match node:
        case ast.Constant(value=None):
            return NoneType
        case ast.Constant(value=str(text)):
            return _annotation(module, ast.parse(text, mode="eval").body)
        case ast.Name(id=name):
            return _NAMES.get(name) or _elsewhere(module, name)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _either(_annotation(module, left), _annotation(module, right))
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return Literal[_literal(choices)]
        case ast.Subscript(value=ast.Name(id="list" | "tuple" as name), slice=inside):
            members = inside.elts if isinstance(inside, ast.Tuple) else [inside]
            return _sequence(name, [_member(module, member) for member in members])
    return None


def _literal(choices: ast.expr) -> tuple[object, ...]:
    value = ast.literal_eval(choices)
    return value if isinstance(value, tuple) else (value,)


def _member(module: str, node: ast.expr) -> object | None:
    is_dots = isinstance(node, ast.Constant) and node.value is Ellipsis
    return Ellipsis if is_dots else _annotation(module, node)


def _sequence(name: str, members: list[object | None]) -> object | None:
    if None in members:
        return None
    return list[members[0]] if name == "list" else tuple[tuple(members)]  # type: ignore[valid-type]


def _either(left: object | None, right: object | None) -> object | None:
    """A union without the types that YAML cannot give: `float | Tensor` is a float here."""
    if left is None or right is None:
        return right if left is None else left
    return Union[left, right]  # noqa: UP007 - the members are values here, not types written down


def _elsewhere(module: str, name: str) -> object | None:
    """A name that the module defines or imports: a type alias, or a group of settings."""
    found = _find(module, name)
    if found is None:
        return None
    where, node = found
    if not isinstance(node, ast.ClassDef):
        return _annotation(where, node)
    return _constructor(where, node) if where == ROOT.rpartition(".")[0] else None
